# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the figures of a GPU node come from, best source first.

A source is a function of (evidence, known) that returns the figures it can tell, by name; `known` holds what better sources have told.
The first source that tells a figure decides it. A further source is one more line in SOURCES.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _drivers
from ._gpu_nodes_dra import Devices
from ._gpu_nodes_resources import GPU, MIG_PREFIX, SHARED_GPU, offered
from ._gpu_nodes_smi import Boards

MEASURED, INFERRED = "measured", "inferred"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """One node and what is known around it.

    `node`: the Node object. `instance`: the row of its type. `node_group`: the node group with the name in the node's label. `node_class`: its
    EC2NodeClass. All three may be empty. `boards`: what nvidia-smi said there. `devices`: what NVIDIA's DRA driver publishes for it.
    """

    node: Mapping[str, Any]
    instance: Mapping[str, Any]
    node_group: Mapping[str, Any]
    node_class: Mapping[str, Any]
    boards: Boards | None = None
    devices: Devices | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        return self.node["metadata"].get("labels") or {}

    @property
    def info(self) -> Mapping[str, str]:
        return (self.node.get("status") or {}).get("nodeInfo") or {}

    @property
    def kubernetes(self) -> str | None:
        """Minor version such as "1.36"."""
        match = re.match(r"v?(\d+\.\d+)", self.info.get("kubeletVersion") or self.node_group.get("version") or "")
        return match[1] if match else None


def _integer(labels: Mapping[str, str], name: str) -> int | None:
    return int(labels[name]) if labels.get(name, "").isdigit() else None


def _present(figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if value not in (None, "")}


def gfd(evidence: Evidence, known: Figures) -> Figures:
    """Labels of GPU Feature Discovery (nvidia.com/...), measured on the node."""
    labels = {name.removeprefix("nvidia.com/"): value for name, value in evidence.labels.items() if name.startswith("nvidia.com/")}
    product = labels.get("gpu.product")
    if product is None:
        return {}
    version = labels.get("cuda.driver-version.full") or ".".join(
        part for part in (labels.get(f"cuda.driver.{name}") for name in ("major", "minor", "rev")) if part
    )
    max_cuda = labels.get("cuda.runtime-version.full") or ".".join(part for part in (labels.get(f"cuda.runtime.{name}") for name in ("major", "minor")) if part)
    capability = [labels.get("gpu.compute.major"), labels.get("gpu.compute.minor")]
    profile = re.search(r"-MIG-([\w.]+)$", product)
    family = labels.get("gpu.family")
    return _present({
        "gpu.product": product,
        "gpu.name": _drivers.gpu_name(product),
        "gpu.count": _integer(labels, "gpu.count"),
        "gpu.memory_mib": _integer(labels, "gpu.memory"),
        "gpu.compute_capability": ".".join(capability) if all(capability) else None,
        "gpu.family": None if family == "undefined" else family,
        "driver": _drivers.driver(version, max_cuda or None) if re.fullmatch(r"\d+(\.\d+)*", version) else None,
        "sharing.strategy": labels.get("gpu.sharing-strategy"),
        # 0 is written where sharing is off: one device a GPU
        "sharing.replicas": max(1, _integer(labels, "gpu.replicas") or 1),
        "mig.strategy": labels.get("mig.strategy"),
        "mig.profile": profile[1] if profile else None,
    })  # fmt: skip


def nvidia_smi(evidence: Evidence, known: Figures) -> Figures:
    """nvidia-smi in a pod of the node, if it was asked for."""
    if evidence.boards is None:
        return {}
    rows = evidence.boards.rows
    return _boards(
        [product for _driver, product, _memory, _capability in rows],
        [memory for _driver, _product, memory, _capability in rows],
        [capability for _driver, _product, _memory, capability in rows],
        rows[0][0],
        # A server's pod sees its own boards only.
        len(rows) if evidence.boards.all_boards else None,
    )


def resource_slices(evidence: Evidence, known: Figures) -> Figures:
    """ResourceSlices of NVIDIA's DRA driver."""
    if evidence.devices is None:
        return {}
    items = evidence.devices.items
    whole = [item for item in items if item.kind == "gpu"]
    figures = _boards(
        [item.product for item in items], [item.memory_mib for item in items], [item.compute_capability for item in items],
        next((item.driver for item in items if item.driver), None), len(whole) or None,
    )  # fmt: skip
    return _present({
        **figures,
        "gpu.family": next((item.family for item in items if item.family), None),
        "mig.strategy": "mixed" if any(item.kind == "mig" for item in items) else None,
    })  # fmt: skip


def _boards(
    products: list[str], memories: list[int | None], capabilities: list[str | None], driver: _drivers.Driver | None, count: int | None
) -> Figures:  # fmt: skip
    """Figures of boards listed one by one: of different boards in one node the weakest counts."""
    kinds = sorted({product for product in products if product})
    return _present({
        "gpu.product": kinds[0] if kinds else None,
        "gpu.products": kinds if len(kinds) > 1 else None,
        "gpu.name": _drivers.gpu_name(kinds[0]) if len(kinds) == 1 else None,
        "gpu.count": count,
        "gpu.memory_mib": min((memory for memory in memories if memory), default=None),
        "gpu.compute_capability": min((text for text in capabilities if text), key=_drivers.numbers, default=None),
        "driver": driver,
    })  # fmt: skip


def allocatable(evidence: Evidence, known: Figures) -> Figures:
    """What the device plugin has registered with the kubelet."""
    capacity = offered((evidence.node.get("status") or {}).get("capacity"))
    count = capacity.get(GPU, 0) + capacity.get(SHARED_GPU, 0)
    figures = {}
    if count:
        figures["gpu.count"] = count // known.get("sharing.replicas", 1)
    if SHARED_GPU in capacity:
        figures["sharing.strategy"] = "time-slicing"
    if any(name.startswith(MIG_PREFIX) for name in capacity):
        figures["mig.strategy"] = "mixed"
    return figures


def karpenter(evidence: Evidence, known: Figures) -> Figures:
    """Labels that Karpenter, or EKS Auto Mode, writes from EC2's description of the instance type."""
    labels = evidence.labels
    for prefix in ("karpenter.k8s.aws/instance-gpu-", "eks.amazonaws.com/instance-gpu-"):
        if f"{prefix}name" in labels and labels.get(f"{prefix}manufacturer", "nvidia") == "nvidia":
            return _present({
                "gpu.name": labels[f"{prefix}name"],
                "gpu.count": _integer(labels, f"{prefix}count"),
                "gpu.memory_mib": _integer(labels, f"{prefix}memory"),
            })  # fmt: skip
    return {}


def instance_table(evidence: Evidence, known: Figures) -> Figures:
    return {} if evidence.instance.get("source") == "ec2" else _type(evidence.instance)


def ec2(evidence: Evidence, known: Figures) -> Figures:
    """EC2's description of a type that the table does not know."""
    return _type(evidence.instance) if evidence.instance.get("source") == "ec2" else {}


def _type(row: Mapping[str, Any]) -> Figures:
    if not row.get("gpu_count"):
        return {}
    return {"gpu.name": row["karpenter_gpu_name_label"], "gpu.count": row["gpu_count"], "gpu.memory_mib": row["gpu_memory_mib"]}


def gpu_table(evidence: Evidence, known: Figures) -> Figures:
    facts = _drivers.gpu_facts(known.get("gpu.name"))
    return {"gpu.compute_capability": facts["compute_capability"], "gpu.family": facts["family"]} if facts else {}


def os_image(evidence: Evidence, known: Figures) -> Figures:
    """What the kubelet says about the operating system."""
    text = evidence.info.get("osImage", "")
    if evidence.labels.get("eks.amazonaws.com/compute-type") == "auto":
        return {"ami_kind": "auto"}
    for start, kind in (("Bottlerocket", "bottlerocket"), ("Amazon Linux 2023", "al2023"), ("Amazon Linux 2", "al2"), ("Ubuntu", "ubuntu")):
        if text.startswith(start):
            version = re.match(r"Bottlerocket OS (\d+\.\d+\.\d+)", text)
            return {"ami_kind": kind, **({"ami_release": version[1]} if version else {})}
    return {"ami_kind": "unknown"} if text else {}


def node_group(evidence: Evidence, known: Figures) -> Figures:
    """The option node_groups, in the words of EKS' DescribeNodegroup."""
    ami_type = evidence.node_group.get("ami_type") or ""
    kind = "bottlerocket" if ami_type.startswith("BOTTLEROCKET") else _drivers.AMI_KINDS.get(ami_type)
    release = evidence.node_group.get("release_version") or ""
    return _present({"ami_kind": kind, "ami_release": _drivers.release_date(release) or release.partition("-")[0]})


def node_class(evidence: Evidence, known: Figures) -> Figures:
    """A pinned alias (al2023@v20260714, bottlerocket@v1.66.0) of the EC2NodeClass. A node may be older than the alias: it drifts first."""
    for term in (evidence.node_class.get("spec") or {}).get("amiSelectorTerms") or ():
        family, _at, release = (term.get("alias") or "").partition("@")
        if family in ("al2", "al2023", "bottlerocket"):
            version = None if release == "latest" else release.removeprefix("v") if family == "bottlerocket" else _drivers.release_date(release)
            return _present({"ami_kind": family, "ami_release": version})
    return {}


def ami_table(evidence: Evidence, known: Figures) -> Figures:
    """The driver that the AMI carries, by kind and release."""
    kind, release, gpu_name = known.get("ami_kind"), known.get("ami_release"), known.get("gpu.name")
    found = None
    if kind == "al2":
        found = _drivers.of_al2(evidence.kubernetes, release)
    elif kind == "al2023":
        arm = "arm64" in (evidence.info.get("architecture"), *evidence.instance.get("arch", ()))
        found = _drivers.of_al2023(f"AL2023_{'ARM_64' if arm else 'x86_64'}_NVIDIA", evidence.kubernetes, release, gpu_name)
    elif kind == "bottlerocket" and re.fullmatch(r"\d+\.\d+\.\d+", release or ""):
        found = _drivers.of_bottlerocket(release, evidence.kubernetes, gpu_name)
    return _present({"driver": found})


SOURCES: tuple[tuple[str, str, Callable[[Evidence, Figures], Figures]], ...] = (
    ("label", MEASURED, gfd),
    ("nvidia-smi", MEASURED, nvidia_smi),
    ("resource-slice", MEASURED, resource_slices),
    ("allocatable", MEASURED, allocatable),
    ("karpenter-label", INFERRED, karpenter),
    ("instance-table", INFERRED, instance_table),
    ("ec2", INFERRED, ec2),
    ("gpu-table", INFERRED, gpu_table),
    ("osimage", MEASURED, os_image),
    ("node-group", INFERRED, node_group),
    ("node-class", INFERRED, node_class),
    ("ami-table", INFERRED, ami_table),
)


def gather(evidence: Evidence) -> tuple[Figures, dict[str, dict[str, str]]]:
    """(figures, provenance): every figure some source knows, and {figure: {source, confidence}}."""
    known: Figures = {}
    provenance: dict[str, dict[str, str]] = {}
    for name, confidence, source in SOURCES:
        for figure, value in source(evidence, known).items():
            if figure not in known:
                known[figure] = value
                provenance[figure] = {"source": name, "confidence": confidence}
    return known, provenance
