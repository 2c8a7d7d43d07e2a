# SPDX-License-Identifier: GPL-3.0-or-later
"""What the eks_* modules say when botocore raises, and what they try again."""

import boto3
import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _eks
from ansible_collections.llmops.eks.plugins.modules import eks_access_entry
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber

IDENT = {"clusterName": "demo", "principalArn": "arn:aws:iam::123456789012:role/new"}


@pytest.fixture
def stub():
    client = boto3.client("eks", region_name="us-east-1", aws_access_key_id="x" * 20, aws_secret_access_key="x" * 20)
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def client_error(code, message, operation="CreateNodegroup"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (client_error("AccessDeniedException", "no"), "needed the IAM action eks:CreateNodegroup;"),
        (client_error("AccessDeniedException", "User: x is not authorized to perform: iam:PassRole on resource: y"), "needed the IAM action iam:PassRole;"),
        (client_error("UnauthorizedOperation", "You are not authorized", "DescribeLaunchTemplates"), "needed the IAM action ec2:DescribeLaunchTemplates;"),
        (client_error("InvalidRequestException", "The cluster's authentication mode must be set to one of [API]"), "found authentication mode CONFIG_MAP;"),
        (ParamValidationError(report='Unknown parameter in input: "nodeRepairConfig"'), "upgrade boto3 and botocore"),
    ],
)
def test_errors_say_what_to_do(error, text):
    assert text in _eks.hint(error)


@pytest.mark.parametrize("error", [None, client_error("InvalidParameterException", "no such subnet"), ParamValidationError(report="Invalid type")])
def test_other_errors_speak_for_themselves(error):
    assert _eks.hint(error) == ""


def test_a_new_role_is_tried_again(stub, monkeypatch):
    monkeypatch.setattr(eks_access_entry, "PAUSE", 0)
    for _ in range(2):
        stub.add_client_error("create_access_entry", "InvalidParameterException", "The specified principalArn is invalid: invalid principal.")
    stub.add_response("create_access_entry", {"accessEntry": IDENT}, IDENT)
    eks_access_entry.write(stub.client, _eks.Call("CreateAccessEntry", IDENT))


def test_a_role_that_stays_unknown_is_an_error(stub, monkeypatch):
    monkeypatch.setattr(eks_access_entry, "PAUSE", 0)
    for _ in range(eks_access_entry.TRIES):
        stub.add_client_error("create_access_entry", "InvalidParameterException", "The specified principalArn is invalid: invalid principal.")
    with pytest.raises(_eks.AnsibleEksError, match="invalid principal"):
        eks_access_entry.write(stub.client, _eks.Call("CreateAccessEntry", IDENT))


def test_other_refusals_are_not_tried_again(stub):
    stub.add_client_error("create_access_entry", "InvalidParameterException", "The username is invalid")
    with pytest.raises(_eks.AnsibleEksError, match="username"):
        eks_access_entry.write(stub.client, _eks.Call("CreateAccessEntry", IDENT))


def test_labels_and_tags_keep_their_case():
    shown = _eks.snake({"nodegroupName": "a", "labels": {"Team/Name": "ML"}, "tags": {"CostCenter": "A7"}, "health": {"issues": [{"resourceIds": ["x"]}]}})
    assert shown == {"nodegroup_name": "a", "labels": {"Team/Name": "ML"}, "tags": {"CostCenter": "A7"}, "health": {"issues": [{"resource_ids": ["x"]}]}}
