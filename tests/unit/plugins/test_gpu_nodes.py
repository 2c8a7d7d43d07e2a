# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of GPU nodes from Node and Pod objects."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _gpu_nodes, _gpu_nodes_resources
from gpu_objects import GPU, gfd, node, node_class, pod


def one(item, pods=(), **known):
    (facts,) = _gpu_nodes.describe([item], pods, **known)
    return facts


def test_gfd_labels_are_measured_and_win():
    facts = one(node(labels=gfd("g5.xlarge")), [pod("p", "node-1", {GPU: "1", "cpu": "1", "memory": "2Gi"})])
    assert facts["gpu"] == {
        "product": "NVIDIA-A10G", "name": "a10g", "count": 1, "memory_mib": 23028, "compute_capability": "8.6", "family": "ampere", "mixed": [],
    }  # fmt: skip
    assert facts["driver"] == {"version": "580.159.03", "branch": 580, "max_cuda": "13.0"}
    assert facts["provenance"]["driver"] == {"source": "label", "confidence": "measured"}
    assert facts["gpus"] == {"resource": GPU, "capacity": 1, "allocatable": 1, "requested": 1, "free": 0, "unhealthy": 0}
    assert facts["cpu_m"] == {"allocatable": 3920, "requested": 1000, "free": 2920}
    assert facts["memory_mib"]["requested"] == 2048
    assert (facts["ami_kind"], facts["kubernetes"], facts["state"], facts["labels_by"]) == ("al2023", "1.36", "ready", ["gfd", "operator"])


def test_karpenter_node_without_gfd_takes_karpenters_labels_then_tables():
    prefix = "karpenter.k8s.aws/instance-gpu-"
    labels = {
        f"{prefix}name": "l4", f"{prefix}count": "1", f"{prefix}memory": "22888", f"{prefix}manufacturer": "nvidia",
        "karpenter.sh/nodepool": "gpu", "karpenter.sh/initialized": "true", "karpenter.k8s.aws/ec2nodeclass": "gpu",
    }  # fmt: skip
    facts = one(node(instance_type="g6.xlarge", labels=labels), node_classes=[node_class("al2023@v20260610")])
    assert facts["gpu"]["name"] == "l4"
    assert facts["gpu"]["compute_capability"] == "8.9"
    assert facts["driver"]["version"] == "580.159.03"
    assert facts["origin"] == {"kind": "nodepool", "name": "gpu"}
    told = {name: row["source"] for name, row in facts["provenance"].items()}
    assert told | {"gpu.name": "karpenter-label", "gpu.memory_mib": "karpenter-label", "gpu.family": "gpu-table", "driver": "ami-table"} == told
    assert facts["provenance"]["driver"]["confidence"] == "inferred"
    assert facts["provenance"]["gpu.count"] == {"source": "allocatable", "confidence": "measured"}


def test_instance_table_alone_when_nothing_else_tells():
    facts = one(node(capacity={}))
    assert facts["gpu"]["count"] == 1
    assert facts["provenance"]["gpu.count"]["source"] == "instance-table"
    assert facts["state"] == "no_device_plugin"
    assert facts["gpus"]["unhealthy"] == 0
    assert facts["driver"] is None


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (node(os_image="Bottlerocket OS 1.66.0 (aws-k8s-1.36-nvidia)"), ("bottlerocket", "580.178.04", 580)),
        (node(os_image="Bottlerocket OS 1.54.0 (aws-k8s-1.35-nvidia)"), ("bottlerocket", None, 580)),
        (node(os_image="Bottlerocket OS 1.50.0 (aws-k8s-1.33-nvidia)"), ("bottlerocket", "570.195.03", 570)),
        (node(os_image="Bottlerocket OS 1.50.0 (aws-k8s-1.34-nvidia)", kubelet="v1.34.1-eks"), ("bottlerocket", "580.95.05", 580)),
        (node(instance_type="g7.2xlarge", os_image="Bottlerocket OS 1.66.0 (aws-k8s-1.37-nvidia)", kubelet="v1.37.0"), ("bottlerocket", "595.91.07", 595)),
        (node(os_image="Amazon Linux 2", kubelet="v1.32.9-eks"), ("al2", "570.172.08", 570)),
        (node(labels={"eks.amazonaws.com/compute-type": "auto"}, os_image="Bottlerocket (EKS Auto, Standard) 2026.11.1"), ("auto", None, None)),
        (node(os_image="Ubuntu 24.04.3 LTS"), ("ubuntu", None, None)),
        (node(os_image="Flatcar"), ("unknown", None, None)),
    ],
)
def test_ami_kind_and_driver_from_the_os_image(item, expected):
    facts = one(item)
    driver = facts["driver"] or {"version": None, "branch": None}
    assert (facts["ami_kind"], driver["version"], driver["branch"]) == expected


@pytest.mark.parametrize(
    ("release", "kubernetes", "instance_type", "expected"),
    [
        ("1.36.2-20260714", "v1.36.2", "g5.xlarge", ("580.159.03", 580)),
        ("1.33.4-20251002", "v1.33.4", "g5.xlarge", ("570.195.03", 570)),
        ("1.36.2-20260801", "v1.36.2", "g5.xlarge", (None, 580)),  # read up to 20260714: the branch is known, the number is not
        ("1.36.3-20261103", "v1.36.3", "g5.xlarge", (None, 580)),
        ("1.36.3-20261103", "v1.36.3", "g7.2xlarge", (None, 595)),
    ],
)
def test_driver_from_the_node_groups_release(release, kubernetes, instance_type, expected):
    group = {"name": "base", "ami_type": "AL2023_x86_64_NVIDIA", "release_version": release, "instance_types": [instance_type]}
    facts = one(node(instance_type=instance_type, kubelet=kubernetes, labels={"eks.amazonaws.com/nodegroup": "base"}), node_groups=[group])
    assert (facts["driver"]["version"], facts["driver"]["branch"]) == expected
    assert facts["provenance"]["driver"] == {"source": "ami-table", "confidence": "inferred"}


def test_time_slicing_counts_boards_and_slices():
    labels = gfd("g5.12xlarge", **{"gpu_product": "NVIDIA-A10G-SHARED", "gpu_replicas": "4", "gpu_sharing-strategy": "time-slicing"})
    facts = one(node(instance_type="g5.12xlarge", labels=labels, capacity={GPU: "16"}))
    assert (facts["gpu"]["name"], facts["gpu"]["count"], facts["gpus"]["capacity"], facts["gpus"]["unhealthy"]) == ("a10g", 4, 16, 0)
    assert facts["sharing"] == {"strategy": "time-slicing", "replicas": 4}


def test_shared_resource_renamed_by_the_plugin():
    facts = one(node(instance_type="g5.12xlarge", capacity={"nvidia.com/gpu.shared": "8"}), [pod("p", "node-1", {"nvidia.com/gpu.shared": "2"})])
    assert (facts["gpus"]["resource"], facts["gpus"]["free"]) == ("nvidia.com/gpu.shared", 6)


def test_replicas_zero_means_one():
    assert one(node(labels=gfd("g5.xlarge", gpu_replicas="0")))["sharing"]["replicas"] == 1


def test_mig_single_and_mixed():
    single = gfd("p4d.24xlarge", gpu_product="NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", gpu_count="56", gpu_memory="4864")
    facts = one(node(instance_type="p4d.24xlarge", labels=single, capacity={GPU: "56"}))
    assert (facts["mig"]["profile"], facts["gpu"]["name"], facts["gpus"]["free"]) == ("1g.5gb", "a100", 56)
    mixed = one(node(instance_type="p4d.24xlarge", capacity={"nvidia.com/mig-1g.5gb": "14"}), [pod("p", "node-1", {"nvidia.com/mig-1g.5gb": 3})])
    assert mixed["mig"]["strategy"] == "mixed"
    assert mixed["mig"]["devices"] == {"nvidia.com/mig-1g.5gb": {"allocatable": 14, "requested": 3, "free": 11}}
    assert (mixed["state"], mixed["gpus"]["free"]) == ("ready", 0)


@pytest.mark.parametrize(
    ("capacity", "allocatable"),
    [({GPU: "4"}, {GPU: "3"}), ({GPU: "3"}, {GPU: "3"})],  # the plugin marks it unhealthy, or has lost it altogether
)
def test_unhealthy_gpu_is_allocatable_against_the_larger_of_capacity_and_board_count(capacity, allocatable):
    facts = one(node(instance_type="g5.12xlarge", labels=gfd("g5.12xlarge"), capacity=capacity, allocatable=allocatable))
    assert facts["gpus"]["unhealthy"] == 1


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda n: n["metadata"].update(deletionTimestamp="2026-11-23T10:00:00Z"), "deleting"),
        (lambda n: n["status"].update(conditions=[{"type": "Ready", "status": "Unknown"}]), "not_ready"),
        (lambda n: n["spec"].update(unschedulable=True), "cordoned"),
        (lambda n: n["metadata"]["labels"].update({"karpenter.sh/nodepool": "gpu"}), "not_initialized"),
    ],
)
def test_states(change, state):
    item = node()
    change(item)
    assert one(item)["state"] == state


def test_cpu_nodes_are_left_out_and_a_fleet_may_be_mixed():
    cpu = node("cpu", capacity={})
    cpu["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "m7i.large"
    names = [n["name"] for n in _gpu_nodes.describe([cpu, node("b", "g6.xlarge"), node("a", "p4d.24xlarge")], [])]
    assert names == ["a", "b"]


def test_unreadable_pods_leave_free_open():
    (facts,) = _gpu_nodes.describe([node()], None)
    assert facts["gpus"]["free"] is None
    assert facts["gpus"]["allocatable"] == 1


def test_node_group_without_nodes_gives_a_planned_node():
    group = {"name": "base", "instance_types": ["g5.12xlarge", "m5.large"], "ami_type": "BOTTLEROCKET_x86_64_NVIDIA", "release_version": "1.61.0-abc"}
    (facts,) = _gpu_nodes.describe([], [], [group])
    assert (facts["name"], facts["planned"], facts["state"]) == ("base/g5.12xlarge", True, "planned")
    assert (facts["gpus"]["free"], facts["driver"]["version"], facts["cpu_m"]["free"]) == (4, "580.159.03", 47810)
    assert facts["provenance"]["gpus"]["confidence"] == "inferred"


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2), (3, 3), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000), ("100k", 100000), ("128974848", 128974848), ("7E", 7 * 10**18)]
)
def test_quantity(text, value):
    assert float(_gpu_nodes_resources.quantity(text)) == value


@pytest.mark.parametrize("text", ["", "12 GB", "1Kib", "mi", "1i", None, "mm"])
def test_no_quantity(text):
    with pytest.raises(ValueError, match="no Kubernetes quantity"):
        _gpu_nodes_resources.quantity(text)


def test_requests_are_the_schedulers():
    item = pod("p", "n", {"cpu": "1", "memory": "1Gi"}, overhead={"cpu": "100m"})
    item["spec"]["initContainers"] = [
        {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "init", "resources": {"requests": {"cpu": "3", "memory": "512Mi"}, "limits": {GPU: "1"}}},
    ]
    assert _gpu_nodes_resources.requests(item) == {"cpu": 3600, "memory": 1024, GPU: 1}


def test_ended_pods_hold_nothing():
    item = pod("p", "n", {GPU: "1"})
    item["status"]["phase"] = "Succeeded"
    assert _gpu_nodes_resources.reserved([item, pod("q", None, {GPU: "1"})]) == {}
