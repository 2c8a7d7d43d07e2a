# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: add-ons, as records only; no pod of an add-on runs anywhere."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from moto.eks.models import Cluster

from sandbox.aws.api import Call, answers, page
from sandbox.aws.eks_cluster import FACTS, VERSIONS, arn, eks_error, extras, find_cluster, invalid, now


@dataclass
class Addon:
    """An add-on in the API's shape; `since` (monotonic seconds) is when its transitional state began."""

    body: dict[str, Any]
    since: float


def _settled(call: Call, params: dict[str, Any]) -> tuple[Cluster, dict[str, Addon]]:
    cluster = find_cluster(call, params["clusterName"])
    addons = extras(cluster).addons
    for name, addon in list(addons.items()):
        if time.monotonic() - addon.since >= call.state.settle_seconds:
            if addon.body["status"] == "DELETING":
                del addons[name]
            else:
                addon.body["status"] = "ACTIVE"
    return cluster, addons


def _find(call: Call, params: dict[str, Any]) -> Addon:
    cluster, addons = _settled(call, params)
    name = params["addonName"]
    if name not in addons:
        raise eks_error("ResourceNotFoundException", f"No addon: {name} found in cluster: {cluster.name}", clusterName=cluster.name, addonName=name)
    return addons[name]


@answers("eks", "CreateAddon")
def create_addon(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster, addons = _settled(call, params)
    name = params["addonName"]
    if name not in FACTS["addons"]:
        raise invalid(f"Addon specified is not supported: {name}", clusterName=cluster.name, addonName=name)
    if name in addons:
        raise eks_error("ResourceInUseException", "Addon already exists.", clusterName=cluster.name, addonName=name)
    stamp, namespace = now(), params.get("namespaceConfig", {}).get("namespace", FACTS["addons"][name]["namespace"])
    optional = {k: params[k] for k in ("serviceAccountRoleArn", "configurationValues") if k in params}
    addons[name] = Addon(
        {
            "addonName": name,
            "clusterName": cluster.name,
            "status": "CREATING",
            "addonVersion": params.get("addonVersion", FACTS["addons"][name]["version"]),
            "health": {"issues": []},
            "addonArn": arn(call, "addon", cluster.name, name, str(uuid.uuid4())),
            "createdAt": stamp,
            "modifiedAt": stamp,
            "tags": params.get("tags", {}),
            "namespaceConfig": {"namespace": namespace},
            "publisher": "eks",
            "owner": "aws",
            **optional,
        },
        time.monotonic(),
    )
    return {"addon": addons[name].body}


@answers("eks", "DescribeAddon")
def describe_addon(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    return {"addon": _find(call, params).body}


@answers("eks", "ListAddons")
def list_addons(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    items, token = page(list(_settled(call, params)[1]), params)
    return {"addons": items, "nextToken": token}


@answers("eks", "DeleteAddon")
def delete_addon(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    addon = _find(call, params)
    addon.body.update(status="DELETING", modifiedAt=now())
    addon.since = time.monotonic()
    return {"addon": addon.body}


@answers("eks", "DescribeAddonVersions")
def describe_addon_versions(_call: Call, params: dict[str, Any]) -> dict[str, Any]:
    versions = [params["kubernetesVersion"]] if params.get("kubernetesVersion") else list(VERSIONS)
    rows = [
        {
            "addonName": name,
            "type": fact["type"],
            "publisher": "eks",
            "owner": "aws",
            "defaultNamespace": fact["namespace"],
            "addonVersions": [
                {
                    "addonVersion": fact["version"],
                    "architecture": ["amd64", "arm64"],
                    "computeTypes": ["ec2"],
                    "requiresConfiguration": False,
                    "compatibilities": [{"clusterVersion": v, "platformVersions": ["*"], "defaultVersion": True} for v in versions],
                }
            ],
        }
        for name, fact in FACTS["addons"].items()
        if name == params.get("addonName", name)
    ]
    items, token = page(rows, params)
    return {"addons": items, "nextToken": token}
