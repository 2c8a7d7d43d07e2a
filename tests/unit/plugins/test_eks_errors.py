# SPDX-License-Identifier: GPL-3.0-or-later
"""What the eks_* actions say when botocore raises, and what they try again."""

import re

import boto3
import pytest
from ansible_collections.llmops.eks.plugins.action import eks_access_entry, eks_pod_identity_association
from ansible_collections.llmops.eks.plugins.module_utils import _eks
from ansible_collections.llmops.eks.plugins.module_utils._aws import Session
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber

IDENT = {"clusterName": "demo", "principalArn": "arn:aws:iam::123456789012:role/new"}
PARAMS = {
    "CreateAccessEntry": IDENT,
    "CreatePodIdentityAssociation": {"clusterName": "demo", "namespace": "ns", "serviceAccount": "sa", "roleArn": IDENT["principalArn"]},
    "UpdatePodIdentityAssociation": {"clusterName": "demo", "associationId": "a-1", "roleArn": IDENT["principalArn"]},
}


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


NEW_ROLE = pytest.mark.parametrize(
    ("action", "operation", "message"),
    [
        (eks_access_entry, "CreateAccessEntry", "The specified principalArn is invalid: invalid principal."),
        (eks_pod_identity_association, "CreatePodIdentityAssociation", "Role provided in the request does not exist."),
        (eks_pod_identity_association, "UpdatePodIdentityAssociation", "Role provided in the request does not exist."),
    ],
)


@pytest.fixture
def write(stub, monkeypatch):
    """write(action, operation, messages of refusals ...): an action's own call, refused with these before it succeeds."""
    monkeypatch.setattr(_eks, "PAUSE", 0)

    def call(action, operation, *messages):
        params, name = PARAMS[operation], xform_name(operation)
        for message in messages:
            stub.add_client_error(name, "InvalidParameterException", message)
        if len(messages) < _eks.TRIES:
            stub.add_response(name, {}, params)
        _eks.write(stub.client, _eks.Call(operation, params), action.UNKNOWN)

    return call


@NEW_ROLE
def test_a_new_role_is_tried_again(stub, write, action, operation, message):
    sent = []
    stub.client.meta.events.register("before-parameter-build.eks", lambda model, **_rest: sent.append(model.name))
    write(action, operation, message, message)
    assert sent == [operation] * 3


@NEW_ROLE
def test_a_role_that_stays_unknown_is_an_error(write, action, operation, message):
    with pytest.raises(_eks.AnsibleEksError, match=re.escape(message)):
        write(action, operation, *[message] * _eks.TRIES)


def test_other_refusals_are_not_tried_again(stub):
    stub.add_client_error("create_access_entry", "InvalidParameterException", "The username is invalid")
    with pytest.raises(_eks.AnsibleEksError, match="username"):
        _eks.write(stub.client, _eks.Call("CreateAccessEntry", IDENT), eks_access_entry.UNKNOWN)


def test_a_pod_identity_waits_for_its_new_role(stub, monkeypatch):
    monkeypatch.setattr(_eks, "PAUSE", 0)
    params = {"cluster_name": "demo", "namespace": "ns", "service_account": "sa", "role_arn": IDENT["principalArn"], "state": "present", "purge_tags": True}
    listed = {"clusterName": "demo", "namespace": "ns", "serviceAccount": "sa"}
    association = {"associationId": "a-1", "roleArn": IDENT["principalArn"], **listed}
    stub.add_response("list_pod_identity_associations", {"associations": []}, listed)
    stub.add_response("describe_cluster", {"cluster": {}}, {"name": "demo"})
    stub.add_client_error("create_pod_identity_association", "InvalidParameterException", "Role provided in the request does not exist.")
    stub.add_response("create_pod_identity_association", {"association": association})
    stub.add_response("list_pod_identity_associations", {"associations": [{"associationId": "a-1"}]}, listed)
    stub.add_response("describe_pod_identity_association", {"association": association}, {"clusterName": "demo", "associationId": "a-1"})
    session = Session("us-east-1", lambda service: {"eks": stub.client}[service])
    given = dict.fromkeys(("target_role_arn", "disable_session_tags", "tags")) | params
    assert eks_pod_identity_association.run(session, given, check_mode=False)["actions"] == ["CreatePodIdentityAssociation"]


def test_labels_and_tags_keep_their_case():
    shown = _eks.snake({"nodegroupName": "a", "labels": {"Team/Name": "ML"}, "tags": {"CostCenter": "A7"}, "health": {"issues": [{"resourceIds": ["x"]}]}})
    assert shown == {"nodegroup_name": "a", "labels": {"Team/Name": "ML"}, "tags": {"CostCenter": "A7"}, "health": {"issues": [{"resource_ids": ["x"]}]}}
