# SPDX-License-Identifier: GPL-3.0-or-later
"""Karpenter's AWS side as one CloudFormation stack in the double: queue, rules, roles and policies are made, changed and leave nothing."""

from __future__ import annotations

import copy
import json

import pytest
from botocore.exceptions import ClientError

from sandbox.aws.running import RunningAws

NODE_POLICIES = ["AmazonEKS_CNI_Policy", "AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore"]


def trust(service: str, *actions: str) -> dict:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": list(actions)}]}


def rule(source: str, detail: str) -> dict:
    return {
        "Type": "AWS::Events::Rule",
        "Properties": {
            "EventPattern": {"source": [source], "detail-type": [detail]},
            "Targets": [{"Id": "KarpenterInterruptionQueueTarget", "Arn": {"Fn::GetAtt": ["Queue", "Arn"]}}],
        },
    }


TEMPLATE = {
    "AWSTemplateFormatVersion": "2010-09-09",
    "Parameters": {"ClusterName": {"Type": "String"}},
    "Resources": {
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "ClusterName"}, "MessageRetentionPeriod": 300, "SqsManagedSseEnabled": True}},
        "QueuePolicy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "Queue"}],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": ["events.amazonaws.com", "sqs.amazonaws.com"]},
                            "Action": "sqs:SendMessage",
                            "Resource": {"Fn::GetAtt": ["Queue", "Arn"]},
                        },
                        {
                            "Effect": "Deny",
                            "Principal": "*",
                            "Action": "sqs:*",
                            "Resource": {"Fn::GetAtt": ["Queue", "Arn"]},
                            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                        },
                    ],
                },
            },
        },
        "SpotRule": rule("aws.ec2", "EC2 Spot Instance Interruption Warning"),
        "HealthRule": rule("aws.health", "AWS Health Event"),
        "NodeRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": {"Fn::Sub": "KarpenterNodeRole-${ClusterName}"},
                "AssumeRolePolicyDocument": trust("ec2.amazonaws.com", "sts:AssumeRole"),
                "ManagedPolicyArns": [{"Fn::Sub": f"arn:${{AWS::Partition}}:iam::aws:policy/{name}"} for name in NODE_POLICIES],
            },
        },
        "ControllerPolicy": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "ManagedPolicyName": {"Fn::Sub": "KarpenterInterruption-${ClusterName}"},
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [{"Effect": "Allow", "Action": ["sqs:ReceiveMessage"], "Resource": {"Fn::GetAtt": ["Queue", "Arn"]}}],
                },
            },
        },
        "ControllerRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": {"Fn::Sub": "KarpenterController-${ClusterName}"},
                "AssumeRolePolicyDocument": trust("pods.eks.amazonaws.com", "sts:AssumeRole", "sts:TagSession"),
                "ManagedPolicyArns": [{"Ref": "ControllerPolicy"}],
            },
        },
    },
    "Outputs": {"NodeRoleArn": {"Value": {"Fn::GetAtt": ["NodeRole", "Arn"]}}, "QueueName": {"Value": {"Fn::GetAtt": ["Queue", "QueueName"]}}},
}
STACK = {
    "StackName": "llmops-eks-karpenter-demo",
    "Parameters": [{"ParameterKey": "ClusterName", "ParameterValue": "demo"}],
    "Capabilities": ["CAPABILITY_NAMED_IAM"],
}


@pytest.fixture
def stacks(aws: RunningAws):
    client = aws.client("cloudformation")
    client.create_stack(**STACK, TemplateBody=json.dumps(TEMPLATE))
    client.get_waiter("stack_create_complete").wait(StackName=STACK["StackName"], WaiterConfig={"Delay": 0, "MaxAttempts": 5})
    return client


def inventory(aws: RunningAws) -> dict[str, set[str]]:
    """Names of what the stack owns."""
    return {
        "queues": {u.rsplit("/", 1)[-1] for u in aws.client("sqs").list_queues().get("QueueUrls", [])},
        "rules": {r["Name"] for r in aws.client("events").list_rules()["Rules"]},
        "roles": {r["RoleName"] for r in aws.client("iam").list_roles()["Roles"]} - {"demo-cluster"},
        "policies": {p["PolicyName"] for p in aws.client("iam").list_policies(Scope="Local")["Policies"]},
    }


def test_the_stack_makes_everything(aws: RunningAws, stacks):
    (stack,) = stacks.describe_stacks(StackName=STACK["StackName"])["Stacks"]
    outputs = {o["OutputKey"]: o["OutputValue"] for o in stack["Outputs"]}
    assert outputs == {"NodeRoleArn": "arn:aws:iam::123456789012:role/KarpenterNodeRole-demo", "QueueName": "demo"}
    found = inventory(aws)
    assert (found["queues"], found["policies"]) == ({"demo"}, {"KarpenterInterruption-demo"})
    assert found["roles"] == {"KarpenterNodeRole-demo", "KarpenterController-demo"}
    assert len(found["rules"]) == 2
    iam = aws.client("iam")
    attached = {p["PolicyName"] for p in iam.list_attached_role_policies(RoleName="KarpenterNodeRole-demo")["AttachedPolicies"]}
    assert attached == set(NODE_POLICIES)
    url = aws.client("sqs").get_queue_url(QueueName="demo")["QueueUrl"]
    attributes = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["MessageRetentionPeriod"] == "300"
    assert len(json.loads(attributes["Policy"])["Statement"]) == 2


def test_an_update_changes_and_removes_and_an_equal_one_is_refused(aws: RunningAws, stacks):
    with pytest.raises(ClientError, match="No updates are to be performed"):
        stacks.update_stack(**STACK, TemplateBody=json.dumps(TEMPLATE))
    changed = copy.deepcopy(TEMPLATE)
    changed["Resources"]["Queue"]["Properties"]["MessageRetentionPeriod"] = 600
    changed["Resources"]["RebalanceRule"] = rule("aws.ec2", "EC2 Instance Rebalance Recommendation")
    del changed["Resources"]["HealthRule"]
    changed["Resources"]["NodeRole"]["Properties"]["ManagedPolicyArns"].pop()
    changed["Resources"]["ControllerPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Action"] = ["sqs:DeleteMessage"]
    changed["Resources"]["ControllerRole"]["Properties"]["AssumeRolePolicyDocument"] = trust("pods.eks.amazonaws.com", "sts:AssumeRole")
    stacks.update_stack(**STACK, TemplateBody=json.dumps(changed))
    stacks.get_waiter("stack_update_complete").wait(StackName=STACK["StackName"], WaiterConfig={"Delay": 0, "MaxAttempts": 5})
    url = aws.client("sqs").get_queue_url(QueueName="demo")["QueueUrl"]
    assert aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["MessageRetentionPeriod"] == "600"
    policy_left = json.loads(aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert len(policy_left["Statement"]) == 2
    iam = aws.client("iam")
    attached = {p["PolicyName"] for p in iam.list_attached_role_policies(RoleName="KarpenterNodeRole-demo")["AttachedPolicies"]}
    assert attached == set(NODE_POLICIES[:-1])
    arn = "arn:aws:iam::123456789012:policy/KarpenterInterruption-demo"
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    assert iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]["Statement"][0]["Action"] == ["sqs:DeleteMessage"]
    assert iam.get_role(RoleName="KarpenterController-demo")["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Action"] == ["sts:AssumeRole"]
    patterns = {json.loads(r["EventPattern"])["detail-type"][0] for r in aws.client("events").list_rules()["Rules"]}
    assert patterns == {"EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation"}


def test_an_equal_update_without_parameters_is_refused(aws: RunningAws):
    client = aws.client("cloudformation")
    body = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    client.create_stack(StackName="plain", TemplateBody=body)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        client.update_stack(StackName="plain", TemplateBody=body)


def test_a_change_set_predicts_without_changing(aws: RunningAws, stacks):
    """As Ansible's check mode asks: no change set type is given, and the change set is deleted afterwards."""

    def predicted(template: dict) -> tuple[str, set[str]]:
        ident = stacks.create_change_set(**STACK, TemplateBody=json.dumps(template), ChangeSetName="check")["Id"]
        found = stacks.describe_change_set(ChangeSetName=ident)
        stacks.delete_change_set(ChangeSetName=ident)
        return found["Status"], {c["ResourceChange"]["LogicalResourceId"] for c in found.get("Changes", [])}

    assert predicted(TEMPLATE) == ("FAILED", set())
    changed = copy.deepcopy(TEMPLATE)
    del changed["Resources"]["HealthRule"]
    assert predicted(changed) == ("CREATE_COMPLETE", {"HealthRule"})
    assert len(aws.client("events").list_rules()["Rules"]) == 2
    assert [s["StackStatus"] for s in stacks.describe_stacks()["Stacks"]] == ["CREATE_COMPLETE"]


def test_a_deleted_stack_leaves_nothing(aws: RunningAws, stacks):
    stacks.delete_stack(StackName=STACK["StackName"])
    stacks.get_waiter("stack_delete_complete").wait(StackName=STACK["StackName"], WaiterConfig={"Delay": 0, "MaxAttempts": 5})
    assert inventory(aws) == {"queues": set(), "rules": set(), "roles": set(), "policies": set()}


def test_an_interruption_reaches_who_reads_the_queue(aws: RunningAws, stacks):
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName="demo")["QueueUrl"]
    warning = {"version": "0", "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning", "detail": {"instance-id": "i-1"}}
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(warning))
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert json.loads(message["Body"]) == warning
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
