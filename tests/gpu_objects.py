# SPDX-License-Identifier: GPL-3.0-or-later
"""Node, Pod and NodePool objects as EKS clusters show them, for the tests of the GPU checks and their benchmark."""

from __future__ import annotations

from typing import Any

AL2023 = "Amazon Linux 2023.9.20260714"
GPU = "nvidia.com/gpu"
TAINT = {"key": GPU, "value": "true", "effect": "NoSchedule"}
IMAGE = "docker.io/vllm/vllm-openai:v0.33.0"

# GPU Feature Discovery's labels by instance type: product, count, MiB, compute capability, family
_GFD = {
    "g5.xlarge": ("NVIDIA-A10G", 1, 23028, "8.6", "ampere"),
    "g5.12xlarge": ("NVIDIA-A10G", 4, 23028, "8.6", "ampere"),
    "g6.xlarge": ("NVIDIA-L4", 1, 23034, "8.9", "ada-lovelace"),
    "g7.2xlarge": ("NVIDIA-RTX-PRO-4500-Blackwell-Server-Edition", 1, 32623, "12.0", "blackwell"),
    "p3dn.24xlarge": ("Tesla-V100-SXM2-32GB", 8, 32768, "7.0", "volta"),
    "p4d.24xlarge": ("NVIDIA-A100-SXM4-40GB", 8, 40960, "8.0", "ampere"),
}
_SIZE = {"g5.xlarge": (4, 16), "g5.12xlarge": (48, 192), "g6.xlarge": (4, 16), "g7.2xlarge": (8, 32), "p3dn.24xlarge": (96, 768), "p4d.24xlarge": (96, 1152)}


def gfd(instance_type: str, driver: str = "580.159.03", cuda: str = "13.0", **changed: str) -> dict[str, str]:
    """GFD's labels; `changed` overrides by name with _ for the dots after nvidia.com/ ("gpu_product")."""
    product, count, memory, capability, family = _GFD[instance_type]
    labels = {
        "gpu.product": product, "gpu.count": str(count), "gpu.memory": str(memory), "gpu.family": family, "gpu.replicas": "1", "gpu.present": "true",
        "gpu.compute.major": capability.split(".")[0], "gpu.compute.minor": capability.split(".")[1], "gpu.sharing-strategy": "none",
        "cuda.driver-version.full": driver, "cuda.runtime-version.full": cuda, "mig.strategy": "single", "mig.capable": "false",
    }  # fmt: skip
    labels |= {name.replace("_", "."): value for name, value in changed.items()}
    return {f"nvidia.com/{name}": value for name, value in labels.items()}


def node(
    name: str = "node-1",
    instance_type: str = "g5.xlarge",
    labels: dict[str, str] | None = None,
    capacity: dict[str, Any] | None = None,
    allocatable: dict[str, Any] | None = None,
    os_image: str = AL2023,
    taints: list[dict[str, str]] | None = None,
    ready: str = "True",
    kubelet: str = "v1.36.2-eks-1-36-4",
    kernel: str = "6.18.20-24.90.amzn2023.x86_64",
) -> dict[str, Any]:
    """A Node. `capacity` holds GPU resources and defaults to the type's GPUs; `allocatable` what differs from it."""
    cpu, memory = _SIZE[instance_type]
    gpus = {GPU: str(_GFD[instance_type][1])} if capacity is None else capacity
    whole = {"cpu": str(cpu), "memory": f"{memory * 1024 * 1024 - 400000}Ki", "pods": "58", **gpus}
    usable = {**whole, "cpu": f"{cpu * 1000 - 80}m", "memory": f"{memory * 1024 * 1024 - 1300000}Ki", **(allocatable or {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"node.kubernetes.io/instance-type": instance_type, "topology.kubernetes.io/zone": "us-east-1a", **(labels or {})},
        },
        "spec": {"taints": [TAINT] if taints is None else taints},
        "status": {
            "capacity": whole,
            "allocatable": usable,
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady"}],
            "nodeInfo": {"osImage": os_image, "kubeletVersion": kubelet, "kernelVersion": kernel, "architecture": "amd64"},
        },
    }


def pod(
    name: str, node_name: str | None, requests: dict[str, Any], labels: dict[str, str] | None = None, namespace: str = "other", **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"containers": [{"name": "main", "image": "x", "resources": {"requests": requests}}], **({"nodeName": node_name} if node_name else {}), **spec},
        "status": {"phase": "Running" if node_name else "Pending"},
    }


def server(model: str, node_name: str, gpus: int = 1) -> dict[str, Any]:
    """A running replica of a model, with the labels of the role vllm."""
    labels = {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": model, "app.kubernetes.io/part-of": "llmops.eks"}
    return pod(f"{model}-0", node_name, {GPU: str(gpus), "cpu": "3", "memory": "10Gi"}, labels, "llm-serving")


def model(name: str = "m", gpus: int = 1, instance_types: tuple[str, ...] = ("g5.xlarge",), image: str = IMAGE, **changed: Any) -> dict[str, Any]:
    """A planned model, with the keys that the check reads."""
    return {
        "name": name, "state": "present", "image": image, "gpus": gpus, "instance_types": list(instance_types), "env": {},
        "resources": {"cpu": "3000m", "memory": "10Gi", "shm": "2Gi"}, "replicas": {"min": 1, "max": 1, "first": 1}, **changed,
    }  # fmt: skip


def node_pool(name: str = "gpu", types: tuple[str, ...] = ("g5.xlarge",), limit: str | None = "4", used: str = "0", **spec: Any) -> dict[str, Any]:
    template = {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
        "requirements": [{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": list(types)},
                         {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}],
        "taints": spec.pop("taints", [TAINT]),
    }  # fmt: skip
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"template": {"spec": template}, **({"limits": {GPU: limit}} if limit else {}), **spec},
        "status": {"resources": {GPU: used}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def node_class(alias: str = "al2023@v20260714") -> dict[str, Any]:
    return {"metadata": {"name": "gpu"}, "spec": {"amiSelectorTerms": [{"alias": alias}]}}
