# SPDX-License-Identifier: GPL-3.0-or-later
"""Karpenter's real AWS provider accepts the AWS double: its EC2NodeClass becomes Ready, and a pending GPU pod makes it choose an instance type.

No kubelet is played here, so nodes stay NotReady; the whole chain runs in the sandbox (`python -m sandbox up`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import yaml
from kubernetes import client, config, dynamic

from sandbox import build, ports, processes
from sandbox.aws.running import RunningAws, running_aws

CRDS = sorted((build.home() / "share" / "crds" / "karpenter").glob("*.yaml"))
TAGGED = [{"tags": {"karpenter.sh/discovery": "demo"}}]
NODE_CLASS = {
    "apiVersion": "karpenter.k8s.aws/v1",
    "kind": "EC2NodeClass",
    "metadata": {"name": "gpu"},
    "spec": {
        "role": "KarpenterNodeRole-demo",
        "amiSelectorTerms": [{"alias": "al2023@v20260714"}],
        "subnetSelectorTerms": TAGGED,
        "securityGroupSelectorTerms": TAGGED,
    },
}
NODE_POOL = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodePool",
    "metadata": {"name": "gpu"},
    "spec": {
        "template": {
            "spec": {
                "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"},
                "requirements": [
                    {"key": "karpenter.k8s.aws/instance-gpu-name", "operator": "In", "values": ["l4", "a10g"]},
                    # Of one size, so that they share a launch template: the stand-in for EC2 looks at a fleet request's first alone.
                    {"key": "karpenter.k8s.aws/instance-size", "operator": "In", "values": ["xlarge"]},
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                ],
            }
        }
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "vllm", "namespace": "default"},
    "spec": {"containers": [{"name": "vllm", "image": "vllm", "resources": {"requests": {"cpu": "3", "memory": "12Gi"}, "limits": {"nvidia.com/gpu": "1"}}}]},
}
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    with running_aws(tmp_path_factory.mktemp("aws")) as double:
        yield double


@pytest.fixture(scope="module")
def api(control_plane, aws: RunningAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dynamic.DynamicClient]:
    """The cluster with Karpenter working in it."""
    binary = build.home() / "bin" / "karpenter"
    if not binary.exists() or os.environ.get("LLMOPS_TEST_KUBECONFIG"):
        pytest.skip(f"needs {binary} (`python -m sandbox build`) and a cluster of our own")
    kube = config.new_client_from_config(str(control_plane.kubeconfig))
    crd_api = client.ApiextensionsV1Api(kube)
    for path in CRDS:
        for body in yaml.safe_load_all(path.read_text()):
            crd_api.create_custom_resource_definition(body)
    chosen = ports.choose({"metrics": 0, "health": 0})
    env = {
        **aws.env,
        "KUBECONFIG": str(control_plane.kubeconfig),
        "CLUSTER_NAME": aws.cluster,
        "CLUSTER_ENDPOINT": "https://127.0.0.1:1",
        "SYSTEM_NAMESPACE": "kube-system",
        "KARPENTER_SERVICE": "karpenter",
        "DISABLE_LEADER_ELECTION": "true",
        "METRICS_PORT": str(chosen["metrics"]),
        "HEALTH_PROBE_PORT": str(chosen["health"]),
    }
    aws.client("iam").create_role(RoleName="KarpenterNodeRole-demo", AssumeRolePolicyDocument=TRUST)
    process = processes.spawn("karpenter", [str(binary)], tmp_path_factory.mktemp("karpenter") / "karpenter.log", env)
    try:
        wait(
            "the CRDs",
            lambda: all(
                any(c.type == "Established" and c.status == "True" for c in d.status.conditions or []) for d in crd_api.list_custom_resource_definition().items
            ),
            process,
            30,
        )
        yield dynamic.DynamicClient(kube), process
    finally:
        processes.stop([process])


def wait(what: str, check, process: processes.Process, timeout: float = 60) -> None:
    processes.wait_until(what, check, [process], timeout, interval=0.3)


@pytest.fixture(scope="module")
def node_classes(api):
    """The kind EC2NodeClass, with NODE_CLASS of it in the cluster."""
    kinds = api[0].resources.get(api_version="karpenter.k8s.aws/v1", kind="EC2NodeClass")
    kinds.create(body=NODE_CLASS)
    return kinds


def test_the_node_class_becomes_ready_against_the_double(api, node_classes):
    _cluster, process = api
    seen: dict[str, str] = {}

    def ready() -> bool:
        conditions = (node_classes.get(name="gpu").to_dict().get("status") or {}).get("conditions", [])
        seen.update({c["type"]: c["status"] for c in conditions})
        return seen.get("Ready") == "True"

    wait("EC2NodeClass Ready", ready, process, 90)
    for name in ("AMIsReady", "SubnetsReady", "SecurityGroupsReady", "InstanceProfileReady", "ValidationSucceeded"):
        assert seen[name] == "True", seen
    status = node_classes.get(name="gpu").to_dict()["status"]
    assert {s["zone"] for s in status["subnets"]} == {"us-east-1a", "us-east-1b", "us-east-1c"}
    assert {a["name"] for a in status["amis"]} == {
        f"amazon-eks-node-al2023-{arch}-1.36-v20260714" for arch in ("x86_64-standard", "x86_64-nvidia", "x86_64-neuron", "arm64-standard", "arm64-nvidia")
    }


@pytest.mark.usefixtures("node_classes")
def test_a_gpu_pod_makes_karpenter_launch_the_cheapest_type(api):
    """g6.xlarge at 0.8048 USD an hour beats g5.xlarge at 1.006: so the double's prices and offerings are what Karpenter computes with."""
    cluster, process = api
    cluster.resources.get(api_version="karpenter.sh/v1", kind="NodePool").create(body=NODE_POOL)
    cluster.resources.get(api_version="v1", kind="Pod").create(body=POD, namespace="default")
    claims = cluster.resources.get(api_version="karpenter.sh/v1", kind="NodeClaim")

    def launched() -> bool:
        return any((c.to_dict().get("metadata", {}).get("labels") or {}).get("node.kubernetes.io/instance-type") for c in claims.get().items)

    wait("a launched NodeClaim", launched, process, 120)
    (claim,) = [c.to_dict() for c in claims.get().items]
    assert claim["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "g6.xlarge"
    assert claim["metadata"]["labels"]["karpenter.sh/capacity-type"] == "on-demand"
