# SPDX-License-Identifier: GPL-3.0-or-later
"""What Node Feature Discovery, GPU Feature Discovery and the operator write on a node. Pure: a node in, labels out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .kube import Object
from .vllm_args import DATA

GPU = "nvidia.com/gpu"
FACTS: dict[str, Any] = json.loads((DATA / "gpus.json").read_text())
PHYSICAL = "standins.llmops.eks/gpus"  # annotation: GPUs before time-slicing multiplied the capacity
NFD_LABELS = {
    "feature.node.kubernetes.io/kernel-version.full": "6.12.40-63.114.amzn2023.x86_64",
    "feature.node.kubernetes.io/system-os_release.ID": "amzn",
    "feature.node.kubernetes.io/system-os_release.VERSION_ID": "2023",
}
PCI_LABEL = "feature.node.kubernetes.io/pci-10de.present"
OPERANDS = ("container-toolkit", "dcgm-exporter", "device-plugin", "driver", "gpu-feature-discovery", "operator-validator", "node-status-exporter")


@dataclass(frozen=True)
class Board:
    """One kind of GPU: `product` as labelled, `memory` MiB of one GPU, `compute` capability, `family` name of the architecture."""

    product: str
    memory: int
    compute: str
    family: str


def labels_of(node: Object) -> dict[str, str]:
    """The node's labels."""
    return node["metadata"].get("labels") or {}


def gpu_count(node: Object) -> int:
    """Physical GPUs of a node: capacity before sharing, else Karpenter's label."""
    annotated = (node["metadata"].get("annotations") or {}).get(PHYSICAL)
    capacity = node.get("status", {}).get("capacity", {}).get(GPU, "0")
    return int(annotated or 0) or int(capacity) or int(labels_of(node).get("karpenter.k8s.aws/instance-gpu-count", "0"))


def is_gpu_node(node: Object) -> bool:
    """True for nodes with an NVIDIA GPU, as its PCI id would tell."""
    maker = labels_of(node).get("karpenter.k8s.aws/instance-gpu-manufacturer", "nvidia")
    return gpu_count(node) > 0 and maker == "nvidia"


def board_of(node: Object) -> Board:
    """The GPU of a node by Karpenter's label or its instance type; an unknown type counts as A10G."""
    labels = labels_of(node)
    instance_type = labels.get("node.kubernetes.io/instance-type", "")
    name = FACTS["families"].get(instance_type.split(".", 1)[0]) or labels.get("karpenter.k8s.aws/instance-gpu-name", "")
    return Board(**FACTS["gpus"].get(name, FACTS["gpus"]["a10g"]))


def is_preinstalled(node: Object, node_class_alias: str = "") -> bool:
    """True if the AMI brings the driver (AL2023, Bottlerocket), so that a driver container cannot work there. Unknown counts as AL2023."""
    text = f"{node.get('status', {}).get('nodeInfo', {}).get('osImage', '')} {node_class_alias}".lower()
    return "ubuntu" not in text and "custom" not in text


def tolerates(node: Object, tolerations: list[Object]) -> bool:
    """True if a DaemonSet with these tolerations is scheduled on the node (taints of the node life cycle are always tolerated)."""

    def accepted(taint: Object) -> bool:
        if taint["key"].startswith("node.kubernetes.io/") or taint["effect"] == "PreferNoSchedule":
            return True
        return any(
            t.get("effect") in (None, "", taint["effect"])
            and t.get("key", "") in ("", taint["key"])
            and (t.get("operator", "Equal") == "Exists" or t.get("value", "") == taint.get("value", ""))
            for t in tolerations
        )

    return all(accepted(taint) for taint in node["spec"].get("taints") or [])


def nfd(node: Object) -> dict[str, str]:
    """Labels of Node Feature Discovery."""
    return {**NFD_LABELS, **({PCI_LABEL: "true"} if is_gpu_node(node) else {})}


def operator(node: Object) -> dict[str, str]:
    """Labels of the operator's own controller on a GPU node; an operand that was opted out stays out."""
    present = labels_of(node)
    wanted = {f"nvidia.com/gpu.deploy.{operand}": "true" for operand in OPERANDS}
    return {"nvidia.com/gpu.present": "true", **{key: present.get(key, value) for key, value in wanted.items()}}


def gfd(node: Object, replicas: int = 1, strategy: str = "none") -> dict[str, str]:
    """Labels of GPU Feature Discovery v0.20.0. `replicas` and `strategy` tell of time-slicing or MPS."""
    board, driver = board_of(node), FACTS["driver"]
    major, minor, revision = driver["full"].split(".")
    cuda_major, cuda_minor = driver["cuda"].split(".")
    compute_major, compute_minor = board.compute.split(".")
    values = {
        "cuda.driver-version.full": driver["full"],
        "cuda.driver-version.major": major,
        "cuda.driver-version.minor": minor,
        "cuda.driver-version.revision": revision,
        "cuda.runtime-version.full": driver["cuda"],
        "cuda.runtime-version.major": cuda_major,
        "cuda.runtime-version.minor": cuda_minor,
        "cuda.driver.major": major,
        "cuda.driver.minor": minor,
        "cuda.driver.rev": revision,
        "cuda.runtime.major": cuda_major,
        "cuda.runtime.minor": cuda_minor,
        "gpu.product": board.product + ("-SHARED" if replicas > 1 else ""),
        "gpu.count": gpu_count(node),
        "gpu.replicas": replicas,
        "gpu.memory": board.memory,
        "gpu.family": board.family,
        "gpu.compute.major": compute_major,
        "gpu.compute.minor": compute_minor,
        "gpu.sharing-strategy": strategy,
        "gpu.machine": labels_of(node).get("node.kubernetes.io/instance-type", "unknown"),
        "gpu.mode": "compute",
        "mig.capable": str(board.family in ("hopper", "blackwell") or "A100" in board.product).lower(),
        "mig.strategy": "single",
        "mps.capable": "true",
        "vgpu.present": "false",
    }
    return {f"nvidia.com/{key}": str(value) for key, value in values.items()}
