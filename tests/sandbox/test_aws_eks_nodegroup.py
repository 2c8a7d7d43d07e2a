# SPDX-License-Identifier: GPL-3.0-or-later
"""Node groups of the AWS double, through a real boto3 client (which validates every answer against the service model)."""

from __future__ import annotations

import json
import time

import pytest
from botocore.exceptions import ClientError

from sandbox.aws.running import RunningAws

TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})


@pytest.fixture
def eks(aws: RunningAws):
    return aws.client("eks")


@pytest.fixture
def request_body(aws: RunningAws) -> dict:
    """A complete, valid CreateNodegroup request."""
    role = aws.client("iam").create_role(RoleName="nodes", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
    subnets = aws.client("ec2").describe_subnets(Filters=[{"Name": "tag:karpenter.sh/discovery", "Values": ["demo"]}])["Subnets"]
    return {
        "clusterName": "demo",
        "nodegroupName": "gpu",
        "nodeRole": role,
        "subnets": [s["SubnetId"] for s in subnets],
        "amiType": "AL2023_x86_64_NVIDIA",
        "instanceTypes": ["g6.xlarge"],
        "scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 1},
    }


def group(eks, name="gpu") -> dict:
    return eks.describe_nodegroup(clusterName="demo", nodegroupName=name)["nodegroup"]


def wait(eks, status, name="gpu", seconds=10) -> dict:
    end = time.monotonic() + seconds
    while (found := group(eks, name))["status"] != status:
        assert time.monotonic() < end, f"{found['status']} instead of {status}"
        time.sleep(0.05)
    return found


def refused(function, **params) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        function(**params)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_a_group_is_created_with_the_defaults_of_eks_and_becomes_active(eks, aws, request_body):
    aws.control.settle(60)
    made = eks.create_nodegroup(**request_body)["nodegroup"]
    assert made["status"] == group(eks)["status"] == "CREATING"
    assert made["updateConfig"] == {"maxUnavailable": 1, "updateStrategy": "DEFAULT"}
    assert made["version"] == "1.36"
    assert made["releaseVersion"] == "1.36.2-20260714"
    assert (made["diskSize"], made["capacityType"], made["health"]) == (20, "ON_DEMAND", {"issues": []})
    assert not {"remoteAccess", "nodeRepairConfig", "warmPoolConfig", "taints", "launchTemplate"} & set(made)
    aws.control.settle(0)
    assert group(eks)["status"] == "ACTIVE"
    assert eks.list_nodegroups(clusterName="demo")["nodegroups"] == ["gpu"]


def test_what_moto_drops_is_kept(eks, request_body):
    given = {
        "nodeRepairConfig": {"enabled": True, "maxUnhealthyNodeThresholdCount": 2},
        "updateConfig": {"maxUnavailablePercentage": 33},
        "warmPoolConfig": {"enabled": True, "minSize": 1, "poolState": "STOPPED"},
        "labels": {"a": "b"},
        "tags": {"k": "v"},
        "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}],
        "capacityType": "SPOT",
    }
    eks.create_nodegroup(**request_body, **given)
    made = wait(eks, "ACTIVE")
    assert {k: made[k] for k in given} == {**given, "updateConfig": {"maxUnavailablePercentage": 33, "updateStrategy": "DEFAULT"}}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"amiType": "NOPE"}, "amiType: 'NOPE'"),
        ({"amiType": "AL2_x86_64_GPU"}, "only supported for kubernetes versions 1.32"),
        ({"capacityType": "CHEAP"}, "capacityType"),
        ({"capacityType": "CAPACITY_BLOCK"}, "capacity reservation"),
        ({"scalingConfig": {"minSize": 3, "maxSize": 2, "desiredSize": 2}}, "Minimum capacity 3"),
        ({"scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 3}}, "desired capacity 3"),
        ({"scalingConfig": {"maxSize": 2}}, "must all be specified"),
        ({"instanceTypes": ["g9.xlarge"]}, "do not exist"),
        ({"instanceTypes": ["g5g.xlarge"]}, "not a valid instance type for requested amiType"),
        ({"subnets": ["subnet-0"]}, "'subnet-0' does not exist"),
        ({"nodeRole": "arn:aws:iam::123456789012:role/absent"}, "absent cannot be found"),
        ({"nodeRole": "arn:aws:iam::123456789012:role/demo-cluster"}, "ec2.amazonaws.com"),
        ({"version": "1.37"}, "not valid for cluster version 1.36"),
        ({"releaseVersion": "1.35.6-20260714"}, "not valid for kubernetes version 1.36"),
        ({"updateConfig": {"maxUnavailable": 1, "maxUnavailablePercentage": 5}}, "Only one of"),
        ({"nodeRepairConfig": {"maxParallelNodesRepairedCount": 1, "maxParallelNodesRepairedPercentage": 5}}, "Only one of"),
        ({"taints": [{"key": "a", "value": "b", "effect": "NoSchedule"}]}, "taint effect"),
    ],
)
def test_a_bad_request_is_refused_and_nothing_is_stored(eks, request_body, change, text):
    code, message = refused(eks.create_nodegroup, **{**request_body, **change})
    assert code == "InvalidParameterException"
    assert text in message
    assert eks.list_nodegroups(clusterName="demo")["nodegroups"] == []


def test_names_that_are_taken_or_unknown(eks, request_body):
    eks.create_nodegroup(**request_body)
    assert refused(eks.create_nodegroup, **request_body)[0] == "ResourceInUseException"
    assert refused(eks.create_nodegroup, **{**request_body, "clusterName": "other"})[0] == "ResourceNotFoundException"
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        group(eks, "absent")


def test_a_config_update_is_in_progress_then_successful_and_a_second_is_refused(eks, aws, request_body):
    eks.create_nodegroup(**request_body, taints=[{"key": "old", "value": "1", "effect": "NO_SCHEDULE"}], labels={"a": "1", "b": "2"})
    wait(eks, "ACTIVE")
    aws.control.settle(60)
    change = {"clusterName": "demo", "nodegroupName": "gpu"}
    update = eks.update_nodegroup_config(
        **change,
        scalingConfig={"maxSize": 5},
        labels={"addOrUpdateLabels": {"a": "9"}, "removeLabels": ["b"]},
        nodeRepairConfig={"enabled": True},
        taints={"addOrUpdateTaints": [{"key": "new", "value": "1", "effect": "NO_EXECUTE"}], "removeTaints": [{"key": "old", "effect": "NO_SCHEDULE"}]},
    )["update"]
    assert (update["status"], update["type"]) == ("InProgress", "ConfigUpdate")
    assert {"type": "MaxSize", "value": "5"} in update["params"]
    assert group(eks)["status"] == "UPDATING"
    assert refused(eks.update_nodegroup_config, **change, scalingConfig={"maxSize": 6})[0] == "ResourceInUseException"
    assert refused(eks.update_nodegroup_version, **change)[0] == "ResourceInUseException"
    assert refused(eks.delete_nodegroup, **change)[0] == "ResourceInUseException"
    aws.control.settle(0)
    assert eks.describe_update(name="demo", nodegroupName="gpu", updateId=update["id"])["update"]["status"] == "Successful"
    now = group(eks)
    assert now["status"] == "ACTIVE"
    assert now["scalingConfig"] == {"minSize": 0, "maxSize": 5, "desiredSize": 1}
    assert (now["labels"], now["nodeRepairConfig"]) == ({"a": "9"}, {"enabled": True})
    assert now["taints"] == [{"key": "new", "value": "1", "effect": "NO_EXECUTE"}]


def test_versions_move_up_only_and_change_when_the_update_has_succeeded(eks, aws, request_body):
    eks.create_nodegroup(**request_body, version="1.35")
    assert wait(eks, "ACTIVE")["releaseVersion"] == "1.35.6-20260714"
    where = {"clusterName": "demo", "nodegroupName": "gpu"}
    assert refused(eks.update_nodegroup_version, **where, version="1.34")[0] == "InvalidParameterException"
    aws.control.settle(60)
    eks.update_nodegroup_version(**where)
    assert group(eks)["version"] == "1.35"
    aws.control.settle(0)
    assert (group(eks)["version"], group(eks)["releaseVersion"]) == ("1.36", "1.36.2-20260714")


def test_launch_templates(eks, aws, request_body):
    ec2 = aws.client("ec2")
    data = {"MetadataOptions": {"HttpTokens": "required"}}
    ident = ec2.create_launch_template(LaunchTemplateName="gpu", LaunchTemplateData=data)["LaunchTemplate"]["LaunchTemplateId"]
    ec2.create_launch_template_version(LaunchTemplateId=ident, LaunchTemplateData={"MetadataOptions": {"HttpPutResponseHopLimit": 2}})
    assert refused(eks.create_nodegroup, **request_body, launchTemplate={"name": "gpu"}, diskSize=100)[0] == "InvalidParameterException"
    eks.create_nodegroup(**request_body, launchTemplate={"name": "gpu"})
    made = wait(eks, "ACTIVE")
    assert made["launchTemplate"] == {"id": ident, "name": "gpu", "version": "1"}
    assert "diskSize" not in made
    eks.update_nodegroup_version(clusterName="demo", nodegroupName="gpu", launchTemplate={"id": ident, "version": "2"})
    assert wait(eks, "ACTIVE")["launchTemplate"]["version"] == "2"
    where = {"clusterName": "demo", "nodegroupName": "gpu"}
    assert refused(eks.update_nodegroup_version, **where, launchTemplate={"id": ident, "version": "3"})[0] == "InvalidParameterException"


def test_a_deleted_group_goes_and_until_then_its_cluster_stays(eks, aws, request_body):
    eks.create_nodegroup(**request_body)
    wait(eks, "ACTIVE")
    aws.control.settle(60)
    assert eks.delete_nodegroup(clusterName="demo", nodegroupName="gpu")["nodegroup"]["status"] == "DELETING"
    assert refused(eks.delete_cluster, name="demo")[0] == "ResourceInUseException"
    aws.control.settle(0)
    eks.get_waiter("nodegroup_deleted").wait(clusterName="demo", nodegroupName="gpu", WaiterConfig={"Delay": 0})
    eks.delete_cluster(name="demo")
    assert eks.list_clusters()["clusters"] == []


def test_a_creation_fails_with_its_health_issue_and_the_next_one_is_healthy(eks, aws, request_body):
    text = "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your limit of 0"
    aws.control.fail_nodegroup("gpu", code="AsgInstanceLaunchFailures", message=text)
    eks.create_nodegroup(**request_body)
    assert wait(eks, "CREATE_FAILED")["health"]["issues"] == [{"code": "AsgInstanceLaunchFailures", "message": text, "resourceIds": ["gpu"]}]
    aws.control.settle(0)
    eks.delete_nodegroup(clusterName="demo", nodegroupName="gpu")
    eks.create_nodegroup(**request_body)
    assert wait(eks, "ACTIVE")["health"]["issues"] == []


def test_an_active_group_degrades_and_an_update_fails(eks, aws, request_body):
    eks.create_nodegroup(**request_body, version="1.35")
    wait(eks, "ACTIVE")
    aws.control.fail_nodegroup_update("gpu", message="Reached max retries while trying to evict pods")
    ident = eks.update_nodegroup_version(clusterName="demo", nodegroupName="gpu")["update"]["id"]
    assert wait(eks, "ACTIVE")["version"] == "1.35"
    update = eks.describe_update(name="demo", nodegroupName="gpu", updateId=ident)["update"]
    assert (update["status"], update["errors"][0]["errorCode"]) == ("Failed", "PodEvictionFailure")
    aws.control.fail_nodegroup("gpu", status="DEGRADED", code="IamNodeRoleNotFound", message="the role is gone")
    assert wait(eks, "DEGRADED")["health"]["issues"][0]["message"] == "the role is gone"


def test_tags_of_a_group_and_of_its_cluster(eks, request_body):
    arn = eks.create_nodegroup(**request_body, tags={"a": "1"})["nodegroup"]["nodegroupArn"]
    eks.tag_resource(resourceArn=arn, tags={"b": "2"})
    eks.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == group(eks)["tags"] == {"b": "2"}
    cluster = eks.describe_cluster(name="demo")["cluster"]["arn"]
    eks.tag_resource(resourceArn=cluster, tags={"c": "3"})
    assert eks.list_tags_for_resource(resourceArn=cluster)["tags"] == {"c": "3"}
    assert refused(eks.tag_resource, resourceArn=arn + "0", tags={"a": "1"})[0] == "NotFoundException"


def test_the_node_role_gets_an_access_entry(eks, request_body):
    eks.create_nodegroup(**request_body)
    entry = eks.describe_access_entry(clusterName="demo", principalArn=request_body["nodeRole"])["accessEntry"]
    assert (entry["type"], entry["kubernetesGroups"]) == ("EC2_LINUX", ["system:nodes"])
