# SPDX-License-Identifier: GPL-3.0-or-later
"""The eks_* actions as Ansible tasks against the AWS double: check, create, unchanged, one change, absent, absent; and every way to fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from action_runner import Runner

from sandbox.aws.running import RunningAws, running_aws

TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
TAINT = {"key": "nvidia.com/gpu", "value": True, "effect": "NoSchedule"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    with running_aws(tmp_path_factory.mktemp("aws"), settle_seconds=0) as double:
        double.client("iam").create_role(RoleName="nodes", AssumeRolePolicyDocument=json.dumps(TRUST))
        ec2 = double.client("ec2")
        for name, data in (("gpu", {"InstanceType": "g6.2xlarge"}), ("other", {})):
            ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        yield double


@pytest.fixture
def run(aws: RunningAws, monkeypatch) -> Callable[..., list[dict[str, Any]]]:
    """run(step ...): results of the steps made by task(), each with `operations`: the writes that the double saw of it, refused ones with their status."""
    for name, value in aws.env.items():
        monkeypatch.setenv(name, value)
    runner = Runner(None, None)

    def one(action: str, check: bool, arguments: dict[str, Any]) -> dict[str, Any]:
        before = len(aws.control.calls(1000))
        result = runner(action, check, **arguments)
        calls = aws.control.calls(1000)[before:]
        return {**result, "operations": [call["operation"] if call["status"] < 400 else f"{call['operation']} {call['status']}" for call in calls]}

    def steps(*wanted: tuple) -> list[dict[str, Any]]:
        return [one(*step[1:]) if step[0] == "task" else aws.control.ask(*step[1:]) for step in wanted]

    return lambda *wanted: [result for step, result in zip(wanted, steps(*wanted), strict=True) if step[0] == "task"]


def task(action: str, check: bool = False, **arguments: Any) -> tuple:
    return "task", action, check, arguments


def control(command: str, **body: Any) -> tuple:
    """Between tasks: steer the double."""
    return "control", command, body


@pytest.fixture
def group(aws: RunningAws, request: pytest.FixtureRequest):
    """task() of a complete node group with its own name for each test; None removes an option."""
    subnets = [s["SubnetId"] for s in aws.client("ec2").describe_subnets()["Subnets"]]
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    full = {
        "cluster_name": aws.cluster,
        "name": name,
        "node_role": aws.client("iam").get_role(RoleName="nodes")["Role"]["Arn"],
        "subnets": subnets,
        "ami_type": "AL2023_x86_64_NVIDIA",
        "instance_types": ["g6.2xlarge", "g6.4xlarge"],
        "disk_size": 200,
        "scaling": {"min_size": 1, "max_size": 3},
        "labels": {"Team/Name": "ML"},
        "taints": [TAINT],
        "tags": {"CostCenter": "A7"},
        "wait_timeout": 30,
    }
    return lambda check=False, **changes: task("eks_nodegroup", check, **{k: v for k, v in {**full, **changes}.items() if v is not None})


def summary(results):
    return [(r["changed"], r["operations"]) for r in results]


def test_nodegroup_life(aws, group, run):
    newer = {"scaling": {"min_size": 2, "max_size": 3, "desired_size": 3}}
    backwards = {"subnets": [s["SubnetId"] for s in aws.client("ec2").describe_subnets()["Subnets"]][::-1], "instance_types": ["g6.4xlarge", "g6.2xlarge"]}
    results = run(
        group(check=True),
        group(),
        group(),
        group(**backwards),
        group(check=True),
        group(labels={"Team/Name": "Ops", "zone": True}),
        group(labels={"Team/Name": "Ops", "zone": "true"}),
        group(labels=None, taints=[], **newer),
        group(labels=None, taints=[], **newer),
        group(labels=None, taints=None, tags={"costCenter": "b8"}, node_repair={"enabled": True}, update_config={"update_strategy": "MINIMAL"}),
        group(labels=None, taints=None, tags={"costCenter": "b8"}, node_repair={"enabled": True}, update_config={"update_strategy": "MINIMAL"}),
        group(check=True, state="absent"),
        group(state="absent"),
        group(state="absent"),
    )
    assert summary(results) == [
        (True, []),
        (True, ["CreateNodegroup"]),
        (False, []),
        (False, []),
        (False, []),
        (True, ["UpdateNodegroupConfig"]),
        (False, []),
        (True, ["UpdateNodegroupConfig"]),
        (False, []),
        (True, ["UntagResource", "TagResource", "UpdateNodegroupConfig"]),
        (False, []),
        (True, []),
        (True, ["DeleteNodegroup"]),
        (False, []),
    ]
    predicted, created, unchanged, relabelled, resized, repaired = (results[i] for i in (0, 1, 2, 5, 7, 9))
    assert predicted["actions"] == created["actions"] == ["CreateNodegroup"]
    assert predicted["nodegroup"]["labels"] == {"Team/Name": "ML"}
    assert created["nodegroup"]["status"] == "ACTIVE"
    assert created["nodegroup"]["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}]
    assert created["nodegroup"]["scaling_config"] == {"min_size": 1, "max_size": 3, "desired_size": 1}
    assert created["diff"]["before"] == {}
    assert created["diff"]["after"]["tags"] == {"CostCenter": "A7"}
    assert unchanged["diff"]["before"] == unchanged["diff"]["after"]
    assert relabelled["nodegroup"]["labels"] == {"Team/Name": "Ops", "zone": "true"}
    assert {k for k, v in relabelled["diff"]["after"].items() if relabelled["diff"]["before"][k] != v} == {"labels"}
    assert resized["nodegroup"]["scaling_config"] == {"min_size": 2, "max_size": 3, "desired_size": 2}
    assert "taints" not in resized["nodegroup"]
    assert repaired["nodegroup"]["tags"] == {"costCenter": "b8"}
    assert repaired["nodegroup"]["node_repair_config"] == {"enabled": True}
    assert repaired["nodegroup"]["update_config"] == {"max_unavailable": 1, "update_strategy": "MINIMAL"}


def test_nodegroup_versions(aws, group, run):
    """Version, AMI release and template version each go out alone; $Latest is looked up; a change waits for the one before it."""
    ec2 = aws.client("ec2")
    shape = {"disk_size": None, "instance_types": None, "version": "1.35"}
    old = {**shape, "launch_template": {"name": "gpu", "version": "$Latest"}}
    results = run(group(check=True, **{**old, "launch_template": {"name": "of-this-run", "version": "$Latest"}}), group(**old), group(**old))
    assert summary(results) == [(True, []), (True, ["CreateNodegroup"]), (False, [])]
    assert results[1]["nodegroup"]["launch_template"]["version"] == "1"
    release = results[1]["nodegroup"]["release_version"]
    ec2.create_launch_template_version(LaunchTemplateName="gpu", LaunchTemplateData={"InstanceType": "g6.2xlarge", "EbsOptimized": True})
    newer = {**old, "version": "1.36"}
    results = run(
        group(**old),
        group(**old),
        control("settle", seconds=1),
        group(**newer, labels={"a": "b"}),
        control("settle", seconds=0),
        group(**newer, labels={"a": "b"}),
        group(**old),
        group(**shape, launch_template={"name": "other"}),
    )
    assert summary(results[:4]) == [(True, ["UpdateNodegroupVersion"]), (False, []), (True, ["UpdateNodegroupConfig", "UpdateNodegroupVersion"]), (False, [])]
    assert results[0]["nodegroup"]["launch_template"]["version"] == "2"
    assert (results[0]["nodegroup"]["version"], results[0]["nodegroup"]["release_version"]) == ("1.35", release)
    assert results[2]["nodegroup"]["version"] == "1.36"
    assert "1.35, which is older" in results[4]["msg"]
    assert "launch_template.name: found gpu; needed other" in results[5]["msg"]
    assert results[4]["operations"] == results[5]["operations"] == []


def test_nodegroup_refusals(aws, group, run):
    """Bad and impossible options are refused with every problem, before any write."""
    results = run(
        group(ami_type="AL2_x86_64_GPU", scaling={"min_size": 4, "max_size": 3}),
        group(launch_template={"name": "gpu"}, disk_size=100),
        group(node_role=None, subnets=None),
        group(cluster_name="nowhere"),
        group(cluster_name="nowhere", state="absent"),
        group(),
        group(ami_type="BOTTLEROCKET_x86_64_NVIDIA", capacity_type="SPOT", disk_size=100),
        group(check=True, subnets=["subnet-1"]),
    )
    assert [r["operations"] for r in results] == [[], [], [], [], [], ["CreateNodegroup"], [], []]
    assert [bool(r.get("failed")) for r in results] == [True, True, True, True, False, False, True, True]
    assert results[4]["changed"] is False
    assert "2025-11-26 with NVIDIA driver 570 (CUDA 12.8); needed" in results[0]["msg"]
    assert [p["subject"] for p in results[0]["problems"]] == ["ami_type", "scaling"]
    assert "remove disk_size" in results[1]["msg"]
    assert [p["subject"] for p in results[2]["problems"]] == ["node_role", "subnets"]
    assert "found no EKS cluster nowhere in region us-east-1" in results[3]["msg"]
    assert [p["subject"] for p in results[6]["problems"]] == ["ami_type", "capacity_type", "disk_size"]
    assert "another name" in results[6]["msg"]


def test_nodegroup_failures(aws, group, run):
    """Waiting ends with EKS' own reason: while creating, degraded, and for an update."""
    name = group()[3]["name"]
    text = "Could not launch On-Demand Instances. InsufficientInstanceCapacity."
    issue = {"code": "AsgInstanceLaunchFailures", "message": text, "resourceIds": ["asg-1", "asg-2"]}
    results = run(
        control("fail", nodegroup=name, nodegroup_status="CREATE_FAILED", issues=[issue]),
        group(),
        group(),
        group(state="absent"),
        group(),
        control("fail", nodegroup=name, update_errors=[{"errorCode": "PodEvictionFailure", "errorMessage": "Reached max retries", "resourceIds": ["node-1"]}]),
        group(labels={"a": "b"}),
        control("fail", nodegroup=name, nodegroup_status="DEGRADED", issues=[{**issue, "code": "Ec2SubnetNotFound"}]),
        group(labels={"a": "b"}),
        group(labels={"a": "b"}, wait=False),
    )
    failed, again, _, created, update, degraded, unwaited = results
    text = "CREATE_FAILED: AsgInstanceLaunchFailures: Could not launch On-Demand Instances. InsufficientInstanceCapacity (asg-1, asg-2); needed ACTIVE"
    assert text in failed["msg"]
    assert "delete the node group" in failed["msg"]
    assert again["operations"] == []
    assert "refused before any change" in again["msg"]
    assert "AsgInstanceLaunchFailures" in again["msg"]
    assert created["changed"]
    assert "(ConfigUpdate) ended as Failed: PodEvictionFailure: Reached max retries (node-1)" in update["msg"]
    assert "found DEGRADED: Ec2SubnetNotFound" in degraded["msg"]
    assert not unwaited.get("failed")
    assert "Ec2SubnetNotFound" in unwaited["warnings"][0]


def test_nodegroup_others_changes(aws, group, run):
    """ResourceInUseException is waited for, until the time is over; permissions are named; a late group is said to be late."""
    busy = control("fail", operation="eks:UpdateNodegroupConfig", code="ResourceInUseException", message="Nodegroup has an update in progress", times=1)
    results = run(
        group(wait=False),
        control("settle", seconds=60),
        group(wait_timeout=3, labels={"a": "b"}, wait=False),
        group(wait_timeout=3, labels={"a": "b"}),
        control("settle", seconds=0),
        busy,
        group(labels={"c": "d"}),
        control("deny", action="eks:UpdateNodegroupConfig", denied=True),
        group(labels={"e": "f"}),
        control("deny", action="eks:UpdateNodegroupConfig", denied=False),
        control("settle", seconds=1),
        group(labels={"e": "f"}, wait=False),
        group(labels={"g": "h"}),
        group(state="absent", wait=False),
        group(),
        control("settle", seconds=0),
        group(state="absent"),
    )
    created, started, late, waited, denied, unwaited, second, gone, back, _ = results
    assert created["operations"] == ["CreateNodegroup"]
    assert (started["changed"], started["operations"]) == (True, ["UpdateNodegroupConfig"])
    assert "did not become ACTIVE within 3 s" in late["msg"]
    assert waited["operations"] == ["UpdateNodegroupConfig 409", "UpdateNodegroupConfig"]
    assert "needed the IAM action eks:UpdateNodegroupConfig" in denied["msg"]
    assert denied["msg"].index("found") < denied["msg"].index("fix:")
    assert unwaited["operations"] == ["UpdateNodegroupConfig"]
    assert [o.split()[0] for o in second["operations"]][-1] == "UpdateNodegroupConfig"
    assert second["nodegroup"]["labels"] == {"g": "h"}
    assert gone["changed"]
    assert back["operations"] == ["CreateNodegroup"]
    assert back["nodegroup"]["status"] == "ACTIVE"


def test_access_entry_life(aws, run):
    def entry(check=False, **changes):
        full = {
            "cluster_name": aws.cluster,
            "principal_arn": "arn:aws:iam::123456789012:role/team",
            "kubernetes_groups": ["b", "a"],
            "tags": {"CostCenter": "A7"},
            "policies": [{"policy_arn": "AmazonEKSEditPolicy", "scope": {"type": "namespace", "namespaces": ["y", "x"]}}],
        }
        return task("eks_access_entry", check, **{k: v for k, v in {**full, **changes}.items() if v is not None})

    admin = {"policies": [{"policy_arn": "AmazonEKSClusterAdminPolicy"}]}
    results = run(
        entry(check=True),
        entry(),
        entry(kubernetes_groups=["a", "b"]),
        entry(**admin),
        entry(**admin),
        entry(policies=None, tags={"CostCenter": "b"}),
        entry(type="EC2_LINUX", kubernetes_groups=None, policies=None),
        entry(policies=None, kubernetes_groups=[], tags=None),
        entry(policies=None, kubernetes_groups=[], tags=None),
        entry(check=True, state="absent"),
        entry(state="absent"),
        entry(state="absent"),
        entry(cluster_name="nowhere"),
        control("deny", action="eks:CreateAccessEntry", denied=True),
        entry(),
        control("deny", action="eks:CreateAccessEntry", denied=False),
        control("cluster", authentication_mode="CONFIG_MAP"),
        entry(),
        entry(state="absent"),
        control("cluster", authentication_mode="API_AND_CONFIG_MAP"),
    )
    assert [(r.get("changed", False), r["operations"]) for r in results[:12]] == [
        (True, []),
        (True, ["CreateAccessEntry", "AssociateAccessPolicy"]),
        (False, []),
        (True, ["AssociateAccessPolicy", "DisassociateAccessPolicy"]),
        (False, []),
        (True, ["TagResource"]),
        (False, []),
        (True, ["UpdateAccessEntry"]),
        (False, []),
        (True, []),
        (True, ["DeleteAccessEntry"]),
        (False, []),
    ]
    scope = {"type": "namespace", "namespaces": ["y", "x"]}
    assert (
        results[0]["access_entry"]["policies"]
        == results[1]["access_entry"]["policies"]
        == [{"policy_arn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSEditPolicy", "access_scope": scope}]
    )
    assert results[1]["access_entry"]["tags"] == {"CostCenter": "A7"}
    assert results[3]["diff"]["before"]["policies"] != results[3]["diff"]["after"]["policies"]
    assert "type: found STANDARD; needed EC2_LINUX" in results[6]["msg"]
    assert "found no EKS cluster nowhere" in results[12]["msg"]
    assert "needed the IAM action eks:CreateAccessEntry" in results[13]["msg"]
    assert "authentication mode CONFIG_MAP" in results[14]["msg"]
    assert results[14]["operations"] == []
    assert (results[15]["changed"], results[15]["operations"]) == (False, [])


def test_pod_identity_life(aws, run):
    def association(check=False, **changes):
        full = {
            "cluster_name": aws.cluster,
            "namespace": "llm-serving",
            "service_account": "vllm",
            "role_arn": "arn:aws:iam::123456789012:role/weights",
            "tags": {"CostCenter": "A7"},
        }
        return task("eks_pod_identity_association", check, **{k: v for k, v in {**full, **changes}.items() if v is not None})

    other = {"role_arn": "arn:aws:iam::123456789012:role/other", "disable_session_tags": True}
    results = run(
        association(check=True),
        association(),
        association(),
        association(service_account="other"),
        association(**other),
        association(**other),
        association(role_arn=None, tags={}),
        association(role_arn="weights"),
        association(state="absent"),
        association(check=True, state="absent", role_arn=None),
        association(check=True, state="absent", **other),
        association(state="absent", **other),
        association(state="absent", **other),
        association(role_arn=None),
        association(cluster_name="nowhere", state="absent"),
    )
    assert [(r.get("changed", False), r["operations"]) for r in results] == [
        (True, []),
        (True, ["CreatePodIdentityAssociation"]),
        (False, []),
        (True, ["CreatePodIdentityAssociation"]),
        (True, ["UpdatePodIdentityAssociation"]),
        (False, []),
        (True, ["UntagResource"]),
        (False, []),
        (False, []),
        (True, []),
        (True, []),
        (True, ["DeletePodIdentityAssociation"]),
        (False, []),
        (False, []),
        (False, []),
    ]
    assert results[1]["association"]["tags"] == {"CostCenter": "A7"}
    assert results[1]["association"]["association_id"].startswith("a-")
    assert results[4]["association"]["disable_session_tags"] is True
    assert "role_arn: found weights" in results[7]["msg"]
    assert results[8]["association"]["role_arn"] == other["role_arn"]  # not the role that was named: it stays
    assert results[11]["association"] == {}
    assert "role_arn: found nothing" in results[13]["msg"]
