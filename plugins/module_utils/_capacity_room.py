# SPDX-License-Identifier: GPL-3.0-or-later
"""Put replicas onto free GPUs, then onto the nodes that node groups and NodePools may still bring. Pure arithmetic; nothing is reserved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._capacity_context import Context, Model, foreign_taints
from ._capacity_market import Denial, Market
from ._capacity_pools import Pool, cost
from ._gpu_nodes import Facts
from ._gpu_nodes_dra import DRIVER as DRA
from ._gpu_nodes_resources import mebibytes, millicores
from ._instances import DAEMONSETS_CPU_M, DAEMONSETS_MEMORY_MIB

DRA_ONLY = "GPUs only by DRA claims"


@dataclass
class Bin:
    """What is free on one node."""

    node: Facts
    gpus: int
    cpu_m: int
    memory_mib: int


@dataclass(frozen=True)
class Need:
    """What one replica takes from one node."""

    model: Model
    gpus: int
    cpu_m: int
    memory_mib: int

    def __str__(self) -> str:
        return f"{self.gpus} GPU(s), {self.cpu_m}m CPU and {self.memory_mib} MiB memory on one node"


def need(model: Model) -> Need:
    resources = model.get("resources") or {}
    return Need(model, int(model["gpus"]), millicores(resources.get("cpu", 0)), mebibytes(resources.get("memory", 0)))


@dataclass(frozen=True)
class Refused:
    """AWS does not bring a node that Kubernetes would take: the first reason decides, `others` are those of further instance types."""

    denial: Denial
    node: Facts
    others: tuple[Denial, ...] = ()


class Room:
    """The free room of a context; every placed replica makes it smaller.

    `group_refusals`: nodes of node groups that AWS does not bring, by group name, with their number.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.market = Market(context.account, context.types)
        self.bins = [bin_of(node) for node in context.nodes if node["state"] == "ready" or _joining(node)]
        self.left = {pool.name: pool.left() for pool in context.pools}
        self.placed: dict[str, int] = {}
        self.group_refusals: dict[str, tuple[Refused, int]] = {}
        self._pools = {pool.name: pool for pool in context.pools}
        for group in context.node_groups:
            self._start(group)

    def place(self, wanted: Need) -> Refused | bool:
        """Take the room of one replica: the tightest node that fits, else a new one. If there is none: False, or Refused when only AWS is in the way."""
        fitting = [b for b in self.bins if fits(wanted, b) and not obstacle(self.context, wanted.model, b.node)]
        found = min(fitting, key=lambda b: (b.gpus, b.cpu_m), default=None) or self._launch(wanted)
        if not isinstance(found, Bin):
            return found or False
        found.gpus -= wanted.gpus
        found.cpu_m -= wanted.cpu_m
        found.memory_mib -= wanted.memory_mib
        self.placed[wanted.model["name"]] = self.placed.get(wanted.model["name"], 0) + 1
        return True

    def _launch(self, wanted: Need) -> Bin | Refused | None:
        order = {name: rank for rank, name in enumerate(wanted.model.get("instance_types") or ())}
        refused: list[tuple[Denial, Facts]] = []
        for node in sorted(self.context.prospects, key=lambda n: order.get(n["instance_type"], len(order))):
            name = node["origin"]["name"]
            fresh, price, left = bin_of(node), cost(self.context.types[node["instance_type"]]), self.left[name]
            affordable = all(price[key] <= amount for key, amount in left.items())
            if affordable and fits(wanted, fresh) and not obstacle(self.context, wanted.model, node):
                denial = self.market.grant(self.context.ask_of_pool(self._pools[name], node["instance_type"]))
                if denial:
                    refused.append((denial, node))
                    continue
                for key in left:
                    left[key] -= price[key]
                self.bins.append(fresh)
                return fresh
        return _refused(refused)

    def _start(self, group: Mapping[str, Any]) -> None:
        """Nodes that a node group without nodes will bring: `desired_size` of the first of its types that AWS has."""
        mine = {node["instance_type"]: node for node in self.context.nodes if node["planned"] and node["origin"]["name"] == group["name"]}
        nodes = [mine[name] for name in group.get("instance_types") or () if name in mine]
        missing = int(group.get("desired_size") or 0) if nodes else 0
        while missing:
            refused: list[tuple[Denial, Facts]] = []
            for node in nodes:
                denial = self.market.grant(self.context.ask_of_group(group, node["instance_type"]))
                if denial is None:
                    self.bins.append(bin_of(node))
                    break
                refused.append((denial, node))
            else:
                self.group_refusals[group["name"]] = (_refused(refused), missing)
                return
            missing -= 1


def _refused(found: list[tuple[Denial, Facts]]) -> Refused | None:
    if not found:
        return None
    (first, node), seen = found[0], {found[0][0].key}
    others = []
    for denial, _node in found[1:]:
        if denial.key not in seen:
            seen.add(denial.key)
            others.append(denial)
    return Refused(first, node, tuple(others))


def nodes_for(wanted: Need, node: Facts, replicas: int) -> int:
    """New nodes of this kind that so many replicas take."""
    empty = bin_of(node)
    each = min(empty.gpus // wanted.gpus, *(have // need for have, need in ((empty.cpu_m, wanted.cpu_m), (empty.memory_mib, wanted.memory_mib)) if need))
    return -(-replicas // max(1, each))


def bin_of(node: Facts) -> Bin:
    """Free room of a node. One that does not exist yet will run the daemonsets, too; one that joins has not registered its GPUs yet."""
    cpu, memory = (DAEMONSETS_CPU_M, DAEMONSETS_MEMORY_MIB) if node["planned"] else (0, 0)
    gpus = (node["gpu"]["count"] or 0) - node["gpus"]["requested"] if _joining(node) else node["gpus"]["free"]
    return Bin(node, gpus, node["cpu_m"]["free"] - cpu, node["memory_mib"]["free"] - memory)


def _joining(node: Facts) -> bool:
    """A node that Karpenter has launched and that is on its way: its pool's limit counts it already, so its room must count, too."""
    return node["origin"]["kind"] == "nodepool" and node["state"] in ("not_initialized", "no_device_plugin")


def fits(wanted: Need, free: Bin) -> bool:
    return wanted.gpus <= free.gpus and wanted.cpu_m <= free.cpu_m and wanted.memory_mib <= free.memory_mib


def obstacle(context: Context, model: Model, node: Facts) -> str:
    """Why the model cannot use this node whatever is free on it; empty if it can."""
    types = model.get("instance_types")
    if types and node["instance_type"] not in types:
        return f"instance type {node['instance_type'] or 'unknown'} is not allowed for the model"
    if taints := foreign_taints(node["taints"]):
        return f"taint {', '.join(taints)}"
    if node["gpus"]["resource"] == DRA:
        return DRA_ONLY
    if node["sharing"]["replicas"] > 1 or node["sharing"]["strategy"] not in ("none", ""):
        return f"GPUs shared by {node['sharing']['strategy']}"
    if node["mig"]["profile"] or node["mig"]["strategy"] == "mixed":
        return "GPUs split by MIG"
    if (model["name"], node["name"]) in context.failing:
        return "driver or GPU too old for the image"
    return ""


def pool_obstacle(context: Context, wanted: Need, pool: Pool, left: dict[str, int]) -> tuple[str, str]:
    """(why this NodePool cannot bring a node for one more replica, what to do), both empty if it can."""
    spec = f"NodePool {pool.name}"
    if pool.closed:
        return f"{spec} {pool.closed}", f"correct {spec}"
    if taints := foreign_taints(pool.taints):
        return f"{spec} has taint {', '.join(taints)}", f"remove the taint from {spec}: model pods tolerate nvidia.com/gpu only"
    types = wanted.model.get("instance_types") or pool.instance_types
    nodes = [node for node in context.prospects if node["origin"]["name"] == pool.name and node["instance_type"] in types]
    if not nodes:
        return f"{spec} allows none of {', '.join(types)}", f"allow {types[0] if types else 'a GPU type'} in spec.template.spec.requirements of {spec}"
    usable = [node for node in nodes if not obstacle(context, wanted.model, node)]
    if not usable:
        return f"{spec}: {obstacle(context, wanted.model, nodes[0])}", f"update the AMI or the instance types of {spec}"
    fitting = [node for node in usable if fits(wanted, bin_of(node))]
    if not fitting:
        free = bin_of(usable[-1])
        return (
            f"{spec}: {usable[-1]['instance_type']} leaves {free.gpus} GPU(s), {free.cpu_m}m CPU, {free.memory_mib} MiB beside the daemonsets",
            "lower resources of the model or allow a larger instance type",
        )
    price = cost(context.types[fitting[0]["instance_type"]])
    short = [name for name, amount in left.items() if price[name] > amount]
    if not short:
        return "", ""
    terms = ", ".join(f"{name} {pool.limits[name]} with {pool.used.get(name, 0)} used" for name in short)
    raised = ", ".join(f"{name} by {price[name] - left[name]}" for name in short)
    return f"{spec} is at its limit ({terms})", f"raise spec.limits of {spec} ({_units(raised, short)}) or lower replicas"


def _units(text: str, names: list[str]) -> str:
    units = [unit for name, unit in (("cpu", "cpu in millicores"), ("memory", "memory in MiB")) if name in names]
    return f"{text}; {', '.join(units)}" if units else text
