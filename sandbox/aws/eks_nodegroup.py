# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: managed node groups. They replace moto's in the same place (cluster.nodegroups), so moto still refuses to delete a cluster that has some."""

from __future__ import annotations

import time
import uuid
from typing import Any

from moto.eks.models import Cluster

from sandbox.aws import eks_nodegroup_rules as rules
from sandbox.aws.api import Call, answers, page
from sandbox.aws.eks_access import make_entry
from sandbox.aws.eks_cluster import arn, authentication_mode, eks_error, extras, find_cluster, invalid, minor, now
from sandbox.aws.eks_update import Nodegroup, settle, start_update


def _cluster(call: Call, name: str) -> Cluster:
    cluster = find_cluster(call, name)
    settle(call.state, cluster)
    return cluster


def _find(call: Call, params: dict[str, Any]) -> tuple[Cluster, Nodegroup]:
    cluster = _cluster(call, params["clusterName"])
    name = params["nodegroupName"]
    if name not in cluster.nodegroups:
        raise eks_error("ResourceNotFoundException", f"No node group found for name: {name}.", clusterName=cluster.name, nodegroupName=name)
    return cluster, cluster.nodegroups[name]


def _in_use(group: Nodegroup, what: str) -> None:
    if group.status in ("CREATING", "UPDATING", "DELETING"):
        raise eks_error(
            "ResourceInUseException",
            f"Nodegroup cannot be {what} as it is currently not in Active State (it is {group.status})",
            clusterName=group.body["clusterName"],
            nodegroupName=group.body["nodegroupName"],
        )


@answers("eks", "CreateNodegroup")
def create_nodegroup(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster = _cluster(call, params["clusterName"])
    name = params["nodegroupName"]
    if name in cluster.nodegroups:
        raise eks_error(
            "ResourceInUseException", f"NodeGroup already exists with name {name} and cluster name {cluster.name}", clusterName=cluster.name, nodegroupName=name
        )
    body = _described(call, cluster, params)
    cluster.nodegroups[name] = group = Nodegroup(body, time.monotonic())
    cluster.nodegroup_count = len(cluster.nodegroups)
    if authentication_mode(cluster) != "CONFIG_MAP" and body["nodeRole"] not in extras(cluster).access_entries:
        make_entry(call, cluster, body["nodeRole"], "EC2_LINUX")
    return {"nodegroup": group.body}


def _described(call: Call, cluster: Cluster, params: dict[str, Any]) -> dict[str, Any]:
    """Check a creation and return the node group as DescribeNodegroup shows it."""
    template, data = rules.launch_template(call, params["launchTemplate"]) if params.get("launchTemplate") else (None, {})
    if template and (params.get("diskSize") or params.get("remoteAccess")):
        raise invalid("Disk size and remote access must be specified within the launch template.")
    types = params.get("instanceTypes", [])
    if types and data.get("InstanceType"):
        raise invalid("Instance types must be specified either in the launch template or in the request, not in both.")
    custom = bool(data.get("ImageId"))
    image = params.get("amiType") or ("CUSTOM" if custom else "AL2023_x86_64_STANDARD")
    rules.ami_type(cluster, image)
    if custom and (image != "CUSTOM" or params.get("version") or params.get("releaseVersion")):
        raise invalid("AMI type, version and release version cannot be specified with a launch template that names an AMI.")
    if image == "CUSTOM" and not custom:
        raise invalid("AMI type CUSTOM requires a launch template that names an AMI.")
    capacity = params.get("capacityType", "ON_DEMAND")
    rules.one_of("capacityType", capacity, rules.CAPACITY_TYPES)
    if capacity == "CAPACITY_BLOCK" and not (template and data.get("CapacityReservationSpecification")):
        raise invalid("capacityType CAPACITY_BLOCK requires a launch template that targets a capacity reservation.")
    size = params.get("scalingConfig") or {"minSize": 1, "maxSize": 2, "desiredSize": 2}
    if set(size) != {"minSize", "maxSize", "desiredSize"}:
        raise invalid("minSize, maxSize and desiredSize must all be specified")
    rules.scaling(size)
    if not types and not data.get("InstanceType"):
        types = ["t4g.medium" if "ARM_64" in image else "t3.medium"]
    rules.instance_types(types or [data["InstanceType"]], image)
    rules.subnets(call, params["subnets"])
    rules.node_role(params["nodeRole"])
    rules.taints(params.get("taints", []))
    rules.node_repair(params.get("nodeRepairConfig", {}))
    updates = rules.update_config(params.get("updateConfig", {}))
    version = rules.version(cluster, params.get("version"))
    ident, stamp = str(uuid.uuid4()), now()
    name = params["nodegroupName"]
    optional = {k: params[k] for k in ("taints", "remoteAccess", "nodeRepairConfig", "warmPoolConfig") if params.get(k)}
    if types:
        optional["instanceTypes"] = types
    if template:
        optional["launchTemplate"] = template
    else:
        optional["diskSize"] = params.get("diskSize", 20)
    if not custom:
        optional["version"] = version
    return {
        "nodegroupName": name,
        "nodegroupArn": arn(call, "nodegroup", cluster.name, name, ident),
        "clusterName": cluster.name,
        "releaseVersion": data["ImageId"] if custom else rules.release(image, version, params.get("releaseVersion")),
        "createdAt": stamp,
        "modifiedAt": stamp,
        "status": "CREATING",
        "capacityType": capacity,
        "scalingConfig": size,
        "subnets": params["subnets"],
        "amiType": image,
        "nodeRole": params["nodeRole"],
        "labels": params.get("labels", {}),
        "updateConfig": updates,
        "resources": {"autoScalingGroups": [{"name": f"eks-{name}-{ident}"}]},
        "health": {"issues": []},
        "tags": params.get("tags", {}),
        **optional,
    }


@answers("eks", "DescribeNodegroup")
def describe_nodegroup(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    return {"nodegroup": _find(call, params)[1].body}


@answers("eks", "ListNodegroups")
def list_nodegroups(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    items, token = page(list(_cluster(call, params["clusterName"]).nodegroups), params)
    return {"nodegroups": items, "nextToken": token}


@answers("eks", "DeleteNodegroup")
def delete_nodegroup(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    _, group = _find(call, params)
    _in_use(group, "deleted")
    group.enter("DELETING")
    return {"nodegroup": group.body}


@answers("eks", "UpdateNodegroupConfig")
def update_nodegroup_config(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster, group = _find(call, params)
    _in_use(group, "updated")
    body = group.body
    size = {**body["scalingConfig"], **params.get("scalingConfig", {})}
    rules.scaling(size)
    labels, taints = params.get("labels", {}), params.get("taints", {})
    rules.taints(taints.get("addOrUpdateTaints", []))
    rules.node_repair(params.get("nodeRepairConfig", {}))
    changed: dict[str, Any] = {"scalingConfig": size}
    if "updateConfig" in params:
        changed["updateConfig"] = rules.update_config(params["updateConfig"])
    changed.update({k: params[k] for k in ("nodeRepairConfig", "warmPoolConfig") if k in params})
    changed["labels"] = {k: v for k, v in {**body["labels"], **labels.get("addOrUpdateLabels", {})}.items() if k not in labels.get("removeLabels", [])}
    gone = [(t["key"], t["effect"]) for t in taints.get("removeTaints", []) + taints.get("addOrUpdateTaints", [])]
    kept = [t for t in body.get("taints", []) if (t["key"], t["effect"]) not in gone] + taints.get("addOrUpdateTaints", [])
    body.update(changed)
    body.pop("taints", None)
    if kept:
        body["taints"] = kept
    update = start_update(
        cluster,
        group,
        "ConfigUpdate",
        {
            "MinSize": params.get("scalingConfig", {}).get("minSize"),
            "MaxSize": params.get("scalingConfig", {}).get("maxSize"),
            "DesiredSize": params.get("scalingConfig", {}).get("desiredSize"),
            "LabelsToAdd": labels.get("addOrUpdateLabels"),
            "LabelsToRemove": labels.get("removeLabels"),
            "TaintsToAdd": taints.get("addOrUpdateTaints"),
            "TaintsToRemove": taints.get("removeTaints"),
            "MaxUnavailable": params.get("updateConfig", {}).get("maxUnavailable"),
            "MaxUnavailablePercentage": params.get("updateConfig", {}).get("maxUnavailablePercentage"),
            "UpdateStrategy": params.get("updateConfig", {}).get("updateStrategy"),
            "NodeRepairConfig": params.get("nodeRepairConfig"),
            "WarmPoolEnabled": params.get("warmPoolConfig", {}).get("enabled"),
        },
    )
    return {"update": update.body}


@answers("eks", "UpdateNodegroupVersion")
def update_nodegroup_version(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    cluster, group = _find(call, params)
    _in_use(group, "updated")
    body, result = group.body, {}
    if params.get("launchTemplate"):
        if "launchTemplate" not in body:
            raise invalid("A launch template cannot be added to a node group that was created without one.")
        template, data = rules.launch_template(call, params["launchTemplate"])
        if template["id"] != body["launchTemplate"]["id"]:
            raise invalid(f"The launch template of a node group cannot be changed from {body['launchTemplate']['id']} to {template['id']}.")
        result["launchTemplate"] = template
        if body["amiType"] == "CUSTOM":
            result["releaseVersion"] = data["ImageId"]
    if body["amiType"] == "CUSTOM":
        if params.get("version") or params.get("releaseVersion"):
            raise invalid("Version and release version cannot be updated for a node group with a custom AMI.")
    else:
        result["version"] = rules.version(cluster, params.get("version"))
        if minor(result["version"]) < minor(body["version"]):
            raise invalid(f"Nodegroup Kubernetes version cannot be downgraded from {body['version']} to {result['version']}")
        result["releaseVersion"] = rules.release(body["amiType"], result["version"], params.get("releaseVersion"))
    update = start_update(
        cluster,
        group,
        "VersionUpdate",
        {
            "Version": result.get("version"),
            "ReleaseVersion": result.get("releaseVersion"),
            "LaunchTemplateVersion": result.get("launchTemplate", {}).get("version"),
        },
        result,
    )
    return {"update": update.body}
