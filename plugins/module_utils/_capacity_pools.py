# SPDX-License-Identifier: GPL-3.0-or-later
"""Karpenter NodePools: which instance types one may launch, and how much its limits still leave. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._capacity_account import ON_DEMAND, RESERVED, SPOT
from ._gpu_nodes import GPU_TAINT, INSTANCE_TYPE_LABEL
from ._gpu_nodes_resources import GPU, mebibytes, millicores, pieces
from ._gpu_nodes_types import Table

CAPACITY_TYPE, ZONE = "karpenter.sh/capacity-type", "topology.kubernetes.io/zone"
ASSUMED = "(assumed)"  # name of the pool that stands for all when there is no cluster to read

_UNITS = {"cpu": millicores, "memory": mebibytes, GPU: pieces, "nodes": pieces}


@dataclass(frozen=True)
class Pool:
    """One NodePool. `limits` and `used` in millicores, MiB and pieces; `closed` says why it launches nothing at all, or is empty.

    `capacity_types`: those of on-demand, spot and reserved that it may buy. `requirements`: as in the object, for zones.
    """

    name: str
    instance_types: tuple[str, ...]
    capacity_types: tuple[str, ...]
    requirements: tuple[Mapping[str, Any], ...]
    taints: tuple[Mapping[str, Any], ...]
    limits: Mapping[str, int]
    used: Mapping[str, int]
    node_class: str
    closed: str

    def left(self) -> dict[str, int]:
        return {name: max(0, limit - self.used.get(name, 0)) for name, limit in self.limits.items()}

    def allows_zone(self, zone: str) -> bool:
        return matches(self.requirements, {ZONE: zone})


def pool(item: Mapping[str, Any], types: Table) -> Pool:
    """From a NodePool object (karpenter.sh/v1). `types`: the instance types there are."""
    spec, status = item["spec"], item.get("status") or {}
    template = (spec.get("template") or {}).get("spec") or {}
    requirements = template.get("requirements") or ()
    return Pool(
        name=item["metadata"]["name"],
        instance_types=tuple(name for name, row in types.items() if row["gpu_count"] and matches(requirements, labels(row))),
        capacity_types=tuple(kind for kind in (RESERVED, SPOT, ON_DEMAND) if matches(requirements, {CAPACITY_TYPE: kind})),
        requirements=tuple(requirements),
        taints=tuple(template.get("taints") or ()),
        limits=_amounts(spec.get("limits") or {}),
        used=_amounts(status.get("resources") or {}),
        node_class=(template.get("nodeClassRef") or {}).get("name", ""),
        closed=_closed(item["metadata"], spec, status),
    )


def assumed(types: Table) -> Pool:
    """A pool without limits for every GPU type, on demand: what a plan without cluster and without NodePools supposes."""
    chosen = tuple(name for name, row in types.items() if row["gpu_count"])
    return Pool(ASSUMED, chosen, (ON_DEMAND,), (), (GPU_TAINT,), {}, {}, "", "")


def merged(live: Iterable[Mapping[str, Any]], planned: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Objects as they will be: planned ones replace live ones of the same name, and keep what these have launched already.

    Conditions are dropped: they tell of the specification that the run will replace.
    """
    found = {item["metadata"]["name"]: item for item in live}
    for item in planned:
        before = found.get(item["metadata"]["name"]) or {}
        used = (before.get("status") or {}).get("resources") or {}
        found[item["metadata"]["name"]] = {**item, "status": {"resources": used}}
    return list(found.values())


def _closed(metadata: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if spec.get("replicas") is not None:
        return f"is static with {spec['replicas']} nodes"
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "False":
            return f"is not Ready: {condition.get('message') or condition.get('reason') or 'no reason given'}"
    return ""


def _amounts(resources: Mapping[str, Any]) -> dict[str, int]:
    return {name: _UNITS[name](value) for name, value in resources.items() if name in _UNITS}


def labels(row: Mapping[str, Any]) -> dict[str, str]:
    """The well-known labels that a node of this instance type (a row of the instance table) will carry."""
    name, _dot, size = row["instance_type"].partition(".")
    category = re.match(r"([a-z]+)(\d+)", name)
    facts = {
        "category": category[1],
        "generation": category[2],
        "family": name,
        "size": size,
        "cpu": row["vcpu"],
        "memory": row["memory_mib"],
        "gpu-name": row["karpenter_gpu_name_label"],
        "gpu-manufacturer": "nvidia",
        "gpu-count": row["gpu_count"],
        "gpu-memory": row["gpu_memory_mib"],
    }
    found = {f"{prefix}/instance-{key}": str(value) for key, value in facts.items() for prefix in ("karpenter.k8s.aws", "eks.amazonaws.com")}
    arch = row["arch"][0].replace("x86_64", "amd64")
    return {**found, INSTANCE_TYPE_LABEL: row["instance_type"], "kubernetes.io/os": "linux", "kubernetes.io/arch": arch}


def matches(requirements: Iterable[Mapping[str, Any]], known: Mapping[str, str]) -> bool:
    """Whether labels meet all requirements. Keys that the instance type does not decide (zone, capacity type, own labels) are passed over."""
    return all(_meets(requirement, known[requirement["key"]]) for requirement in requirements if requirement["key"] in known)


def _meets(requirement: Mapping[str, Any], value: str) -> bool:
    operator, wanted = requirement["operator"], [str(v) for v in requirement.get("values") or ()]
    if operator in ("In", "NotIn"):
        return (value in wanted) == (operator == "In")
    if operator in ("Exists", "DoesNotExist"):
        return operator == "Exists"
    if not value.isdigit():
        return False
    number, bound = int(value), int(wanted[0])
    return {"Gt": number > bound, "Lt": number < bound, "Gte": number >= bound, "Lte": number <= bound}[operator]


def cost(row: Mapping[str, Any]) -> dict[str, int]:
    """What a new node of this type counts against the limits."""
    return {"cpu": row["vcpu"] * 1000, "memory": row["memory_mib"], GPU: row["gpu_count"], "nodes": 1}
