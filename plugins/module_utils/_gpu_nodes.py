# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of GPU nodes from Node and Pod objects, those of planned nodes from their node group. Pure: no cluster, no AWS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._gpu_nodes_dra import Devices
from ._gpu_nodes_resources import GPU, MIG_PREFIX, SHARED_GPU, is_gpu, offered, reserved
from ._gpu_nodes_smi import Boards
from ._gpu_nodes_sources import Evidence, gather
from ._gpu_nodes_types import Table, table

NODE_GROUP_LABEL = "eks.amazonaws.com/nodegroup"
NODE_POOL_LABEL = "karpenter.sh/nodepool"
NODE_CLASS_LABEL = "karpenter.k8s.aws/ec2nodeclass"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
GPU_TAINT = {"key": GPU, "value": "true", "effect": "NoSchedule"}

Facts = dict[str, Any]

_WRITERS = (  # who wrote the GPU labels of a node, by the label that only they write
    ("gfd", ("nvidia.com/gpu.product",)),
    ("operator", ("nvidia.com/gpu.present", "nvidia.com/gpu.deploy.operands")),
    ("nfd", tuple(f"feature.node.kubernetes.io/pci-{device}.present" for device in ("10de", "0302_10de", "0300_10de"))),
    ("karpenter", ("karpenter.k8s.aws/instance-gpu-name",)),
    ("auto-mode", ("eks.amazonaws.com/instance-gpu-name",)),
)


def describe(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]] | None,
    node_groups: Sequence[Mapping[str, Any]] = (),
    node_classes: Iterable[Mapping[str, Any]] = (),
    types: Table | None = None,
    boards: Mapping[str, Boards] | None = None,
    devices: Mapping[str, Devices] | None = None,
) -> list[Facts]:
    """Facts of every GPU node, and of a planned node for each node group that has none yet, sorted by name.

    `pods` None: they could not be read, then `requested` and `free` are None. `node_groups`: {name, instance_types, ami_type, release_version,
    version, desired_size}. `node_classes`: EC2NodeClass objects. `types`: instance types, by default the collection's table. `boards` and `devices`:
    what nvidia-smi and ResourceSlices tell, by node. The shape of a row is documented in plugins/modules/gpu_node_info.py.
    """
    nodes, types = list(nodes), table() if types is None else types
    groups = {group["name"]: group for group in node_groups}
    classes = {item["metadata"]["name"]: item for item in node_classes}
    held = None if pods is None else reserved(pods)
    rows = []
    for node in nodes:
        labels, name = node["metadata"].get("labels") or {}, node["metadata"]["name"]
        evidence = Evidence(
            node,
            types.get(labels.get(INSTANCE_TYPE_LABEL, ""), {}),
            groups.get(labels.get(NODE_GROUP_LABEL, ""), {}),
            classes.get(labels.get(NODE_CLASS_LABEL, ""), {}),
            (boards or {}).get(name),
            (devices or {}).get(name),
        )
        if _has_gpus(evidence):
            rows.append(_facts(evidence, None if held is None else held.get(name, {})))
    alive = {(node["metadata"].get("labels") or {}).get(NODE_GROUP_LABEL) for node in nodes}
    for group in groups.values():
        if group["name"] not in alive:
            chosen = [name for name in group.get("instance_types") or () if types.get(name, {}).get("gpu_count")]
            rows += [planned(group["name"], name, group, types=types) for name in chosen]
    return sorted(rows, key=lambda row: row["name"])


def planned(
    name: str,
    instance_type: str,
    node_group: Mapping[str, Any] | None = None,
    node_class: Mapping[str, Any] | None = None,
    taints: Sequence[Mapping[str, Any]] = (GPU_TAINT,),
    kubernetes: str | None = None,
    types: Table | None = None,
) -> Facts:
    """Facts of a node that does not exist yet: `instance_type` (one of `types`) in a node group or of an EC2NodeClass.

    `kubernetes`: the minor version that its kubelet will have ("1.36"), because AMI releases carry different drivers by minor.
    """
    row, group = (table() if types is None else types)[instance_type], node_group or {}
    amount = {"cpu": f"{row['karpenter_alloc_cpu_m']}m", "memory": f"{row['karpenter_alloc_mem_mib']}Mi", GPU: row["gpu_count"]}
    node = {
        "metadata": {"name": f"{name}/{instance_type}", "labels": {INSTANCE_TYPE_LABEL: instance_type}},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": amount, "nodeInfo": {"kubeletVersion": kubernetes or ""}},
    }
    facts = _facts(Evidence(node, row, group, node_class or {}), {})
    return {
        **facts,
        "gpus": {**facts["gpus"], "capacity": facts["gpus"]["allocatable"]},
        "planned": True,
        "state": "planned",
        "origin": {"kind": "nodegroup" if node_group else "nodepool", "name": name},
    }


def _has_gpus(evidence: Evidence) -> bool:
    labels, status = evidence.labels, evidence.node.get("status") or {}
    return (
        any(is_gpu(name) and str(value) != "0" for name, value in (status.get("capacity") or {}).items())
        or bool(evidence.instance.get("gpu_count"))
        or evidence.devices is not None
        or "nvidia.com/gpu.product" in labels
        or labels.get("nvidia.com/gpu.present") == "true"
        or labels.get("karpenter.k8s.aws/instance-gpu-manufacturer") == "nvidia"
        or labels.get("eks.amazonaws.com/instance-gpu-manufacturer") == "nvidia"
        or any(labels.get(name) == "true" for writer, names in _WRITERS if writer == "nfd" for name in names)
    )


def _facts(evidence: Evidence, held: Mapping[str, int] | None) -> Facts:
    node, labels = evidence.node, evidence.labels
    figures, provenance = gather(evidence)
    status = node.get("status") or {}
    capacity, free = offered(status.get("capacity")), offered(status.get("allocatable"))
    driver = figures.get("driver")
    resource = SHARED_GPU if SHARED_GPU in {**capacity, **free} else GPU
    if evidence.devices and not capacity.get(resource):
        resource = evidence.devices.resource
        whole = [device for device in evidence.devices.items if device.kind == "gpu"]
        capacity[resource], free[resource] = len(whole), sum(device.usable for device in whole)
        held = None if held is None else {**held, resource: sum(device.allocated for device in whole)}
    replicas = figures.get("sharing.replicas", 1)
    # These count the boards themselves: a plugin that lost one has lowered capacity, too.
    boards = figures["gpu.count"] * replicas if provenance.get("gpu.count", {}).get("source") in ("label", "nvidia-smi") else 0
    expected = max(capacity.get(resource, 0), boards)
    registered = bool(capacity.get(resource) or any(name.startswith(MIG_PREFIX) for name in capacity))
    mixed = figures.get("mig.strategy") == "mixed"
    gpus = _amount(resource, free, held)
    provenance["gpus"] = provenance["cpu_m"] = {"source": "allocatable", "confidence": "measured"} if status.get("conditions") or capacity else {
        "source": "instance-table", "confidence": "inferred"}  # fmt: skip
    provenance["memory_mib"] = provenance["cpu_m"]
    return {
        "name": node["metadata"]["name"],
        "planned": False,
        "state": _state(node, registered),
        "instance_type": labels.get(INSTANCE_TYPE_LABEL),
        "zone": labels.get("topology.kubernetes.io/zone"),
        "kubernetes": evidence.kubernetes,
        "kernel": evidence.info.get("kernelVersion"),
        "ami_kind": figures.get("ami_kind", "unknown"),
        "ami_release": figures.get("ami_release"),
        "origin": _origin(labels),
        "gpu": {
            **{name: figures.get(f"gpu.{name}") for name in ("product", "name", "count", "memory_mib", "compute_capability", "family")},
            "mixed": figures.get("gpu.products", []),
        },
        "gpus": {
            "resource": resource,
            "capacity": capacity.get(resource, 0),
            "unhealthy": 0 if mixed or not registered else max(0, expected - gpus["allocatable"]),
            **gpus,
        },
        "cpu_m": _amount("cpu", free, held),
        "memory_mib": _amount("memory", free, held),
        "driver": {"version": driver.version, "branch": driver.branch, "max_cuda": driver.max_cuda} if driver else None,
        "sharing": {"strategy": figures.get("sharing.strategy", "none"), "replicas": replicas},
        "mig": {
            "strategy": figures.get("mig.strategy"),
            "profile": figures.get("mig.profile"),
            "devices": {name: _amount(name, free, held) for name in sorted(capacity) if name.startswith(MIG_PREFIX)},
        },
        "taints": [{"key": t["key"], "value": t.get("value", ""), "effect": t["effect"]} for t in (node.get("spec") or {}).get("taints") or ()],
        "labels_by": [writer for writer, names in _WRITERS if any(name in labels for name in names)],
        "provenance": provenance,
    }


def _amount(resource: str, offer: Mapping[str, int], held: Mapping[str, int] | None) -> dict[str, int | None]:
    whole = offer.get(resource, 0)
    if held is None:
        return {"allocatable": whole, "requested": None, "free": None}
    return {"allocatable": whole, "requested": held.get(resource, 0), "free": max(0, whole - held.get(resource, 0))}


def _state(node: Mapping[str, Any], registered: bool) -> str:
    labels, spec = node["metadata"].get("labels") or {}, node.get("spec") or {}
    ready = {c["type"]: c["status"] for c in (node.get("status") or {}).get("conditions") or ()}.get("Ready")
    if node["metadata"].get("deletionTimestamp"):
        return "deleting"
    if ready != "True":
        return "not_ready"
    if spec.get("unschedulable"):
        return "cordoned"
    if not registered:
        return "no_device_plugin"
    if NODE_POOL_LABEL in labels and labels.get("karpenter.sh/initialized") != "true":
        return "not_initialized"
    return "ready"


def _origin(labels: Mapping[str, str]) -> dict[str, str]:
    for kind, label in (("nodepool", NODE_POOL_LABEL), ("nodegroup", NODE_GROUP_LABEL)):
        if label in labels:
            return {"kind": kind, "name": labels[label]}
    return {"kind": "self-managed", "name": ""}
