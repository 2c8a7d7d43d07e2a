# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU, memory and /dev/shm of a planned model's pod, with the sums that explain them. Pure."""

from __future__ import annotations

import math
from typing import Any

from . import _instances
from ._fit_host import HostMemory
from ._gpu_nodes_resources import mebibytes
from ._instances import Instance

# The memory of a CUDA process was not measured on a GPU, so the limit leaves twice the request where the node has it.
LIMIT_FACTOR = 2


def set_resources(model: dict[str, Any], instances: list[Instance], host: HostMemory | None) -> None:
    """Fill in model.resources, as Kubernetes quantities that fit the smallest of `instances` beside its daemonsets. host None: a rule of thumb by size."""
    gpus, resources, explain = model["gpus"], model["resources"], model["explain"]
    shares = {instance.name: instance.share(gpus) for instance in instances}
    cpu_type, memory_type = (min(shares, key=lambda name: shares[name][part]) for part in (0, 1))
    wanted_cpu, most_cpu, most_memory = _instances.vcpus_needed(gpus) * 1000, shares[cpu_type][0], shares[memory_type][1]
    if host:
        shm_mib, request, limit, how = host.shm_mib, host.request_gib * 1024, max(host.limit_gib, LIMIT_FACTOR * host.request_gib) * 1024, list(host.explain)
        how[1] += f", at least {LIMIT_FACTOR} x request"
    else:
        shm_mib, request, limit, how = _by_size(model)
    of_node = f"{memory_type} leaves {most_memory}Mi beside its daemonsets, the least of the allowed types"
    if limit > most_memory and model["weights"]["mode"] == "volume":
        of_node += "; the limit holds less page cache than the checkpoint wants: it starts slower, nothing breaks"
    computed = {
        "cpu": (_cpu(min(wanted_cpu, most_cpu)), [f"2 x (2 + {gpus} GPU) vCPU = {wanted_cpu}m", f"{cpu_type} leaves {most_cpu}m beside its daemonsets"]),
        "shm": (_mib(shm_mib), [line for line in how if line.startswith("shm")]),
        "memory": (_mib(min(request, most_memory)), [line for line in how if line.startswith("request")] + [of_node]),
        "memory_limit": (_mib(min(limit, most_memory)), [line for line in how if line.startswith("limit")] + [of_node]),
    }
    # A request that is set by hand is the limit, too: more than was asked for would be taken from the neighbours.
    if resources["memory"] and not resources["memory_limit"]:
        resources["memory_limit"] = resources["memory"]
    if resources["memory_limit"] and not resources["memory"]:
        computed["memory"] = (_mib(min(request, most_memory, mebibytes(resources["memory_limit"]))), [*computed["memory"][1], "at most the limit"])
    for key, (quantity, reasons) in computed.items():
        if not resources[key]:
            resources[key] = quantity
            explain[f"resources.{key}"] = reasons


def _by_size(model: dict[str, Any]) -> tuple[int, int, int, list[str]]:
    """(shm, request, limit in MiB, how) of a model that is not known."""
    gpus, size = model["gpus"], model["weights"]["size_gib"]
    shm_gib = max(2, math.ceil(1 + 0.5 * model["tensor_parallel_size"]))
    # A CUDA process holds up to 3 GiB of host memory; server and engine core 8 GiB; page cache for the weights speeds the load.
    memory = int((8 + 3 * gpus + shm_gib + 1.1 * size) * 1024)
    total = f"8 GiB server + {gpus} x 3 GiB worker + {shm_gib} GiB shm + 1.1 x {size:g} GiB weights = {memory}Mi"
    how = [f"request: {total}", f"limit: {total}", f"shm: max(2, 1 + 0.5 x tensor_parallel_size {model['tensor_parallel_size']}) GiB"]
    return shm_gib * 1024, memory, memory, how


def _cpu(millicores: int) -> str:
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def _mib(mib: int) -> str:
    """As the API server writes it back."""
    return f"{mib // 1024}Gi" if mib % 1024 == 0 else f"{mib}Mi"
