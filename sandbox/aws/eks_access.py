# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: access entries with their policies, and pod identity associations."""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any

from moto.eks.models import Cluster

from sandbox.aws.api import Call, answers, page
from sandbox.aws.eks_cluster import arn, authentication_mode, eks_error, extras, find_cluster, invalid, now
from sandbox.aws.state import ACCOUNT

TYPES = ("STANDARD", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "EC2", "HYBRID_LINUX", "HYPERPOD_LINUX")
# Types for nodes have the user name and groups that EKS gives them; only standard and EC2 (Auto Mode) entries take policies.
NODE_USERNAME = "system:node:{{EC2PrivateDNSName}}"
NODE_GROUPS = {
    "EC2_LINUX": ["system:nodes"],
    "EC2_WINDOWS": ["system:nodes", "eks:kube-proxy-windows"],
    "FARGATE_LINUX": [],
    "HYBRID_LINUX": ["system:nodes"],
    "HYPERPOD_LINUX": ["system:nodes"],
    "EC2": ["system:nodes"],
}
PRINCIPAL = re.compile(r"^arn:aws[a-z-]*:iam::\d{12}:(role|user)/.+$")
POLICY = re.compile(r"^arn:aws[a-z-]*:eks::aws:cluster-access-policy/\w+$")


@dataclass
class AccessEntry:
    """An access entry in the API's shape and its associated policies by ARN."""

    body: dict[str, Any]
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)


def make_entry(
    call: Call,
    cluster: Cluster,
    principal: str,
    kind: str = "STANDARD",
    username: str | None = None,
    groups: list[str] | None = None,
    tags: dict[str, str] | None = None,
) -> AccessEntry:
    """Store a new access entry with EKS' defaults."""
    stamp = now()
    role = principal.split(":")[-1]
    if username is None:
        username = NODE_USERNAME if kind != "STANDARD" else principal
        if kind == "STANDARD" and role.startswith("role/"):
            username = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role.rsplit('/', 1)[-1]}/{{{{SessionName}}}}"
    entry = AccessEntry(
        {
            "clusterName": cluster.name,
            "principalArn": principal,
            "kubernetesGroups": groups if groups is not None else NODE_GROUPS.get(kind, []),
            "accessEntryArn": arn(call, "access-entry", cluster.name, role.split("/")[0], ACCOUNT, role.rsplit("/", 1)[-1], str(uuid.uuid4())),
            "createdAt": stamp,
            "modifiedAt": stamp,
            "tags": tags or {},
            "username": username,
            "type": kind,
        }
    )
    extras(cluster).access_entries[principal] = entry
    return entry


def _cluster(call: Call, params: dict[str, Any]) -> Cluster:
    cluster = find_cluster(call, params["clusterName"])
    if authentication_mode(cluster) == "CONFIG_MAP":
        text = "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation."
        raise eks_error("InvalidRequestException", text, clusterName=cluster.name)
    return cluster


def _entry(call: Call, params: dict[str, Any]) -> AccessEntry:
    cluster = _cluster(call, params)
    principal = params["principalArn"]
    entry = extras(cluster).access_entries.get(principal)
    if entry is None:
        raise eks_error("ResourceNotFoundException", f"The specified principalArn could not be found: {principal}.", clusterName=cluster.name)
    return entry


@answers("eks", "CreateAccessEntry")
def create_access_entry(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster = _cluster(call, params)
    principal, kind = params["principalArn"], params.get("type", "STANDARD").upper()
    if not PRINCIPAL.match(principal):
        raise invalid(f"The principalArn parameter format is not valid: {principal}", clusterName=cluster.name)
    if kind not in TYPES:
        raise invalid(f"The type {kind} is not valid; supported types: {', '.join(TYPES)}", clusterName=cluster.name)
    if kind != "STANDARD" and (params.get("username") or params.get("kubernetesGroups")):
        raise invalid(f"Username and Kubernetes groups cannot be set for an access entry of type {kind}.", clusterName=cluster.name)
    if principal in extras(cluster).access_entries:
        raise eks_error("ResourceInUseException", "The specified access entry resource is already in use on this cluster.", clusterName=cluster.name)
    entry = make_entry(call, cluster, principal, kind, params.get("username"), params.get("kubernetesGroups"), params.get("tags"))
    return {"accessEntry": entry.body}


@answers("eks", "DescribeAccessEntry")
def describe_access_entry(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    return {"accessEntry": _entry(call, params).body}


@answers("eks", "ListAccessEntries")
def list_access_entries(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    entries = extras(_cluster(call, params)).access_entries
    policy = params.get("associatedPolicyArn")
    items, token = page([p for p, e in entries.items() if not policy or policy in e.policies], params)
    return {"accessEntries": items, "nextToken": token}


@answers("eks", "UpdateAccessEntry")
def update_access_entry(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    body = _entry(call, params).body
    if body["type"] != "STANDARD":
        raise invalid(f"An access entry of type {body['type']} cannot be updated.", clusterName=body["clusterName"])
    body.update({k: params[k] for k in ("kubernetesGroups", "username") if k in params}, modifiedAt=now())
    return {"accessEntry": body}


@answers("eks", "DeleteAccessEntry")
def delete_access_entry(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    _entry(call, params)
    del extras(_cluster(call, params)).access_entries[params["principalArn"]]
    return {}


@answers("eks", "AssociateAccessPolicy")
def associate_access_policy(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    entry = _entry(call, params)
    policy, scope = params["policyArn"], params["accessScope"]
    if entry.body["type"] not in ("STANDARD", "EC2"):
        raise invalid(f"Access policies cannot be associated with an access entry of type {entry.body['type']}.", clusterName=params["clusterName"])
    if not POLICY.match(policy):
        raise invalid(f"The policyArn parameter format is not valid: {policy}", clusterName=params["clusterName"])
    if scope.get("type") == "namespace" and not scope.get("namespaces"):
        raise invalid("Namespaces must be given for an access scope of type namespace.", clusterName=params["clusterName"])
    first = entry.policies.get(policy, {}).get("associatedAt", now())
    entry.policies[policy] = {
        "policyArn": policy,
        "accessScope": {"type": scope["type"], "namespaces": scope.get("namespaces", [])},
        "associatedAt": first,
        "modifiedAt": now(),
    }
    return {"clusterName": params["clusterName"], "principalArn": params["principalArn"], "associatedAccessPolicy": entry.policies[policy]}


@answers("eks", "DisassociateAccessPolicy")
def disassociate_access_policy(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    if _entry(call, params).policies.pop(params["policyArn"], None) is None:
        raise eks_error("ResourceNotFoundException", f"The specified policyArn is not associated: {params['policyArn']}", clusterName=params["clusterName"])
    return {}


@answers("eks", "ListAssociatedAccessPolicies")
def list_associated_access_policies(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    items, token = page(list(_entry(call, params).policies.values()), params)
    return {"clusterName": params["clusterName"], "principalArn": params["principalArn"], "associatedAccessPolicies": items, "nextToken": token}


def _association(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    body = extras(find_cluster(call, params["clusterName"])).associations.get(params["associationId"])
    if body is None:
        raise eks_error("ResourceNotFoundException", f"Unable to find association {params['associationId']}", clusterName=params["clusterName"])
    return body


def _check_role(role: str, cluster: str) -> None:
    if not PRINCIPAL.match(role):
        raise invalid(f"Role ARN is not valid: {role}", clusterName=cluster)


@answers("eks", "CreatePodIdentityAssociation")
def create_pod_identity_association(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster = find_cluster(call, params["clusterName"])
    associations = extras(cluster).associations
    for role in (params["roleArn"], params.get("targetRoleArn")):
        if role:
            _check_role(role, cluster.name)
    subject = (params["namespace"], params["serviceAccount"])
    if any((a["namespace"], a["serviceAccount"]) == subject for a in associations.values()):
        raise eks_error("ResourceInUseException", f"Association already exists: {subject[0]}/{subject[1]}", clusterName=cluster.name)
    stamp, ident = now(), "a-" + secrets.token_hex(8)
    optional = {k: params[k] for k in ("targetRoleArn", "policy") if k in params}
    if "targetRoleArn" in optional:
        optional["externalId"] = str(uuid.uuid4())
    associations[ident] = {
        "clusterName": cluster.name,
        "namespace": subject[0],
        "serviceAccount": subject[1],
        "roleArn": params["roleArn"],
        "associationArn": arn(call, "podidentityassociation", cluster.name, ident),
        "associationId": ident,
        "tags": params.get("tags", {}),
        "createdAt": stamp,
        "modifiedAt": stamp,
        "disableSessionTags": params.get("disableSessionTags", False),
        **optional,
    }
    return {"association": associations[ident]}


@answers("eks", "DescribePodIdentityAssociation")
def describe_pod_identity_association(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    return {"association": _association(call, params)}


@answers("eks", "ListPodIdentityAssociations")
def list_pod_identity_associations(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {k: a[k] for k in ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")}
        for a in extras(find_cluster(call, params["clusterName"])).associations.values()
        if all(a[k] == params[k] for k in ("namespace", "serviceAccount") if k in params)
    ]
    items, token = page(rows, params)
    return {"associations": items, "nextToken": token}


@answers("eks", "UpdatePodIdentityAssociation")
def update_pod_identity_association(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    body = _association(call, params)
    if "roleArn" in params:
        _check_role(params["roleArn"], body["clusterName"])
    body.update({k: params[k] for k in ("roleArn", "targetRoleArn", "disableSessionTags", "policy") if k in params}, modifiedAt=now())
    return {"association": body}


@answers("eks", "DeletePodIdentityAssociation")
def delete_pod_identity_association(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    body = _association(call, params)
    del extras(find_cluster(call, params["clusterName"])).associations[body["associationId"]]
    return {"association": body}
