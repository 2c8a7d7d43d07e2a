# SPDX-License-Identifier: GPL-3.0-or-later
"""Situations of a cluster, each with the one row it must give."""

from __future__ import annotations

import importlib

import pytest
import yaml
from ansible_collections.llmops.eks.plugins.module_utils import _aws, _capacity, _capacity_models, _kube
from ansible_collections.llmops.eks.plugins.module_utils._capacity_context import Objects, Request, Unread, build
from gpu_objects import GPU, gfd, model, node, node_class, node_pool, pod, server

FORBIDDEN = 'nodepools.karpenter.sh is forbidden: User "ci" cannot list resource "nodepools"'


def context(nodes=(), models=(), pods=(), pools=(), classes=(), unread=(), **options):
    refused = {item.resource for item in unread}
    objects = Objects(
        None if "nodes" in refused else list(nodes),
        None if "pods" in refused else list(pods),
        None if pools is None or "nodepools" in refused else list(pools),
        list(classes),
        tuple(unread),
    )
    return build(Request(list(models), "2026-11", **options), objects)


def rows(**situation):
    return _capacity.run(context(**situation))


def labelled(name="node-1", instance_type="g5.xlarge", **label):
    return node(name, instance_type, labels=gfd(instance_type, **label))


GROUP = {"name": "base", "instance_types": ["g5.xlarge"], "ami_type": "AL2023_x86_64_NVIDIA", "release_version": "1.36.2-20260714", "desired_size": 1}

# name: (situation, (check, severity, subject, words of found / needed / fix) or None when all is well)
SITUATIONS = {
    "one free A10G": ({"nodes": [labelled()], "models": [model()]}, None),
    "driver 570 below CUDA 13": (
        {"nodes": [labelled(driver="570.195.03", cuda="12.8"), labelled("node-2", "g6.xlarge")], "models": [model(instance_types=("g5.xlarge", "g6.xlarge"))]},
        ("driver_cuda_major", "error", "node node-1", ["570.195.03", "12.8"], ["580", "CUDA 13.0"], ["AMI", "VLLM_ENABLE_CUDA_COMPATIBILITY"]),
    ),
    "AL2 has 570 only": (
        {"nodes": [labelled("node-2"), node(os_image="Amazon Linux 2", kubelet="v1.32.9-eks-1")], "models": [model()]},
        ("driver_cuda_major", "error", "node node-1", ["570.172.08"], ["580"], ["AL2023"]),
    ),
    "V100 with vLLM 0.33": (
        {"nodes": [labelled(), labelled("volta", "p3dn.24xlarge")], "models": [model(instance_types=("g5.xlarge", "p3dn.24xlarge"))]},
        ("compute_capability", "error", "node volta", ["7.0", "v100"], ["7.5"], ["g4dn"]),
    ),
    "driver older than the toolkit's": (
        {"nodes": [labelled(driver="580.40", cuda="13.0")], "models": [model()]},
        ("driver_cuda_minor", "warning", "node node-1", ["580.40"], ["580.65.06"], ["PTX"]),
    ),
    "branch at its end": (
        {"nodes": [labelled(driver="590.48.01", cuda="13.1")], "models": [model()]},
        ("driver_end_of_life", "warning", "node node-1", ["R590"], ["maintained"], ["580"]),
    ),
    "forward compatibility chosen": (
        {"nodes": [labelled(driver="570.195.03", cuda="12.8")], "models": [model(env={"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"})]},
        ("forward_compatibility", "warning", "node node-1", ["570.195.03"], ["580"], ["replace the AMI"]),
    ),
    "g7 with the 580 driver": (
        {"nodes": [labelled(), labelled("seven", "g7.2xlarge")], "models": [model(instance_types=("g5.xlarge", "g7.2xlarge"))]},
        ("driver_branch", "error", "node seven", ["580.159.03"], ["595", "rtx-pro-4500"], ["AMI"]),
    ),
    "driver not told": (
        {"nodes": [node()], "models": [model()]},
        ("driver_unknown", "warning", "node node-1", ["no driver"], ["v0.33.0"], ["release_version"]),
    ),
    "release with a panicking kernel": (
        {"nodes": [node(labels=gfd("g5.xlarge"), kubelet="v1.35.2-eks-1", kernel="6.12.110-120.190.amzn2023.x86_64")], "models": [model()]},
        ("ami_release", "error", "node node-1", ["6.12.110", "#2845"], ["v20261003"], ["newer"]),
    ),
    "image tag tells nothing": (
        {"nodes": [labelled()], "models": [model(image="docker.io/vllm/vllm-openai:latest")]},
        ("image_cuda", "warning", "model m", ["latest"], ["image_cuda"], ["pin"]),
    ),
    "image below the security floor": (
        {"nodes": [labelled()], "models": [model(image="docker.io/vllm/vllm-openai:v0.30.0")]},
        ("image_floor", "error", "model m", ["v0.30.0"], ["0.31.0"], ["v0.33.0"]),
    ),
    "image of one's own, with its own number": (
        {"nodes": [labelled()], "models": [model(image="registry.example.com/acme/llm-server:0.3.0")]},
        ("image_cuda", "warning", "model m", ["llm-server:0.3.0"], ["image_cuda"], ["set image_cuda"]),
    ),
    "image_cuda of an unknown major": (
        {"nodes": [labelled()], "models": [model()], "image_cuda": "14.0"},
        ("image_cuda", "warning", "model m", ["14.0"], ["13"], ["correct image_cuda"]),
    ),
    "one GPU of four unhealthy": (
        {"nodes": [node(instance_type="g5.12xlarge", labels=gfd("g5.12xlarge"), allocatable={GPU: "3"})], "models": [model(instance_types=("g5.12xlarge",))]},
        ("gpu_unhealthy", "warning", "node node-1", ["3 of 4"], ["healthy"], ["XID"]),
    ),
    "device plugin does not run": (
        {"nodes": [labelled(), node("bare", "g6.xlarge", capacity={})], "models": [model()]},
        ("gpu_not_registered", "warning", "node bare", ["1 GPU", "instance-table"], ["device plugin"], ["tolerations"]),
    ),
    "node is not Ready": (
        {"nodes": [labelled(), node("gone", labels=gfd("g5.xlarge"), ready="Unknown")], "models": [model()]},
        ("node_not_ready", "warning", "node gone", ["Ready"], ["Ready"], ["describe node"]),
    ),
    "time-sliced node is no capacity": (
        {"nodes": [labelled(), node("slices", labels=gfd("g5.xlarge", gpu_replicas="4", **{"gpu_sharing-strategy": "time-slicing"}), capacity={GPU: "4"})],
         "models": [model()]},
        ("gpu_not_whole", "warning", "node slices", ["time-slicing", "4 pods"], ["whole GPUs for model m"], ["not counted"]),
    ),
    "MIG slices are no capacity": (
        {"nodes": [labelled(), node("mig", "p4d.24xlarge", capacity={GPU: "56"}, labels=gfd(
            "p4d.24xlarge", gpu_product="NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", gpu_count="56"))],
         "models": [model(instance_types=("g5.xlarge", "p4d.24xlarge"))]},
        ("gpu_not_whole", "warning", "node mig", ["MIG", "1g.5gb"], ["whole GPUs"], ["sharing"]),
    ),
    "no room and no pool": (
        {"nodes": [labelled()], "pods": [pod("p", "node-1", {GPU: "1"})], "models": [model()]},
        ("capacity", "error", "model m", ["0 free GPU", "no NodePool"], ["1 more of 1", "1 GPU(s)", "3000m", "10240 MiB"], ["g5.xlarge", "karpenter_gpu"]),
    ),
    "empty cluster with a pool": ({"models": [model()], "pools": [node_pool()], "classes": [node_class()]}, None),
    "pool without a limit": ({"models": [model(replicas={"min": 9, "max": 9})], "pools": [node_pool(limit=None)]}, None),
    "pool at its limit": (
        {"models": [model()], "pools": [node_pool(limit="4", used="4")]},
        ("capacity", "error", "model m", ["gpu is at its limit", "nvidia.com/gpu 4 with 4 used"], ["1 more"], ["spec.limits", "nvidia.com/gpu by 1"]),
    ),
    "pool for the first, not for the largest number": (
        {"models": [model(replicas={"min": 1, "max": 6, "first": 1})], "pools": [node_pool(limit="4")]},
        ("capacity", "warning", "model m", ["limit"], ["2 more of 6 replica(s) (replicas.max)"], ["raise"]),
    ),
    "pool of other types": (
        {"models": [model()], "pools": [node_pool(types=("g6.xlarge",))]},
        ("capacity", "error", "model m", ["allows none of g5.xlarge"], ["1 GPU"], ["allow g5.xlarge"]),
    ),
    "pool with a taint of its own": (
        {"models": [model()], "pools": [node_pool(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])]},
        ("capacity", "error", "model m", ["taint team:NoSchedule"], ["1 GPU"], ["remove the taint"]),
    ),
    "static pool": (
        {"models": [model()], "pools": [node_pool(replicas=2)]},
        ("capacity", "error", "model m", ["static with 2 nodes"], ["1 GPU"], ["NodePool gpu"]),
    ),
    "pool not ready": (
        {"models": [model()], "pools": [{**node_pool(), "status": {"conditions": [{"type": "Ready", "status": "False", "message": "NodeClass missing"}]}}]},
        ("capacity", "error", "model m", ["not Ready: NodeClass missing"], ["1 GPU"], ["correct NodePool gpu"]),
    ),
    "replica larger than the node": (
        {"models": [model(resources={"cpu": "4", "memory": "10Gi"})], "pools": [node_pool()]},
        ("capacity", "error", "model m", ["leaves 1 GPU(s), 3620m CPU"], ["4000m CPU"], ["lower resources"]),
    ),
    "GPUs free but on different nodes": (
        {"nodes": [labelled(), labelled("node-2")], "models": [model(gpus=2)]},
        ("capacity", "error", "model m", ["2 free GPU(s) left on 2 usable", "at most 1 GPU(s)"], ["2 GPU(s)", "on one node"], ["add GPU nodes"]),
    ),
    "taint keeps pods away": (
        {"nodes": [node(labels=gfd("g5.xlarge"), taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])], "models": [model()]},
        ("capacity", "error", "model m", ["taint team:NoSchedule"], ["1 GPU"], ["add GPU nodes"]),
    ),
    "two models, one GPU": (
        {"nodes": [labelled()], "models": [model("a"), model("b")]},
        ("capacity", "error", "model b", ["0 free GPU"], ["1 more of 1"], ["add GPU nodes"]),
    ),
    "the running replica keeps its place": ({"nodes": [labelled()], "pods": [server("m", "node-1")], "models": [model()]}, None),
    "absent models need nothing": ({"models": [model(state="absent")]}, None),
    "scaled to zero still needs one": (
        {"models": [model(replicas={"min": 0, "max": 1, "first": 0})]},
        ("capacity", "error", "model m", ["no NodePool"], ["1 more of 1"], ["add GPU nodes"]),
    ),
    "node group to come": ({"models": [model()], "node_groups": [GROUP]}, None),
    "node group to come with the dead AMI": (
        {"nodes": [labelled()], "models": [model()], "node_groups": [{**GROUP, "ami_type": "AL2_x86_64_GPU", "release_version": None}]},
        ("driver_cuda_major", "error", "node base/g5.xlarge", ["570.172.08"], ["580"], ["AL2023"]),
    ),
    "Karpenter's AMI is too old": (
        {"nodes": [node(labels=gfd("g5.xlarge"))], "models": [model()], "pools": [node_pool()], "classes": [node_class("bottlerocket@v1.46.0")]},
        ("driver_cuda_major", "error", "node gpu/g5.xlarge", ["570.172.08"], ["580"], ["Bottlerocket"]),
    ),
    "NodePool kind missing": (
        {"nodes": [labelled()], "models": [model()], "pools": None},
        ("karpenter_missing", "info", "cluster", ["NodePool"], ["Karpenter"], ["role"]),
    ),
    "NodePools may not be listed": (
        {"nodes": [labelled()], "models": [model()], "unread": [Unread("nodepools", "karpenter.sh", FORBIDDEN)]},
        ("permission", "warning", "RBAC list nodepools", ["forbidden"], ["verb list on resource nodepools", '"karpenter.sh"'], ["ClusterRole"]),
    ),
    "pods may not be listed": (
        {"nodes": [labelled()], "models": [model(gpus=8)], "unread": [Unread("pods", "", "forbidden")]},
        ("permission", "warning", "RBAC list pods", ["forbidden"], ["pods"], ["free GPUs is not checked"]),
    ),
    "nodes may not be listed": (
        {"models": [model()], "unread": [Unread("nodes", "", "forbidden")]},
        ("permission", "warning", "RBAC list nodes", ["forbidden"], ["nodes"], ["drivers and capacity"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_gives_its_one_row(name):
    situation, expected = SITUATIONS[name]
    found = rows(**situation)
    if expected is None:
        assert found == []
        return
    check, severity, subject, *words = expected
    assert [(row["check"], row["severity"], row["subject"]) for row in found] == [(check, severity, subject)]
    for field, parts in zip(("found", "needed", "fix"), words, strict=True):
        for part in parts:
            assert part in found[0][field], field


def test_nodes_with_the_same_cause_share_a_row():
    nodes = [labelled(f"n{i}", driver="570.195.03", cuda="12.8") for i in range(5)]
    found = rows(nodes=nodes, models=[model()], pools=[node_pool()])
    assert [row["subject"] for row in found if row["check"] == "driver_cuda_major"] == ["nodes n0, n1, n2 and 2 more"]


def test_models_share_what_a_new_node_brings():
    """g5.12xlarge has four GPUs: four replicas need one node, the fifth a second one."""
    many = [model(f"m{i}", instance_types=("g5.12xlarge",), resources={"cpu": "4", "memory": "20Gi"}) for i in range(5)]
    pool = node_pool(types=("g5.12xlarge",), limit="4")
    assert rows(models=many[:4], pools=[pool]) == []
    (row,) = rows(models=many, pools=[pool])
    assert (row["check"], row["subject"]) == ("capacity", "model m4")


def test_largest_replica_is_placed_first():
    """The small model must not take one of the four GPUs that the large one needs together."""
    nodes = [labelled("four", "g5.12xlarge"), labelled("one")]
    assert rows(nodes=nodes, models=[model("small", instance_types=("g5.xlarge", "g5.12xlarge")), model("large", 4, ("g5.12xlarge",))]) == []


def test_node_that_joins_counts_as_room_because_its_pool_counts_it_as_used():
    labels = {**gfd("g5.xlarge"), "karpenter.sh/nodepool": "gpu"}
    (row,) = rows(nodes=[node(labels=labels, capacity={})], models=[model()], pools=[node_pool(limit="1", used="1")], classes=[node_class()])
    assert row["check"] == "gpu_not_registered"
    assert rows(nodes=[node(labels=labels)], models=[model()], pools=[node_pool(limit="1", used="1")], classes=[node_class()]) == []


@pytest.mark.parametrize("name", ["gpu_node_info", "gpu_capacity_check"])
def test_documentation_has_the_options_that_the_action_takes(name):
    package = "ansible_collections.llmops.eks.plugins"
    arguments = importlib.import_module(f"{package}.action.{name}").ARGUMENTS
    shared = yaml.safe_load(importlib.import_module(f"{package}.doc_fragments.gpu_nodes").ModuleDocFragment.DOCUMENTATION)["options"]
    options = {**shared, **yaml.safe_load(importlib.import_module(f"{package}.modules.{name}").DOCUMENTATION)["options"]}
    own = {key: value for key, value in arguments.items() if key in options or key not in {**_kube.AUTH_ARG_SPEC, **_aws.AUTH_ARG_SPEC}}
    assert {key: (value.get("type"), value.get("default"), value.get("required", False)) for key, value in own.items()} == {
        key: (value["type"], value.get("default"), value.get("required", False)) for key, value in options.items()
    }
    assert {key: (value["type"], value.get("default"), value.get("choices")) for key, value in own["node_groups"]["options"].items()} == {
        key: (value["type"], value.get("default"), value.get("choices")) for key, value in options["node_groups"]["suboptions"].items()
    }


def test_drivers_lists_every_node_with_provenance():
    found = _capacity.drivers(context(nodes=[labelled()], models=[model()], pools=[node_pool()], classes=[node_class()]))
    assert [(row["node"], row["planned"], row["driver"], row["verdict"], row["source"], row["confidence"]) for row in found] == [
        ("node-1", False, "580.159.03", "ok", "label", "measured"),
        ("gpu/g5.xlarge", True, "580.159.03", "ok", "ami-table", "inferred"),
    ]


@pytest.mark.parametrize("info", [{}, {"kubeletVersion": "", "osImage": ""}])
def test_node_that_has_just_been_registered_says_nothing_yet(info):
    bare = {"metadata": {"name": "new"}, "spec": {}, "status": {"nodeInfo": info}}
    made = context([bare, node()], [model()], pools=[node_pool()], classes=[node_class()])
    assert [row["check"] for row in _capacity.run(made) if row["severity"] == "error"] == []
    assert {prospect["kubernetes"] for prospect in made.prospects} == {"1.36"}


def test_pool_reports_what_is_left():
    (pool,) = _capacity.node_pools(context(pools=[node_pool(limit="4", used="1")]))
    assert pool["left"] == {GPU: 3}
    assert pool["instance_types"] == ["g5.xlarge"]


@pytest.mark.parametrize(
    ("requirement", "allowed"),
    [
        ({"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "In", "values": ["a10g"]}, True),
        ({"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "NotIn", "values": ["a10g"]}, False),
        ({"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["g"]}, True),
        ({"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["4"]}, True),
        ({"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["5"]}, False),
        ({"key": "karpenter.k8s.aws/instance-gpu-memory", "operator": "Gte", "values": ["22888"]}, True),
        ({"key": "eks.amazonaws.com/instance-family", "operator": "In", "values": ["g5"]}, True),
        ({"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "Lt", "values": ["2"]}, True),
        ({"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}, False),
        ({"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "DoesNotExist"}, False),
        ({"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1a"]}, True),
    ],
)
def test_requirements(requirement, allowed):
    pool = node_pool()
    pool["spec"]["template"]["spec"]["requirements"] = [requirement]
    assert (rows(models=[model()], pools=[pool]) == []) == allowed


def test_cpu_limit_of_a_pool_counts():
    pool = node_pool()
    pool["spec"]["limits"] = {"cpu": "6", "memory": "64Gi"}
    (row,) = rows(models=[model(replicas={"min": 2, "max": 2})], pools=[pool])
    assert "cpu 6000 with 0 used" in row["found"]
    assert "cpu by 2000" in row["fix"]


def test_models_that_are_not_planned_are_refused_all_at_once():
    bad = {"name": "m", "image": "i", "gpus": 0, "resources": {"cpu": "3 cores"}, "replicas": {"min": "x"}}
    assert [row["needed"].split(":")[0] for row in _capacity_models.check_models([bad, {"gpus": 1}])] == [
        "gpus",
        "resources.cpu",
        "replicas.min",
        "name",
        "image",
    ]
    assert _capacity_models.check_models([model(), {"name": "a", "state": "absent"}]) == []
