# SPDX-License-Identifier: GPL-3.0-or-later
"""What eks_access_entry and eks_pod_identity_association decide: options in, calls out. No AWS."""

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _eks_access_entry as entry
from ansible_collections.llmops.eks.plugins.module_utils import _eks_pod_identity as identity
from ansible_collections.llmops.eks.plugins.module_utils._eks import Call

PRINCIPAL = "arn:aws:iam::123456789012:role/team"
IDENT = {"clusterName": "demo", "principalArn": PRINCIPAL}
ARN = "arn:aws:eks:us-east-1:123456789012:access-entry/demo/role/1"
ENTRY = {**IDENT, "accessEntryArn": ARN, "type": "STANDARD", "kubernetesGroups": ["b", "a"], "username": PRINCIPAL, "tags": {"Team": "ML"}}
ADMIN, EDIT = (f"arn:aws:eks::aws:cluster-access-policy/AmazonEKS{name}Policy" for name in ("ClusterAdmin", "Edit"))
POLICIES = {EDIT: {"type": "namespace", "namespaces": ["x", "y"]}}

ASSOCIATION = {
    "clusterName": "demo",
    "namespace": "llm",
    "serviceAccount": "vllm",
    "associationId": "a-1",
    "associationArn": "arn:pia",
    "roleArn": PRINCIPAL,
    "tags": {},
}


def plan_entry(live=ENTRY, purge_policies=True, **params):
    return entry.plan_present(live, POLICIES if live else {}, entry.wanted({"cluster_name": "demo", "principal_arn": PRINCIPAL, **params}), purge_policies)


def edit(*namespaces):
    return {"policy_arn": "AmazonEKSEditPolicy", "scope": {"type": "namespace", "namespaces": list(namespaces)}}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"type": "STANDARD"},
        {"kubernetes_groups": ["a", "b"]},
        {"username": PRINCIPAL},
        {"policies": [edit("y", "x")]},
        {"tags": {"Team": "ML"}},
    ],
)
def test_equal_entry_is_unchanged(params):
    assert plan_entry(**params).calls == []


@pytest.mark.parametrize(
    ("params", "calls"),
    [
        ({"kubernetes_groups": []}, [Call("UpdateAccessEntry", {**IDENT, "kubernetesGroups": []})]),
        ({"username": "me"}, [Call("UpdateAccessEntry", {**IDENT, "username": "me"})]),
        ({"policies": [edit("x")]}, [Call("AssociateAccessPolicy", {**IDENT, "policyArn": EDIT, "accessScope": {"type": "namespace", "namespaces": ["x"]}})]),
        ({"policies": []}, [Call("DisassociateAccessPolicy", {**IDENT, "policyArn": EDIT})]),
        (
            {"policies": [{"policy_arn": ADMIN}]},
            [
                Call("AssociateAccessPolicy", {**IDENT, "policyArn": ADMIN, "accessScope": {"type": "cluster"}}),
                Call("DisassociateAccessPolicy", {**IDENT, "policyArn": EDIT}),
            ],
        ),
        ({"policies": [], "purge_policies": False}, []),
        ({"tags": {}}, [Call("UntagResource", {"resourceArn": ARN, "tagKeys": ["Team"]})]),
    ],
)
def test_only_the_difference_of_an_entry_is_called(params, calls):
    assert plan_entry(**params).calls == calls


def test_creation_of_an_entry_with_policies():
    plan = plan_entry(None, type="STANDARD", kubernetes_groups=[], policies=[{"policy_arn": ADMIN}], tags={"A": 1})
    assert plan.calls == [
        Call("CreateAccessEntry", {**IDENT, "type": "STANDARD", "tags": {"A": "1"}}),
        Call("AssociateAccessPolicy", {**IDENT, "policyArn": ADMIN, "accessScope": {"type": "cluster"}}),
    ]
    assert entry.shown(plan.after)["policies"] == [{"policyArn": ADMIN, "accessScope": {"type": "cluster"}}]


def test_type_is_immutable():
    (row,) = plan_entry(type="EC2_LINUX").problems
    assert (row["subject"], row["found"], row["needed"]) == ("type", "STANDARD", "EC2_LINUX")
    assert "state: absent" in row["fix"]


@pytest.mark.parametrize(
    ("params", "subject"),
    [
        ({"principal_arn": "arn:aws:sts::123456789012:assumed-role/team/me"}, "principal_arn"),
        ({"principal_arn": "team"}, "principal_arn"),
        ({"type": "EC2_LINUX", "kubernetes_groups": ["a"]}, "kubernetes_groups, username"),
        ({"type": "EC2_LINUX", "policies": [{"policy_arn": ADMIN}]}, "policies"),
        ({"kubernetes_groups": ["system:masters"]}, "kubernetes_groups"),
        ({"username": "eks:me"}, "username"),
        ({"policies": [{"policy_arn": ADMIN}, {"policy_arn": "AmazonEKSClusterAdminPolicy"}]}, "policies"),
        ({"policies": [{"policy_arn": ADMIN, "scope": {"type": "namespace"}}]}, f"policies[{ADMIN}].scope"),
        ({"policies": [{"policy_arn": ADMIN, "scope": {"type": "cluster", "namespaces": ["x"]}}]}, f"policies[{ADMIN}].scope"),
        ({"tags": {"aws:x": "y"}}, "tags[aws:x]"),
    ],
)
def test_bad_entries_are_refused(params, subject):
    (row,) = entry.check({"principal_arn": PRINCIPAL, **params})
    assert row["subject"] == subject


def test_good_entries_are_not():
    assert entry.check({"principal_arn": PRINCIPAL, "type": "EC2", "policies": [{"policy_arn": "AmazonEKSAutoNodePolicy"}]}) == []


def test_policy_names_follow_the_partition():
    gov = entry.wanted({"cluster_name": "c", "principal_arn": "arn:aws-us-gov:iam::123456789012:role/x", "policies": [{"policy_arn": "AmazonEKSViewPolicy"}]})
    assert list(gov["policies"]) == ["arn:aws-us-gov:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"]


def plan_identity(live=ASSOCIATION, **params):
    return identity.plan_present(live, identity.wanted({"cluster_name": "demo", "namespace": "llm", "service_account": "vllm", **params}))


@pytest.mark.parametrize(
    ("params", "calls"),
    [
        ({"role_arn": PRINCIPAL, "disable_session_tags": False, "tags": {}}, []),
        ({}, []),
        ({"role_arn": "other"}, [Call("UpdatePodIdentityAssociation", {"clusterName": "demo", "associationId": "a-1", "roleArn": "other"})]),
        ({"disable_session_tags": True}, [Call("UpdatePodIdentityAssociation", {"clusterName": "demo", "associationId": "a-1", "disableSessionTags": True})]),
        ({"target_role_arn": "far"}, [Call("UpdatePodIdentityAssociation", {"clusterName": "demo", "associationId": "a-1", "targetRoleArn": "far"})]),
        ({"tags": {"a.B": 1}}, [Call("TagResource", {"resourceArn": "arn:pia", "tags": {"a.B": "1"}})]),
    ],
)
def test_only_the_difference_of_an_association_is_called(params, calls):
    assert plan_identity(**params).calls == calls


def test_an_association_needs_a_role_to_begin_with():
    assert plan_identity(None).problems[0]["subject"] == "role_arn"
    assert plan_identity(None, role_arn=PRINCIPAL, tags={}).calls == [
        Call("CreatePodIdentityAssociation", {"clusterName": "demo", "namespace": "llm", "serviceAccount": "vllm", "roleArn": PRINCIPAL})
    ]


def test_absent_association():
    assert identity.plan_absent(None).calls == []
    delete = [Call("DeletePodIdentityAssociation", {"clusterName": "demo", "associationId": "a-1"})]
    for plan in (identity.plan_absent(ASSOCIATION), identity.plan_absent(ASSOCIATION, PRINCIPAL)):
        assert (plan.calls, bool(plan.before), plan.after) == (delete, True, {})


def test_an_association_with_another_role_than_the_named_one_stays():
    plan = identity.plan_absent(ASSOCIATION, "arn:aws:iam::123456789012:role/other")
    assert (plan.calls, plan.before, plan.after) == ([], identity.managed(ASSOCIATION), identity.managed(ASSOCIATION))
    assert identity.plan_absent(None, PRINCIPAL).calls == []


@pytest.mark.parametrize("params", [{"role_arn": "vllm"}, {"role_arn": PRINCIPAL, "target_role_arn": ""}, {"tags": {"aws:x": 1}}])
def test_bad_associations_are_refused(params):
    assert len(identity.check(params)) == 1
