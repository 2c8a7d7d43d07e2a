# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node offers and what its pods have reserved. Pure functions over Node and Pod objects as the API server returns them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

GPU = "nvidia.com/gpu"
SHARED_GPU = "nvidia.com/gpu.shared"  # the device plugin's name for GPU when sharing is configured with renameByDefault
MIG_PREFIX = "nvidia.com/mig-"

_FACTORS = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([numkMGTPE]|[KMGTPE]i|)")


def quantity(value: object) -> Decimal:
    """A Kubernetes quantity ("500m", "12Gi", 2) in its base unit (cores, bytes, pieces). Raises ValueError for anything else."""
    match = _QUANTITY.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"{value!r} is no Kubernetes quantity such as 500m, 12Gi or 2")
    return Decimal(match[1]) * _FACTORS[match[2]]


def millicores(value: object) -> int:
    return int(quantity(value) * 1000)


def mebibytes(value: object) -> int:
    return int(quantity(value) / 2**20)


def pieces(value: object) -> int:
    return int(quantity(value))


def is_gpu(resource: str) -> bool:
    return resource in (GPU, SHARED_GPU) or resource.startswith(MIG_PREFIX)


def _converted(resources: Mapping[str, Any]) -> dict[str, int]:
    """cpu in millicores, memory in MiB, GPUs in pieces; other resources are left out."""
    found = {}
    for name, value in resources.items():
        if name == "cpu":
            found[name] = millicores(value)
        elif name == "memory":
            # Round up: a request of 1.5 MiB must not count as 1 MiB.
            found[name] = -int(-quantity(value) // 2**20)
        elif is_gpu(name):
            found[name] = pieces(value)
    return found


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _asked(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    # A limit without a request is the request.
    return _converted({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def requests(pod: Mapping[str, Any]) -> dict[str, int]:
    """What the scheduler reserves for a pod: the larger of its containers (with sidecars) and each init container, plus overhead."""
    spec = pod["spec"]
    sidecars: dict[str, int] = {}
    highest: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, asked)
            asked = {}
        at_once = dict(sidecars)
        _add(at_once, asked)
        highest = {name: max(highest.get(name, 0), at_once.get(name, 0)) for name in {*highest, *at_once}}
    total = dict(sidecars)
    for container in spec.get("containers") or ():
        _add(total, _asked(container))
    total = {name: max(total.get(name, 0), highest.get(name, 0)) for name in {*total, *highest}}
    total.update(_asked({"resources": spec.get("resources")}))  # requests of the pod as a whole win over the sum
    _add(total, _converted(spec.get("overhead") or {}))
    return total


def reserved(pods: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Requests summed by node name. Pods that have ended, or have no node yet, hold nothing."""
    by_node: dict[str, dict[str, int]] = {}
    for pod in pods:
        name = pod["spec"].get("nodeName")
        if name and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            _add(by_node.setdefault(name, {}), requests(pod))
    return by_node


def offered(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """`status.allocatable` or `status.capacity`: cpu in millicores, memory in MiB, GPUs in pieces."""
    return {name: mebibytes(value) if name == "memory" else _converted({name: value})[name]
            for name, value in (resources or {}).items() if name in ("cpu", "memory") or is_gpu(name)}  # fmt: skip
