# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: finding moto's cluster, what we keep beside it, and tags of everything but clusters.

What is ours hangs on moto's Cluster object, so it goes when moto's cluster goes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from moto.eks.models import Cluster, eks_backends

from sandbox.aws.api import PASS_ON, AwsError, Call, answers, load
from sandbox.aws.state import ACCOUNT

FACTS = load("eks")
VERSIONS = {v["version"]: v for v in FACTS["versions"]}
AUTHENTICATION_MODES = ("API", "API_AND_CONFIG_MAP", "CONFIG_MAP")


@dataclass
class Extras:
    """What moto does not keep of a cluster; every dict maps a name, ARN or id to a resource."""

    access_entries: dict[str, Any] = field(default_factory=dict)
    associations: dict[str, Any] = field(default_factory=dict)
    updates: dict[str, Any] = field(default_factory=dict)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def eks_error(code: str, message: str, **members: str) -> AwsError:
    """An EKS error with the members that its shape has, such as clusterName."""
    error = AwsError(code, message)
    for name, value in members.items():
        setattr(error, name, value)
    return error


def invalid(message: str, **members: str) -> AwsError:
    return eks_error("InvalidParameterException", message, **members)


def find_cluster(call: Call, name: str) -> Cluster:
    cluster = eks_backends[ACCOUNT][call.region].clusters.get(name)
    if cluster is None:
        raise eks_error("ResourceNotFoundException", f"No cluster found for name: {name}.", clusterName=name)
    return cluster


def extras(cluster: Cluster) -> Extras:
    if not hasattr(cluster, "sandbox"):
        cluster.sandbox = Extras()
    return cluster.sandbox


def authentication_mode(cluster: Cluster) -> str:
    """The mode; a cluster that a test made through moto alone counts as API_AND_CONFIG_MAP."""
    return getattr(cluster, "access_config", {}).get("authenticationMode", "API_AND_CONFIG_MAP")


def minor(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    if not (major.isdigit() and rest.isdigit()):
        raise invalid(f"Invalid Kubernetes version: {version}")
    return int(major), int(rest)


def arn(call: Call, *path: str) -> str:
    return f"arn:aws:eks:{call.region}:{ACCOUNT}:{'/'.join(path)}"


def _taggable(call: Call, resource: str) -> dict[str, Any] | None:
    """The API body of the resource with this ARN, or None for a cluster, which moto keeps."""
    if resource.split(":")[-1].startswith("cluster/"):
        return None
    for cluster in eks_backends[ACCOUNT][call.region].clusters.values():
        own = extras(cluster)
        bodies = [g.body for g in cluster.nodegroups.values()]
        bodies += [e.body for e in own.access_entries.values()] + list(own.associations.values())
        for body in bodies:
            if resource in (body.get("nodegroupArn"), body.get("accessEntryArn"), body.get("associationArn")):
                return body
    raise eks_error("NotFoundException", f"No resource found for resourceArn: {resource}")


@answers("eks", "TagResource")
def tag_resource(call: Call, params: dict[str, Any]) -> Any:
    body = _taggable(call, params["resourceArn"])
    if body is None:
        return PASS_ON
    body["tags"] = {**body.get("tags", {}), **params["tags"]}
    return {}


@answers("eks", "UntagResource")
def untag_resource(call: Call, params: dict[str, Any]) -> Any:
    body = _taggable(call, params["resourceArn"])
    if body is None:
        return PASS_ON
    body["tags"] = {k: v for k, v in body.get("tags", {}).items() if k not in params["tagKeys"]}
    return {}


@answers("eks", "ListTagsForResource")
def list_tags_for_resource(call: Call, params: dict[str, Any]) -> Any:
    body = _taggable(call, params["resourceArn"])
    return PASS_ON if body is None else {"tags": body.get("tags", {})}
