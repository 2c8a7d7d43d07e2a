# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs that NVIDIA's DRA driver publishes in ResourceSlices (resource.k8s.io/v1), where there is neither GFD label nor nvidia.com/gpu. Pure.

Attributes are those of dra-driver-nvidia-gpu (2026-08): type, uuid, productName, brand, architecture, cudaComputeCapability, driverVersion,
cudaDriverVersion; capacity memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _drivers
from ._gpu_nodes_resources import GPU, mebibytes

DRIVER = "gpu.nvidia.com"


@dataclass(frozen=True)
class Device:
    """One GPU or MIG device. `usable` is false while a taint keeps claims away, which is how the driver marks a broken one."""

    name: str
    kind: str
    product: str
    memory_mib: int | None
    compute_capability: str | None
    family: str | None
    driver: _drivers.Driver | None
    usable: bool
    allocated: bool


@dataclass(frozen=True)
class Devices:
    """The devices of one node. `extended`: a DeviceClass lets pods ask for them as nvidia.com/gpu (DRAExtendedResource, on since Kubernetes 1.36)."""

    items: tuple[Device, ...]
    extended: bool

    @property
    def resource(self) -> str:
        return GPU if self.extended else DRIVER


def by_node(
    slices: Iterable[Mapping[str, Any]], claims: Iterable[Mapping[str, Any]] = (), classes: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Devices]:  # fmt: skip
    """Devices by node name, from ResourceSlice, ResourceClaim and DeviceClass objects. Slices of an older generation of a pool are left out."""
    extended = any((item.get("spec") or {}).get("extendedResourceName") == GPU for item in classes)
    taken = {
        (result.get("driver"), result.get("pool"), result.get("device"))
        for claim in claims
        for result in ((((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}).get("results") or ())
    }
    specs = [item["spec"] for item in slices if item["spec"].get("driver") == DRIVER and item["spec"].get("nodeName")]
    newest: dict[str, int] = {}
    for spec in specs:
        newest[spec["pool"]["name"]] = max(newest.get(spec["pool"]["name"], 0), spec["pool"].get("generation", 0))
    found: dict[str, list[Device]] = {}
    for spec in specs:
        pool = spec["pool"]["name"]
        if spec["pool"].get("generation", 0) == newest[pool]:
            found.setdefault(spec["nodeName"], []).extend(_device(item, (DRIVER, pool, item["name"]) in taken) for item in spec.get("devices") or ())
    return {node: Devices(tuple(items), extended) for node, items in found.items()}


def _device(item: Mapping[str, Any], allocated: bool) -> Device:
    told = {name.removeprefix(f"{DRIVER}/"): next(iter(value.values()), None) for name, value in (item.get("attributes") or {}).items()}
    memory = (item.get("capacity") or {}).get("memory") or (item.get("capacity") or {}).get(f"{DRIVER}/memory")
    version, cuda = told.get("driverVersion"), told.get("cudaDriverVersion")
    return Device(
        name=item["name"],
        kind=str(told.get("type") or "gpu"),
        product=str(told.get("productName") or "").replace(" ", "-"),
        memory_mib=mebibytes(memory["value"]) if memory else None,
        compute_capability=_minor(told.get("cudaComputeCapability")),
        family=str(told["architecture"]).lower().replace(" ", "-") if told.get("architecture") else None,
        driver=_drivers.driver(str(version), _minor(cuda)) if version else None,
        usable=not any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in item.get("taints") or ()),
        allocated=allocated,
    )


def _minor(version: object) -> str | None:
    """ "8.9.0" -> "8.9": versions in slices have three parts, as the type demands."""
    return ".".join(str(version).split(".")[:2]) if version else None
