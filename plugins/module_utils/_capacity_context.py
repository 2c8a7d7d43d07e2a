# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks of gpu_capacity_check look at: one immutable picture of models, nodes and NodePools. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _drivers
from ._capacity_pools import Pool, pool
from ._drivers_verdict import Image, Verdict, image, judge
from ._gpu_nodes import Facts, describe, planned
from ._gpu_nodes_resources import GPU

Model = Mapping[str, Any]


@dataclass(frozen=True)
class Unread:
    """A list that the API server refused. `group` is empty for the core API; `message` is the server's."""

    resource: str
    group: str
    message: str


@dataclass(frozen=True)
class Objects:
    """What was read from the cluster, as the API server returns it. None: refused (see `unread`), or for NodePools: no such kind."""

    nodes: Sequence[Mapping[str, Any]] | None
    pods: Sequence[Mapping[str, Any]] | None
    node_pools: Sequence[Mapping[str, Any]] | None
    node_classes: Sequence[Mapping[str, Any]] | None
    unread: tuple[Unread, ...] = ()


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
    `running`: replicas of a model that already have a node. `month`: today as "2026-11"."""

    models: tuple[Model, ...]
    nodes: tuple[Facts, ...]
    pools: tuple[Pool, ...]
    prospects: tuple[Facts, ...]
    node_groups: tuple[Mapping[str, Any], ...]
    running: Mapping[str, int]
    unread: tuple[Unread, ...]
    karpenter: bool
    image_cuda: str | None
    month: str

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
                    cache[key] = judge(wanted, gpu["name"], gpu["compute_capability"], driver, env, self.month)
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


def build(
    models: Iterable[Model], objects: Objects, month: str, image_cuda: str | None = None, node_groups: Sequence[Mapping[str, Any]] = (),
    namespace: str = "llm-serving",
) -> Context:  # fmt: skip
    """Put the picture together."""
    classes = objects.node_classes or ()
    nodes = describe(objects.nodes or (), objects.pods, node_groups, classes)
    pools = tuple(pool(item) for item in objects.node_pools or ())
    by_name = {item["metadata"]["name"]: item for item in classes}
    # A node that has just been registered says nothing yet: its fields are there and empty.
    minors = [version for n in objects.nodes or () if (version := ((n.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion"))]
    kubernetes = max(minors, key=lambda text: [int(part) for part in text.lstrip("v").split(".")[:2]], default=None)
    chosen = tuple(model for model in models if model.get("state", "present") == "present")
    wanted = {name for model in chosen for name in model.get("instance_types") or ()}
    return Context(
        models=chosen,
        nodes=tuple(nodes),
        pools=pools,
        prospects=tuple(
            planned(item.name, name, node_class=by_name.get(item.node_class), taints=item.taints, kubernetes=kubernetes)
            for item in pools
            if not item.closed
            for name in item.instance_types
            if not wanted or name in wanted
        ),
        node_groups=tuple(node_groups),
        running=_running(objects.pods or (), namespace),
        unread=objects.unread,
        karpenter=objects.node_pools is not None,
        image_cuda=image_cuda,
        month=month,
    )


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
