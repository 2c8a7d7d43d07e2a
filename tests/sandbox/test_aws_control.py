# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests can see and do through the AWS double's control API, and how the process starts and ends."""

from __future__ import annotations

import signal
import subprocess
import urllib.request

import pytest
from botocore.exceptions import ClientError

from sandbox import ports
from sandbox.aws import command
from sandbox.aws.control import Control, ControlError
from sandbox.aws.running import ROOT, RunningAws
from sandbox.aws.state import is_write

MINE = "mineaccesskeyid000000"


def error_of(function, **params) -> dict:
    with pytest.raises(ClientError) as error:
        function(**params)
    return {**error.value.response["Error"], "status": error.value.response["ResponseMetadata"]["HTTPStatusCode"]}


@pytest.mark.parametrize(
    ("operation", "write"),
    [
        ("CreateNodegroup", True),
        ("DeleteStack", True),
        ("PutRule", True),
        ("TagResource", True),
        ("RunInstances", True),
        ("AttachRolePolicy", True),
        ("SendMessage", True),
        ("DescribeNodegroup", False),
        ("ListTagsForResource", False),
        ("GetParameter", False),
        ("HeadBucket", False),
        ("AssumeRole", False),
        ("ReceiveMessage", False),
    ],
)
def test_what_counts_as_a_write(operation, write):
    assert is_write(operation) is write


def test_writes_are_counted_for_each_access_key(aws: RunningAws):
    aws.client("sqs", MINE).create_queue(QueueName="q")
    aws.client("s3", MINE).create_bucket(Bucket="weights")
    aws.client("s3", MINE).put_object(Bucket="weights", Key="model/config.json", Body=b"{}")
    aws.client("s3", MINE).list_objects_v2(Bucket="weights")
    aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")
    aws.client("iam").get_role(RoleName="r")
    assert aws.control.writes() == {MINE: 3, "sandboxaccesskeyid0000": 1}
    seen = [(c["service"], c["operation"], c["access_key"]) for c in aws.control.calls()]
    assert seen[:3] == [("sqs", "CreateQueue", MINE), ("s3", "CreateBucket", MINE), ("s3", "PutObject", MINE)]
    assert [c["operation"] for c in aws.control.calls(last=1)] == ["CreateRole"]
    assert aws.client("s3", MINE).get_object(Bucket="weights", Key="model/config.json")["Body"].read() == b"{}"


def test_refused_writes_and_dry_runs_are_listed_but_not_counted(aws: RunningAws):
    image = aws.client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    assert error_of(aws.client("ec2").run_instances, ImageId=image, MinCount=1, MaxCount=1, DryRun=True)["Code"] == "DryRunOperation"
    assert error_of(aws.client("eks").delete_nodegroup, clusterName="demo", nodegroupName="absent")["Code"] == "ResourceNotFoundException"
    assert aws.control.writes() == {}
    assert [(c["operation"], c["counted"]) for c in aws.control.calls()] == [("RunInstances", False), ("DeleteNodegroup", False)]


@pytest.mark.parametrize(
    ("service", "action", "method", "params", "code"),
    [
        ("ec2", "ec2:DescribeCapacityReservations", "describe_capacity_reservations", {}, "UnauthorizedOperation"),
        ("ec2", "ec2:DescribeSubnets", "describe_subnets", {}, "UnauthorizedOperation"),
        ("eks", "eks:ListNodegroups", "list_nodegroups", {"clusterName": "demo"}, "AccessDeniedException"),
        ("service-quotas", "servicequotas:GetServiceQuota", "get_service_quota", {"ServiceCode": "ec2", "QuotaCode": "L-DB2E81BA"}, "AccessDeniedException"),
        ("pricing", "pricing:GetProducts", "get_products", {"ServiceCode": "AmazonEC2"}, "AccessDeniedException"),
        ("ssm", "ssm:GetParameter", "get_parameter", {"Name": "x"}, "AccessDeniedException"),
        ("iam", "iam:ListRoles", "list_roles", {}, "AccessDenied"),
        ("s3", "s3:ListBucket", "list_objects_v2", {"Bucket": "b"}, "AccessDenied"),
    ],
)
def test_a_denied_action_answers_as_the_service_does(aws: RunningAws, service, action, method, params, code):
    aws.control.deny(action)
    error = error_of(getattr(aws.client(service), method), **params)
    assert (error["Code"], error["status"]) == (code, 403)
    assert f"is not authorized to perform: {action}" in error["Message"]
    aws.control.deny(action, denied=False)
    if service != "ssm" and service != "s3":
        getattr(aws.client(service), method)(**params)


def test_the_next_calls_of_an_operation_fail(aws: RunningAws):
    eks = aws.client("eks")
    aws.control.fail("eks:DescribeCluster", "ServerException", "try again", status=400, times=2)
    assert [error_of(eks.describe_cluster, name="demo")["Message"] for _ in range(2)] == ["try again"] * 2
    assert eks.describe_cluster(name="demo")["cluster"]["name"] == "demo"
    aws.control.fail("ec2:CreateLaunchTemplate", "LaunchTemplateLimitExceeded", "too many")
    error = error_of(aws.client("ec2").create_launch_template, LaunchTemplateName="a", LaunchTemplateData={})
    assert (error["Code"], error["Message"]) == ("LaunchTemplateLimitExceeded", "too many")


def test_a_throttled_call_is_retried_by_the_client(aws: RunningAws):
    aws.control.fail("eks:ListClusters", "ThrottlingException", "slow down", status=429)
    assert aws.client("eks").list_clusters()["clusters"] == ["demo"]


def test_reset_forgets_what_was_injected_and_resources_only_when_asked(aws: RunningAws):
    aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")
    aws.control.quota("L-DB2E81BA", 0)
    aws.control.deny("eks:ListClusters")
    aws.control.fail("eks:DescribeCluster", "ServerException")
    aws.control.cluster(version="1.33", auto_mode=True)
    aws.control.reset()
    state = aws.control.state()
    assert (state["denied"], state["failures"], aws.control.calls()) == ([], [], [])
    assert next(q["value"] for q in state["quotas"] if q["code"] == "L-DB2E81BA") == 768
    assert aws.client("iam").get_role(RoleName="r")["Role"]["RoleName"] == "r"
    cluster = aws.client("eks").describe_cluster(name="demo")["cluster"]
    assert (cluster["version"], cluster["computeConfig"]["enabled"]) == ("1.33", True)
    aws.control.reset(resources=True)
    assert error_of(aws.client("iam").get_role, RoleName="r")["Code"] == "NoSuchEntity"
    assert aws.client("eks").describe_cluster(name="demo")["cluster"]["version"] == "1.36"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.quota("L-0", 1), "needed one of L-1216C47A"),
        (lambda c: c.deny("DescribeSubnets"), "needed an IAM action"),
        (lambda c: c.fail("CreateNodegroup", "X"), 'needed "<boto3 service>:<Operation>"'),
        (lambda c: c.fail_nodegroup("gpu", code="NoSuchCode"), "NodegroupIssueCode"),
        (lambda c: c.fail_nodegroup("gpu", status="SAD"), "needed CREATE_FAILED or DEGRADED"),
        (lambda c: c.offering("g9.xlarge", "us-east-1a"), "needed an EC2 instance type"),
        (lambda c: c.subnet_ips("us-east-1f", 1), "tagged karpenter.sh/discovery"),
        (lambda c: c.spot_score(11), "needed 1 to 10"),
        (lambda c: c.capacity(reservations=[{"State": "active"}]), "needs CapacityReservationId"),
        (lambda c: c.cluster(authentication_mode="NONE"), "needed one of API"),
        (lambda c: c.cluster(colour="red"), "colour"),
        (lambda c: c.ask("nonsense", {}), "spot-score"),
    ],
)
def test_a_wrong_command_says_what_is_needed(aws_process: RunningAws, call, text):
    with pytest.raises(ControlError, match=text):
        call(aws_process.control)


def test_an_operation_that_nobody_has_says_so(aws: RunningAws):
    """moto's own answer for what it lacks must still reach the client as an error, not hang or pass as success."""
    with pytest.raises(ClientError):
        aws.client("eks").describe_insight(clusterName="demo", id="x")


def test_the_program_serves_both_ports_and_ends_on_sigterm():
    chosen = ports.choose({"aws": 0, "pricing": 0})
    argv = command(chosen["aws"], chosen["pricing"], "other", "us-east-1")
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            for port in chosen.values():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/sandbox/state", timeout=10) as answer:
                    assert answer.status == 200
            assert Control(f"http://127.0.0.1:{chosen['aws']}").state()["cluster"] == "other"
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
