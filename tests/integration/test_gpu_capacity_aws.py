# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong situations, each with the one row it must give: gpu_capacity_check against a real API server and the AWS double.

The nodes are fake, Node objects without a kubelet with the status they have on EKS; quotas, offers and reservations are the double's.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_runner import Runner
from ansible_collections.llmops.eks.plugins.module_utils import _kube
from gpu_objects import GPU, gfd, model, node, node_class, node_pool

from sandbox import build
from sandbox.aws.running import RunningAws, running_aws

ROOT = Path(__file__).resolve().parents[2]
G_ON_DEMAND, G_SPOT = "L-DB2E81BA", "L-3819A6DF"
USER = "gpu-check-partly"  # may list everything but NodePools
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")
BIG = model(gpus=8, instance_types=("p5.48xlarge",), resources={"cpu": "100", "memory": "800Gi"})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    with running_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(control_plane) -> Iterator[_kube.Cluster]:
    """Karpenter's kinds and a user with less than all rights."""
    folder = build.home() / "share" / "crds" / "karpenter"
    if not folder.exists():
        pytest.skip(f"no {folder}: run `python -m sandbox build`")
    client = _kube.connect({"kubeconfig": str(control_plane.kubeconfig)})
    if client.find("karpenter.sh/v1", "NodePool"):
        pytest.skip("this cluster has Karpenter, whose NodePools would change the answers")
    definitions = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")]
    for item in definitions:
        client.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=item)
    lists = [
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]},
        {"apiGroups": ["karpenter.k8s.aws"], "resources": ["ec2nodeclasses"], "verbs": ["list"]},
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list"]},
    ]
    subject = {"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": USER, "apiGroup": "rbac.authorization.k8s.io"}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    client.request("POST", f"{rbac}/clusterroles", body={"metadata": {"name": USER}, "rules": lists})
    client.request("POST", f"{rbac}/clusterrolebindings", body={"metadata": {"name": USER}, "roleRef": role, "subjects": [subject]})
    for path in ("/apis/karpenter.sh/v1/nodepools", "/apis/karpenter.k8s.aws/v1/ec2nodeclasses"):
        for _gone in _kube.poll(30):
            if client.get(path):
                break
    yield client
    for item in definitions:
        client.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{item['metadata']['name']}")
    for kind in ("clusterrolebindings", "clusterroles"):
        client.request("DELETE", f"{rbac}/{kind}/{USER}")


@pytest.fixture
def run(control_plane, cluster, aws, monkeypatch) -> Iterator[Runner]:
    """The check with the double's credentials in the environment; whatever was set in the double is forgotten afterwards."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    for name, value in aws.env.items():
        monkeypatch.setenv(name, value)
    yield Runner(control_plane.kubeconfig, control_plane.audit_log)
    aws.control.reset(resources=True)


@contextlib.contextmanager
def there(cluster: _kube.Cluster, nodes: list[dict], pools: list[dict]) -> Iterator[None]:
    """Objects for as long as the block lasts."""
    made = []
    try:
        for item in nodes:
            cluster.request("POST", "/api/v1/nodes", body=item)
            made.append(f"/api/v1/nodes/{item['metadata']['name']}")
            # A kubelet would write the status; a patch does not collide with the taints that controllers set meanwhile.
            cluster.request("PATCH", f"{made[-1]}/status", body={"status": item["status"]}, content_type="application/merge-patch+json")
        for item in pools:
            body = {key: value for key, value in item.items() if key != "status"}
            cluster.request("POST", "/apis/karpenter.sh/v1/nodepools", body=body)
            made.append(f"/apis/karpenter.sh/v1/nodepools/{item['metadata']['name']}")
        yield
    finally:
        for path in reversed(made):
            cluster.request("DELETE", path)


def pool(*types: str, markets: tuple[str, ...] = ("on-demand",), **spec: Any) -> dict[str, Any]:
    made = node_pool("gpu", types or ("g5.xlarge",), **spec)
    made["spec"]["template"]["spec"]["requirements"][1]["values"] = list(markets)
    made["spec"]["disruption"] = {"consolidateAfter": "5m"}
    return made


def klass(**spec: Any) -> dict[str, Any]:
    made = {"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass", **copy.deepcopy(node_class())}
    made["spec"] |= {"subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "demo"}}], **spec}
    return made


def ours(item: dict[str, Any], **changes: Any) -> dict[str, Any]:
    item["metadata"]["name"] = "gpu-check-1"
    item["metadata"]["labels"] |= changes
    return item


def block(state: str, start: int, end: int) -> Callable[[RunningAws], None]:
    """A capacity block of p5.48xlarge that starts and ends so many days from now, as EC2 shows it: a reservation with the block's dates."""
    now = dt.datetime.now(dt.UTC)
    dates = {"StartDate": (now + dt.timedelta(days=start)).isoformat(), "EndDate": (now + dt.timedelta(days=end)).isoformat()}
    reservation = {
        "CapacityReservationId": "cr-0123456789abcdef0", "InstanceType": "p5.48xlarge", "AvailabilityZone": "us-east-1a", "State": state,
        "TotalInstanceCount": 1, "AvailableInstanceCount": 0, "InstanceMatchCriteria": "targeted", **dates,
    }  # fmt: skip
    bought = {
        "CapacityBlockId": "cb-1",
        "AvailabilityZone": "us-east-1a",
        "State": state,
        "CapacityReservationIds": [reservation["CapacityReservationId"]],
        **dates,
    }
    return lambda aws: aws.control.capacity(reservations=[reservation], blocks=[bought])


def partly_used(aws: RunningAws) -> None:
    aws.control.quota(G_ON_DEMAND, 98)
    ec2 = aws.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, MinCount=2, MaxCount=2, InstanceType="g5.12xlarge")


def withdrawn(aws: RunningAws) -> None:
    for zone in "abc":
        aws.control.offering("g5.xlarge", f"us-east-1{zone}")


def full(aws: RunningAws) -> None:
    for zone in "abc":
        aws.control.subnet_ips(f"us-east-1{zone}", 5)


PLANNED = (pool(), klass())
RESERVED = (pool("p5.48xlarge", markets=("reserved",), limit="8"), klass(capacityReservationSelectorTerms=[{"id": "cr-0123456789abcdef0"}]))
MIG = {"gpu_product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "gpu_count": "56"}
SLICED = {"gpu_replicas": "4", "gpu_sharing-strategy": "time-slicing"}


@dataclass(frozen=True)
class Situation:
    """What is there, and what the one row says: `row` is (check, severity, subject, words of found, needed, fix), None when there is none."""

    row: tuple | None
    models: tuple[dict, ...] = (model(),)
    nodes: tuple[dict, ...] = ()
    pools: tuple[dict, ...] = ()
    planned: tuple[dict, ...] = ()
    aws: Callable[[RunningAws], Any] = lambda _aws: None
    options: dict[str, Any] = field(default_factory=dict)
    unset: tuple[str, ...] = ()


# Beside a node with trouble the planned pool gives the model room, so that the trouble is the only row.
SITUATIONS = {
    "all well on an empty cluster": Situation(None, planned=PLANNED),
    "quota 0": Situation(
        ("quota", "error", "model m", ["0 vCPUs", G_ON_DEMAND], ["4 more (4 in all) for 1 g5.xlarge"], ["--desired-value 4"]),
        planned=PLANNED, aws=lambda aws: aws.control.quota(G_ON_DEMAND, 0),
    ),
    "quota partly used": Situation(
        ("quota", "error", "model m", ["98 vCPUs", "96 in use"], ["4 more (100 in all)"], ["--desired-value 100"]), planned=PLANNED, aws=partly_used,
    ),
    "raise pending": Situation(
        ("quota", "error", "model m", ["0 vCPUs", "default"], ["4 more"], ["wait for AWS to grant the request for 64"]),
        planned=PLANNED, aws=lambda aws: aws.control.quota(G_ON_DEMAND, None, pending=64),
    ),
    "type not offered in the zones": Situation(
        ("offering", "error", "model m", ["offered in us-east-1d", "may use us-east-1a, us-east-1b, us-east-1c"], ["g5.xlarge"], ["subnet in us-east-1d"]),
        planned=PLANNED, aws=withdrawn,
    ),
    "subnets full": Situation(
        ("subnet_addresses", "error", "model m", ["us-east-1a 5"], ["16 (the VPC CNI"], ["larger subnet"]), planned=PLANNED, aws=full,
    ),
    "no tagged subnet": Situation(
        ("subnets", "error", "subnets of account 123456789012, us-east-1", ["none"], ["team=nobody"], ["tag"]),
        planned=(pool(), klass(subnetSelectorTerms=[{"tags": {"team": "nobody"}}])),
    ),
    "another account's cluster": Situation(
        ("eks_cluster", "error", "cluster elsewhere", ["123456789012, us-east-1"], ["existing"], ["profile"]),
        planned=PLANNED, options={"cluster_name": "elsewhere"},
    ),
    "spot score low": Situation(
        ("spot_score", "warning", "model m", ["score 2 of 10", "g5.xlarge"], ["more than 3"], ["on-demand"]),
        planned=(pool(markets=("spot",)), klass()), aws=lambda aws: aws.control.spot_score(2),
    ),
    "spot quota 0": Situation(
        ("quota", "error", "model m", ["0 vCPUs", G_SPOT], ["4 more"], [G_SPOT]),
        planned=(pool(markets=("spot",)), klass()), aws=lambda aws: aws.control.quota(G_SPOT, 0),
    ),
    "capacity block in the future": Situation(
        ("capacity_block", "error", "model m", ["capacity block cr-0", "starts at"], ["1 p5.48xlarge"], ["run again"]),
        models=(BIG,), planned=RESERVED, aws=block("scheduled", 2, 9),
    ),
    "capacity block over": Situation(
        ("capacity_block", "error", "model m", ["ended at"], ["1 p5.48xlarge"], ["buy a new block"]),
        models=(BIG,), planned=RESERVED, aws=block("expired", -9, -2),
    ),
    "IAM permission missing": Situation(
        ("aws_permission", "warning", "IAM action servicequotas:GetServiceQuota", ["not authorized"], ["servicequotas:GetServiceQuota"], ["vCPU quotas"]),
        planned=PLANNED, aws=lambda aws: aws.control.deny("servicequotas:GetServiceQuota"),
    ),
    "EC2 permission missing": Situation(
        ("aws_permission", "warning", "IAM action ec2:DescribeSubnets", ["not authorized"], ["ec2:DescribeSubnets"], ["free addresses"]),
        planned=PLANNED, aws=lambda aws: aws.control.deny("ec2:DescribeSubnets"),
    ),
    "no credentials": Situation(
        ("aws_login", "info", "AWS", ["no credentials"], ["credentials and a region"], ["AWS_PROFILE"]), planned=PLANNED, unset=CREDENTIALS,
    ),
    "RBAC missing": Situation(
        ("permission", "warning", "RBAC list nodepools", ["forbidden", USER], ["verb list on resource nodepools"], ["ClusterRole"]),
        planned=PLANNED, options={"impersonate_user": USER},
    ),
    "NodePool at its limit": Situation(
        ("capacity", "error", "model m", ["NodePool gpu is at its limit", "nvidia.com/gpu 0"], ["1 more of 1"], ["raise spec.limits"]),
        pools=(pool(limit="0"),),
    ),
    "NodePool requires other types": Situation(
        ("capacity", "error", "model m", ["NodePool gpu allows none of g5.xlarge"], ["1 more of 1"], ["allow g5.xlarge"]), pools=(pool("g6.xlarge"),),
    ),
    "NodePool's taint is not tolerated": Situation(
        ("capacity", "error", "model m", ["taint team:NoSchedule"], ["1 more of 1"], ["remove the taint"]),
        pools=(pool(taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}]),),
    ),
    "node's taint is not tolerated": Situation(
        ("capacity", "error", "model m", ["taint team:NoSchedule"], ["1 more of 1"], ["add GPU nodes"]),
        nodes=(node(labels=gfd("g5.xlarge"), taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}]),),
    ),
    "pod larger than the node beside its daemonsets": Situation(
        ("capacity", "error", "model m", ["g5.xlarge leaves 1 GPU(s), 3620m CPU"], ["4000m CPU"], ["lower resources"]),
        models=(model(resources={"cpu": "4", "memory": "16Gi"}),), planned=PLANNED,
    ),
    "driver 570 with a CUDA 13 image": Situation(
        ("driver_cuda_major", "error", "node gpu-check-1", ["570.195.03"], ["580", "CUDA 13.0"], ["AMI"]),
        nodes=(node(labels=gfd("g5.xlarge", driver="570.195.03", cuda="12.8")),), planned=PLANNED,
    ),
    "AL2 release in a node group": Situation(
        ("driver_cuda_major", "error", "node base/g5.xlarge", ["570.172.08"], ["580"], ["AL2023"]), planned=PLANNED,
        options={"node_groups": [{"name": "base", "instance_types": ["g5.xlarge"], "ami_type": "AL2_x86_64_GPU", "desired_size": 1}]},
    ),
    "V100": Situation(
        ("compute_capability", "error", "node gpu-check-1", ["7.0", "v100"], ["7.5"], ["g4dn"]),
        models=(model(instance_types=("g5.xlarge", "p3dn.24xlarge")),), nodes=(node(instance_type="p3dn.24xlarge", labels=gfd("p3dn.24xlarge")),),
        planned=PLANNED,
    ),
    "unhealthy GPU": Situation(
        ("gpu_unhealthy", "warning", "node gpu-check-1", ["3 of 4"], ["healthy"], ["XID"]), models=(model(instance_types=("g5.12xlarge",)),),
        nodes=(node(instance_type="g5.12xlarge", labels=gfd("g5.12xlarge"), allocatable={GPU: "3"}),),
        planned=(pool("g5.12xlarge"), klass()),
    ),
    "no device plugin": Situation(
        ("gpu_not_registered", "warning", "node gpu-check-1", ["1 GPU"], ["device plugin"], ["tolerations"]),
        nodes=(node(labels=gfd("g5.xlarge"), capacity={}),), planned=PLANNED,
    ),
    "MIG": Situation(
        ("gpu_not_whole", "warning", "node gpu-check-1", ["MIG", "1g.5gb"], ["whole GPUs"], ["sharing"]),
        models=(model(instance_types=("g5.xlarge", "p4d.24xlarge")),),
        nodes=(node(instance_type="p4d.24xlarge", capacity={GPU: "56"}, labels=gfd("p4d.24xlarge", **MIG)),), planned=PLANNED,
    ),
    "time-slicing": Situation(
        ("gpu_not_whole", "warning", "node gpu-check-1", ["time-slicing", "4 pods a GPU"], ["whole GPUs"], ["not counted"]),
        nodes=(node(labels=gfd("g5.xlarge", **SLICED), capacity={GPU: "4"}),), planned=PLANNED,
    ),
    "known-bad AMI": Situation(
        ("ami_release", "error", "node gpu-check-1", ["6.12.110", "#2845"], ["v20261003"], ["newer"]),
        nodes=(node(labels=gfd("g5.xlarge"), kubelet="v1.35.2-eks-1", kernel="6.12.110-120.190.amzn2023.x86_64"),), planned=PLANNED,
    ),
    "image without a version": Situation(
        ("image_cuda", "warning", "model m", ["latest"], ["image_cuda"], ["pin"]),
        models=(model(image="docker.io/vllm/vllm-openai:latest"),), planned=PLANNED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_gives_its_one_row_and_writes_nothing(name, run, cluster, aws, monkeypatch):
    situation = SITUATIONS[name]
    situation.aws(aws)
    for variable in situation.unset:
        monkeypatch.delenv(variable, raising=False)
    written = aws.control.writes()
    options = {"cluster_name": "demo", **situation.options}
    with there(cluster, [ours(copy.deepcopy(item)) for item in situation.nodes], [copy.deepcopy(item) for item in situation.pools]):
        result = run("gpu_capacity_check", models=list(situation.models), node_pools=list(situation.planned), **options)
        assert not run.audit_log or run.requests() == []
    assert not result.get("failed"), result.get("msg")
    assert result["changed"] is False
    assert aws.control.writes() == written
    if situation.row is None:
        assert result["problems"] == []
        return
    check, severity, subject, *words = situation.row
    assert [(row["check"], row["severity"], row["subject"]) for row in result["problems"]] == [(check, severity, subject)]
    for key, parts in zip(("found", "needed", "fix"), words, strict=True):
        for part in parts:
            assert part in result["problems"][0][key], (key, result["problems"][0])


def test_check_mode_and_a_second_call_give_the_same(run, aws):
    aws.control.quota(G_ON_DEMAND, 0)
    arguments = {"models": [model()], "node_pools": list(PLANNED), "cluster_name": "demo"}
    first, second, dry = run("gpu_capacity_check", **arguments), run("gpu_capacity_check", **arguments), run("gpu_capacity_check", check=True, **arguments)
    assert first["problems"] == second["problems"] == dry["problems"]
    assert [quota["granted"] for quota in first["quotas"]] == [0]


def test_the_run_stops_when_asked_to(run, aws):
    aws.control.quota(G_ON_DEMAND, 0)
    result = run("gpu_capacity_check", models=[model()], node_pools=list(PLANNED), cluster_name="demo", fail_on_errors=True)
    assert result["failed"] is True
    assert "1 problem(s) with GPU nodes; nothing was written.\n  - model m: found 0 vCPUs" in result["msg"]


def test_node_groups_are_read_from_eks(run, aws, cluster):
    """The release of the group tells the driver of its node, which no label does; a group that starts nodes asks for quota."""
    eks = aws.client("eks")
    known = eks.describe_cluster(name="demo")["cluster"]
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = aws.client("iam").create_role(RoleName="nodes", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    subnets = known["resourcesVpcConfig"]["subnetIds"]
    eks.create_nodegroup(
        clusterName="demo", nodegroupName="base", subnets=subnets, nodeRole=role, instanceTypes=["g5.xlarge"], amiType="AL2023_x86_64_NVIDIA",
        scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 1},
    )  # fmt: skip
    with there(cluster, [ours(node(), **{"eks.amazonaws.com/nodegroup": "base"})], []):
        result = run("gpu_capacity_check", models=[model()], cluster_name="demo")
    assert result["problems"] == []
    assert [(row["node"], row["driver"], row["source"]) for row in result["drivers"]] == [("gpu-check-1", "580.159.03", "ami-table")]
    aws.control.quota(G_ON_DEMAND, 0)
    result = run("gpu_capacity_check", models=[], cluster_name="demo")
    assert result["problems"] == []  # nothing was planned for, so no type was asked about


def test_a_type_that_the_collection_does_not_know_is_described_by_ec2(run, cluster, monkeypatch):
    from ansible_collections.llmops.eks.plugins.module_utils import _gpu_nodes_types

    known = {name: row for name, row in _gpu_nodes_types.table().items() if name != "g6.xlarge"}
    monkeypatch.setattr(_gpu_nodes_types, "table", lambda: known)
    with there(cluster, [ours(node(instance_type="g6.xlarge", capacity={}))], []):
        result = run("gpu_node_info")
    (facts,) = [row for row in result["nodes"] if row["name"] == "gpu-check-1"]
    assert (facts["gpu"]["name"], facts["gpu"]["count"], facts["gpu"]["memory_mib"]) == ("l4", 1, 22888)
    assert facts["provenance"]["gpu.count"] == {"source": "ec2", "confidence": "inferred"}
    assert result["unread"] == []


def alone(monkeypatch, tmp_path: Path) -> Runner:
    """No kubeconfig anywhere."""
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "K8S_AUTH_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Runner(None, None)


def test_with_aws_credentials_only(run, aws, monkeypatch, tmp_path):
    without = alone(monkeypatch, tmp_path)
    result = without("gpu_capacity_check", models=[model()], cluster_name="demo")
    assert [(row["check"], row["severity"]) for row in result["problems"]] == [("kubernetes", "info")]
    aws.control.quota(G_ON_DEMAND, 0)
    result = without("gpu_capacity_check", models=[model()], cluster_name="demo")
    assert [(row["check"], row["severity"]) for row in result["problems"]] == [("kubernetes", "info"), ("quota", "error")]


def test_with_neither_the_plan_alone_is_checked(run, monkeypatch, tmp_path):
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    without = alone(monkeypatch, tmp_path)
    result = without("gpu_capacity_check", models=[model()])
    assert [(row["check"], row["severity"]) for row in result["problems"]] == [("kubernetes", "info"), ("aws_login", "info")]
    result = without("gpu_capacity_check", models=[model(resources={"cpu": "4", "memory": "16Gi"})])
    assert [row["check"] for row in result["problems"] if row["severity"] == "error"] == ["capacity"]


def test_a_kubeconfig_that_was_chosen_must_work(run, tmp_path):
    result = run("gpu_capacity_check", models=[model()], kubeconfig=None, host="https://127.0.0.1:9", api_key="x")
    assert result["failed"] is True
    assert "found no answer" in result["msg"]


def test_a_profile_that_does_not_exist_is_a_failure(run):
    result = run("gpu_capacity_check", models=[model()], profile="nobody", access_key="", secret_key="")
    assert result["failed"] is True
    assert "profile" in result["msg"]


@pytest.mark.parametrize("playbook", [("site.yml", "--tags", "check"), ("site.yml",), ("playbooks/check.yml",)])
def test_the_playbooks_stop_before_the_first_write(playbook, run, aws, control_plane, tmp_path):
    """An empty cluster is no error, the missing quota is one: the pools that the run would make are known to the check."""
    aws.control.quota(G_ON_DEMAND, 0)
    written = aws.control.writes()
    mark = control_plane.audit_log.stat().st_size if control_plane.audit_log else 0
    models = [{"name": "m", "source": "s3://llm-weights/llama-3.1-8b/", "weights": {"size_gib": 15}, "gpu_names": ["a10g"]}]
    variables = {"llm_models": models, "llm_cluster_name": "demo", "llm_region": aws.region, "llm_kubeconfig": str(control_plane.kubeconfig)}
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", *playbook, "-e", json.dumps(variables)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-2000:]
    assert "1 problem(s) with GPU nodes; nothing was written." in done.stdout, done.stdout[-3000:]
    assert "model m: found 0 vCPUs granted" in done.stdout
    assert aws.control.writes() == written
    if run.audit_log:
        run.mark = mark
        assert run.writes() == []
