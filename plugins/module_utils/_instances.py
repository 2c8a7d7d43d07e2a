# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2 GPU instance types: which may serve a model, and what a pod may ask of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from . import _data

# What runs on every GPU node beside the model: VPC CNI, kube-proxy, pod identity and CSI agents, node monitoring, and the
# GPU Operator's daemonsets, which Karpenter cannot count because they select labels set after the node has joined.
DAEMONSETS_CPU_M = 300
DAEMONSETS_MEMORY_MIB = 1024


@dataclass(frozen=True)
class Instance:
    """One EC2 type. Memory in MiB, CPU in millicores, network in Gbit/s, price in USD per hour on demand or None."""

    name: str
    gpu_name: str
    gpu_count: int
    gpu_memory_mib: int
    vcpu: int
    allocatable_cpu_m: int
    allocatable_memory_mib: int
    network_gbps: float
    price: float | None
    arch: str
    bare_metal: bool

    def share(self, gpus: int) -> tuple[int, int]:
        """CPU (millicores) and memory (MiB) that a pod with `gpus` GPUs may ask for, so that all GPUs of the node stay usable."""
        parts = gpus / self.gpu_count
        return int((self.allocatable_cpu_m - DAEMONSETS_CPU_M) * parts) // 100 * 100, int((self.allocatable_memory_mib - DAEMONSETS_MEMORY_MIB) * parts)


@functools.cache
def table() -> dict[str, Instance]:
    """All types with at least one whole GPU, by name. The result is shared: do not change it."""
    return {
        row["instance_type"]: Instance(
            name=row["instance_type"],
            gpu_name=row["karpenter_gpu_name_label"] or row["gpu_name"].lower().replace(" ", "-"),
            gpu_count=row["gpu_count"],
            gpu_memory_mib=row["gpu_memory_mib"],
            vcpu=row["vcpu"],
            allocatable_cpu_m=row["karpenter_alloc_cpu_m"],
            allocatable_memory_mib=row["karpenter_alloc_mem_mib"],
            network_gbps=row["network_baseline_gbps"],
            price=row["on_demand_usd_hr_us_east_1"],
            arch=row["arch"][0],
            bare_metal=row["bare_metal"],
        )
        for row in _data.load("instances")["instances"]
        if row["gpu_count"]
    }


def vcpus_needed(gpus: int) -> int:
    """vLLM wants 2 x (2 + N) vCPU for N GPUs: API server and engine busy loops plus one worker a GPU, two hyperthreads each."""
    return 2 * (2 + gpus)


def candidates(gpus: int, gpu_names: Iterable[str], minimum_memory_mib: float = 0) -> list[Instance]:
    """Types with one of `gpu_names`, enough vCPU for `gpus` GPUs and `minimum_memory_mib` GPU memory on them, cheapest first.

    Only the smallest number of GPUs that is enough is taken. Karpenter packs pending pods into as few nodes as it can, so with larger types
    allowed a server on one GPU and one on four would get a node with eight together, which costs more than twice as much as one of each.
    """
    wanted = set(gpu_names)
    found = [
        instance
        for instance in table().values()
        if instance.gpu_name in wanted
        and instance.gpu_count >= gpus
        and not instance.bare_metal
        and instance.arch == "x86_64"
        and instance.vcpu * gpus / instance.gpu_count >= vcpus_needed(gpus)
        and instance.gpu_memory_mib * gpus >= minimum_memory_mib
    ]
    fewest = min((instance.gpu_count for instance in found), default=0)
    return sorted((instance for instance in found if instance.gpu_count == fewest), key=lambda i: (i.price is None, i.price or 0, i.name))
