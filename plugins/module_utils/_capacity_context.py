# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of gpu_capacity_check look at: one immutable picture of models, nodes, NodePools and the AWS account. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _drivers, _gpu_nodes_dra
from ._capacity_account import ON_DEMAND, RESERVED, SPOT, Account
from ._capacity_market import Ask
from ._capacity_pools import Pool, assumed, merged, pool
from ._drivers_verdict import Image, Verdict, image, judge
from ._gpu_nodes import Facts, describe, planned
from ._gpu_nodes_resources import GPU
from ._gpu_nodes_smi import Boards
from ._gpu_nodes_types import Table, table

Model = Mapping[str, Any]
_MARKETS = {"ON_DEMAND": (ON_DEMAND,), "SPOT": (SPOT,), "CAPACITY_BLOCK": (RESERVED,)}  # capacity_type of a node group


@dataclass(frozen=True)
class Unread:
    """A list that the API server refused. `group` is empty for the core API; `message` is the server's."""

    resource: str
    group: str
    message: str


@dataclass(frozen=True)
class Objects:
    """What was read from the cluster, as the API server returns it. None: refused (see `unread`), or no such kind.

    `absent`: why no cluster was read at all, then everything else is None; `configured` whether a login was found and the server did not answer.
    `boards`: nvidia-smi's answers by node, `silent`: pods that gave none, and why.
    """

    nodes: Sequence[Mapping[str, Any]] | None = None
    pods: Sequence[Mapping[str, Any]] | None = None
    node_pools: Sequence[Mapping[str, Any]] | None = None
    node_classes: Sequence[Mapping[str, Any]] | None = None
    unread: tuple[Unread, ...] = ()
    slices: Sequence[Mapping[str, Any]] = ()
    claims: Sequence[Mapping[str, Any]] = ()
    device_classes: Sequence[Mapping[str, Any]] = ()
    boards: Mapping[str, Boards] | None = None
    silent: tuple[str, ...] = ()
    absent: str = ""
    configured: bool = False

    def facts(self, node_groups: Sequence[Mapping[str, Any]] = (), types: Table | None = None, node_classes: Iterable[Mapping[str, Any]] = ()) -> list[Facts]:
        """Facts of the GPU nodes, see _gpu_nodes.describe."""
        devices = _gpu_nodes_dra.by_node(self.slices, self.claims, self.device_classes)
        return describe(self.nodes or (), self.pods, node_groups, node_classes or self.node_classes or (), types, self.boards, devices)


@dataclass(frozen=True)
class Request:
    """What the user asked for: planned models and options of gpu_capacity_check. `planned`: NodePool and EC2NodeClass objects that the run will apply.

    `month`: today as "2026-11". `subnets`: ids.
    """

    models: Sequence[Model]
    month: str
    image_cuda: str | None = None
    node_groups: Sequence[Mapping[str, Any]] = ()
    namespace: str = "llm-serving"
    planned: Sequence[Mapping[str, Any]] = ()
    cluster_name: str | None = None
    subnets: Sequence[str] = ()


@dataclass(frozen=True)
class Judged:
    """The verdict on one model's image on one node, or one kind of node to come."""

    model: str
    node: Facts
    image: Image
    verdict: Verdict


@dataclass(frozen=True)
class Context:
    """`nodes`: facts of those that exist and those that node groups will bring. `prospects`: facts of what NodePools may launch, one a pool and type.
    `running`: replicas of a model that already have a node. `account` None: AWS was not asked, `no_account` says why."""

    request: Request
    objects: Objects
    models: tuple[Model, ...]
    types: Table
    nodes: tuple[Facts, ...]
    pools: tuple[Pool, ...]
    prospects: tuple[Facts, ...]
    node_classes: Mapping[str, Mapping[str, Any]]
    node_groups: tuple[Mapping[str, Any], ...]
    running: Mapping[str, int]
    karpenter: bool
    account: Account | None = None
    no_account: str = ""

    @property
    def unread(self) -> tuple[Unread, ...]:
        return self.objects.unread

    @property
    def image_cuda(self) -> str | None:
        return self.request.image_cuda

    def ask_of_pool(self, item: Pool, instance_type: str) -> Ask:
        """One more node of a NodePool."""
        spec = (self.node_classes.get(item.node_class) or {}).get("spec") or {}
        return Ask(
            f"NodePool {item.name}", instance_type, item.capacity_types, item.allows_zone,
            () if self.request.subnets else tuple(spec.get("subnetSelectorTerms") or ()), tuple(spec.get("capacityReservationSelectorTerms") or ()),
        )  # fmt: skip

    def ask_of_group(self, group: Mapping[str, Any], instance_type: str) -> Ask:
        """One more node of a managed node group."""
        reservation = group.get("capacity_reservation_id")
        markets = (RESERVED,) if reservation else _MARKETS.get(group.get("capacity_type") or "ON_DEMAND", (ON_DEMAND,))
        return Ask(
            f"node group {group['name']}", instance_type, markets, lambda _zone: True,
            tuple({"id": name} for name in group.get("subnets") or ()), ({"id": reservation},) if reservation else (),
        )  # fmt: skip

    def refused(self, *resources: str) -> bool:
        return any(item.resource in resources for item in self.unread)

    @functools.cached_property
    def judged(self) -> tuple[Judged, ...]:
        """Every model on every node where its pods may land."""
        found, cache = [], {}
        for model in self.models:
            wanted, env = image(model["image"], self.image_cuda), model.get("env") or {}
            for node in (*self.nodes, *self.prospects):
                if not lands(model, node):
                    continue
                driver = node["driver"] and _drivers.Driver(**node["driver"])
                gpu = node["gpu"]
                key = (model["name"], gpu["name"], gpu["compute_capability"], driver)
                if key not in cache:
                    cache[key] = judge(wanted, gpu["name"], gpu["compute_capability"], driver, env, self.request.month)
                found.append(Judged(model["name"], node, wanted, cache[key]))
        return tuple(found)

    @functools.cached_property
    def failing(self) -> frozenset[tuple[str, str]]:
        """(model, node) pairs whose pod would start and die."""
        return frozenset((item.model, item.node["name"]) for item in self.judged if item.verdict.level == "fail")


def lands(model: Model, node: Facts) -> bool:
    """Whether the model's node affinity and toleration let its pods onto the node."""
    types = model.get("instance_types")
    return (not types or node["instance_type"] in types) and not foreign_taints(node["taints"])


def foreign_taints(taints: Iterable[Mapping[str, Any]]) -> list[str]:
    """Taints that keep our pods away: they tolerate nvidia.com/gpu:NoSchedule, whatever its value. Kubernetes' own node conditions are states."""
    return [
        f"{taint['key']}:{taint['effect']}"
        for taint in taints
        if taint["effect"] != "PreferNoSchedule"
        and not (taint["key"] == GPU and taint["effect"] == "NoSchedule")
        and not taint["key"].startswith("node.kubernetes.io/")
    ]


def build(request: Request, objects: Objects, account: Account | None = None, no_account: str = "") -> Context:
    """Put the picture together."""
    types = {**table(), **(account.types or {})} if account and account.types else table()
    by_kind = {kind: [item for item in request.planned if item["kind"] == kind] for kind in ("NodePool", "EC2NodeClass")}
    classes = merged(objects.node_classes or (), by_kind["EC2NodeClass"])
    by_name = {item["metadata"]["name"]: item for item in classes}
    pools = tuple(pool(item, types) for item in merged(objects.node_pools or (), by_kind["NodePool"]))
    # What a group is now beats what was said of it, but not with a blank; groups that only the run will make are added.
    groups = {group["name"]: group for group in request.node_groups}
    for now in account.node_groups if account else ():
        known = {key: value for key, value in now.items() if value not in (None, [], "")}
        groups[now["name"]] = {**now, **groups.get(now["name"], {}), **known}
    groups = tuple(groups.values())
    if objects.absent and not pools and not groups:
        pools = (assumed(types),)
    chosen = tuple(model for model in request.models if model.get("state", "present") == "present")
    wanted = {name for model in chosen for name in model.get("instance_types") or ()}
    kubernetes = _kubernetes(objects, account)
    return Context(
        request=request,
        objects=objects,
        models=chosen,
        types=types,
        nodes=tuple(objects.facts(groups, types, classes)),
        pools=pools,
        prospects=tuple(
            planned(item.name, name, node_class=by_name.get(item.node_class), taints=item.taints, kubernetes=kubernetes, types=types)
            for item in pools
            if not item.closed
            for name in item.instance_types
            if not wanted or name in wanted
        ),
        node_classes=by_name,
        node_groups=groups,
        running=_running(objects.pods or (), request.namespace),
        karpenter=objects.node_pools is not None or bool(by_kind["NodePool"]),
        account=account,
        no_account=no_account,
    )


def _kubernetes(objects: Objects, account: Account | None) -> str | None:
    """The newest kubelet's version, else the control plane's. A node that has just been registered names none: its fields are there and empty."""
    told = [((n.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or "" for n in objects.nodes or ()]
    kubelets = [text for text in told if re.match(r"v?\d+\.\d+", text)]
    newest = max(kubelets, key=lambda text: [int(part) for part in re.findall(r"\d+", text)[:2]], default=None)
    return newest or ((account.cluster or {}).get("version") if account else None)


def _running(pods: Iterable[Mapping[str, Any]], namespace: str) -> dict[str, int]:
    """Scheduled server pods by model: what they hold is no longer free, and is theirs already."""
    count: dict[str, int] = {}
    for pod in pods:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        if (
            metadata.get("namespace") == namespace
            and labels.get("app.kubernetes.io/name") == "vllm"
            and labels.get("app.kubernetes.io/part-of") == "llmops.eks"
            and pod["spec"].get("nodeName")
            and not metadata.get("deletionTimestamp")
            and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ):
            name = labels.get("app.kubernetes.io/instance", "")
            count[name] = count.get(name, 0) + 1
    return count
