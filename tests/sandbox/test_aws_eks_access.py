# SPDX-License-Identifier: GPL-3.0-or-later
"""Access entries, pod identity associations, add-ons, versions and the seeded cluster of the AWS double, through boto3."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from sandbox.aws.running import RunningAws

ROLE = "arn:aws:iam::123456789012:role/KarpenterNodeRole-demo"
VIEW = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
IN = {"clusterName": "demo"}


@pytest.fixture
def eks(aws: RunningAws):
    return aws.client("eks")


def code_of(function, **params) -> str:
    with pytest.raises(ClientError) as error:
        function(**params)
    return error.value.response["Error"]["Code"]


def test_the_cluster_is_the_one_that_was_asked_for(eks):
    cluster = eks.describe_cluster(name="demo")["cluster"]
    assert (cluster["version"], cluster["status"], cluster["endpoint"]) == ("1.36", "ACTIVE", "https://127.0.0.1:16443")
    assert cluster["accessConfig"]["authenticationMode"] == "API_AND_CONFIG_MAP"
    assert cluster["computeConfig"]["enabled"] is False
    eks.get_waiter("cluster_active").wait(name="demo")


def test_an_access_entry_of_a_node_role(eks):
    made = eks.create_access_entry(**IN, principalArn=ROLE, type="EC2_LINUX", tags={"a": "1"})["accessEntry"]
    assert made["username"] == "system:node:{{EC2PrivateDNSName}}"
    assert made["kubernetesGroups"] == ["system:nodes"]
    assert eks.describe_access_entry(**IN, principalArn=ROLE)["accessEntry"] == made
    assert eks.list_access_entries(**IN)["accessEntries"] == [ROLE]
    assert code_of(eks.create_access_entry, **IN, principalArn=ROLE) == "ResourceInUseException"
    assert code_of(eks.associate_access_policy, **IN, principalArn=ROLE, policyArn=VIEW, accessScope={"type": "cluster"}) == "InvalidParameterException"
    eks.tag_resource(resourceArn=made["accessEntryArn"], tags={"b": "2"})
    assert eks.describe_access_entry(**IN, principalArn=ROLE)["accessEntry"]["tags"] == {"a": "1", "b": "2"}
    eks.delete_access_entry(**IN, principalArn=ROLE)
    assert eks.list_access_entries(**IN)["accessEntries"] == []
    assert code_of(eks.describe_access_entry, **IN, principalArn=ROLE) == "ResourceNotFoundException"


def test_a_standard_entry_with_policies(eks):
    made = eks.create_access_entry(**IN, principalArn=ROLE)["accessEntry"]
    assert (made["type"], made["username"]) == ("STANDARD", "arn:aws:sts::123456789012:assumed-role/KarpenterNodeRole-demo/{{SessionName}}")
    assert eks.update_access_entry(**IN, principalArn=ROLE, kubernetesGroups=["viewers"])["accessEntry"]["kubernetesGroups"] == ["viewers"]
    scope = {"type": "namespace", "namespaces": ["llm-serving"]}
    assert eks.associate_access_policy(**IN, principalArn=ROLE, policyArn=VIEW, accessScope=scope)["associatedAccessPolicy"]["accessScope"] == scope
    assert eks.list_access_entries(**IN, associatedPolicyArn=VIEW)["accessEntries"] == [ROLE]
    assert [p["policyArn"] for p in eks.list_associated_access_policies(**IN, principalArn=ROLE)["associatedAccessPolicies"]] == [VIEW]
    eks.disassociate_access_policy(**IN, principalArn=ROLE, policyArn=VIEW)
    assert eks.list_associated_access_policies(**IN, principalArn=ROLE)["associatedAccessPolicies"] == []
    assert code_of(eks.disassociate_access_policy, **IN, principalArn=ROLE, policyArn=VIEW) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "params", [{"principalArn": "KarpenterNodeRole"}, {"principalArn": ROLE, "type": "NODE"}, {"principalArn": ROLE, "type": "EC2_LINUX", "username": "me"}]
)
def test_bad_access_entries(eks, params):
    assert code_of(eks.create_access_entry, **IN, **params) == "InvalidParameterException"


def test_a_cluster_with_a_config_map_only_refuses_access_entries(eks, aws):
    aws.control.cluster(authentication_mode="CONFIG_MAP")
    assert code_of(eks.list_access_entries, **IN) == "InvalidRequestException"
    assert eks.describe_cluster(name="demo")["cluster"]["accessConfig"]["authenticationMode"] == "CONFIG_MAP"


def test_pod_identity_associations(eks):
    subject = {"namespace": "kube-system", "serviceAccount": "karpenter"}
    made = eks.create_pod_identity_association(**IN, **subject, roleArn=ROLE, tags={"a": "1"})["association"]
    ident = made["associationId"]
    assert ident.startswith("a-")
    assert (made["disableSessionTags"], made["tags"]) == (False, {"a": "1"})
    assert code_of(eks.create_pod_identity_association, **IN, **subject, roleArn=ROLE) == "ResourceInUseException"
    assert code_of(eks.create_pod_identity_association, **IN, namespace="a", serviceAccount="b", roleArn="x") == "InvalidParameterException"
    summary = eks.list_pod_identity_associations(**IN, **subject)["associations"]
    assert summary == [{**IN, **subject, "associationArn": made["associationArn"], "associationId": ident}]
    assert eks.list_pod_identity_associations(**IN, namespace="other")["associations"] == []
    other = ROLE + "-2"
    assert eks.update_pod_identity_association(**IN, associationId=ident, roleArn=other)["association"]["roleArn"] == other
    assert eks.describe_pod_identity_association(**IN, associationId=ident)["association"]["roleArn"] == other
    eks.delete_pod_identity_association(**IN, associationId=ident)
    assert eks.list_pod_identity_associations(**IN)["associations"] == []
    assert code_of(eks.delete_pod_identity_association, **IN, associationId=ident) == "ResourceNotFoundException"


def test_lists_come_in_pages(eks):
    for i in range(5):
        eks.create_pod_identity_association(**IN, namespace="n", serviceAccount=f"s{i}", roleArn=ROLE)
    pages = list(eks.get_paginator("list_pod_identity_associations").paginate(**IN, PaginationConfig={"PageSize": 2}))
    assert [len(p["associations"]) for p in pages] == [2, 2, 1]


def test_there_are_no_addons(eks):
    assert eks.list_addons(**IN)["addons"] == []
    assert code_of(eks.list_addons, clusterName="absent") == "ResourceNotFoundException"


def test_extras_go_with_their_cluster(eks, aws):
    eks.create_access_entry(**IN, principalArn=ROLE)
    before = eks.describe_cluster(name="demo")["cluster"]
    eks.delete_cluster(name="demo")
    eks.create_cluster(name="demo", roleArn=before["roleArn"], version="1.36", resourcesVpcConfig={"subnetIds": before["resourcesVpcConfig"]["subnetIds"]})
    assert eks.list_access_entries(**IN)["accessEntries"] == []
