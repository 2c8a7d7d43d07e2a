# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of EC2 instance types with GPUs: the collection's table, and those that it lacks from EC2's own description. Pure."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import _data

Row = Mapping[str, Any]
Table = Mapping[str, Row]

# Families whose instances carry NVIDIA GPUs are named so (g6e, gr6, p5en); everything else is not worth a question.
GPU_FAMILY = re.compile(r"(g|gr|p)\d")


@functools.cache
def table() -> dict[str, Row]:
    """Rows of _data/instances.json by type."""
    return {row["instance_type"]: row for row in _data.load("instances")["instances"]}


@functools.cache
def vcpus() -> dict[str, int]:
    return {name: row["vcpu"] for name, row in table().items()}


def lacking(names: Iterable[str | None]) -> tuple[str, ...]:
    """GPU types by their name that the table does not know."""
    return tuple(sorted({name for name in names if name and name not in table() and GPU_FAMILY.match(name)}))


def row(item: Mapping[str, Any]) -> Row | None:
    """A row from an item of EC2's DescribeInstanceTypes; None for a type without NVIDIA GPUs. `source` tells it from a row of the table.

    Allocatable CPU (millicores) and memory (MiB) are Karpenter's estimate for a first launch (karpenter-provider-aws v1.14.1,
    pkg/providers/instancetype/types.go): 7.5 % of the memory is the hypervisor's, 11 MiB a pod and 255 MiB are reserved, 100 MiB is the eviction margin.
    """
    gpus = [gpu for gpu in (item.get("GpuInfo") or {}).get("Gpus") or () if gpu.get("Manufacturer") == "NVIDIA"]
    if not gpus:
        return None
    arch = item["ProcessorInfo"]["SupportedArchitectures"]
    vcpu, memory = item["VCpuInfo"]["DefaultVCpus"], item["MemoryInfo"]["SizeInMiB"]
    network = item["NetworkInfo"]
    card = network.get("NetworkCards", [{}])[network.get("DefaultNetworkCardIndex", 0)]
    interfaces = card.get("MaximumNetworkInterfaces") or network["MaximumNetworkInterfaces"]
    pods = interfaces * (network["Ipv4AddressesPerInterface"] - 1) + 2
    usable = memory - (64 if "arm64" in arch else 0)
    return {
        "instance_type": item["InstanceType"],
        "arch": arch,
        "vcpu": vcpu,
        "memory_mib": memory,
        "gpu_count": sum(gpu.get("Count", 0) for gpu in gpus),
        "gpu_name": gpus[0]["Name"],
        "gpu_memory_mib": gpus[0]["MemoryInfo"]["SizeInMiB"],
        "karpenter_gpu_name_label": re.sub(r"[^a-z0-9]+", "-", gpus[0]["Name"].lower()),
        "karpenter_alloc_cpu_m": vcpu * 1000 - _reserved_cpu(vcpu),
        "karpenter_alloc_mem_mib": usable - math.ceil(usable * 0.075) - (11 * pods + 255) - 100,
        "source": "ec2",
    }


def _reserved_cpu(vcpu: int) -> int:
    """The kubelet's share: 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest; millicores."""
    return sum(round(part) for part in (60, 10 * (vcpu > 1), 5 * max(0, min(vcpu, 4) - 2), 2.5 * max(0, vcpu - 4)))
