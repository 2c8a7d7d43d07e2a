# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: what a node group request may say, and what EKS fills in. Raises InvalidParameterException as EKS does, before anything is stored."""

from __future__ import annotations

import json
import re
from typing import Any

from botocore.model import ServiceModel
from moto.core.utils import get_service_model
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.eks.models import Cluster
from moto.iam.models import iam_backends

from sandbox.aws.api import Call
from sandbox.aws.eks_cluster import FACTS, VERSIONS, invalid, minor
from sandbox.aws.state import ACCOUNT

_MODEL: ServiceModel = get_service_model("eks")
AMI_TYPES = _MODEL.shape_for("AMITypes").enum
CAPACITY_TYPES = _MODEL.shape_for("CapacityTypes").enum
TAINT_EFFECTS = _MODEL.shape_for("TaintEffect").enum
# The first minor version for which EKS has no Amazon Linux 2 image.
NO_AL2 = (1, 33)
OLDEST_SKEW = 3


def one_of(name: str, value: str | None, allowed: list[str]) -> None:
    if value is not None and value not in allowed:
        raise invalid(f"{name}: '{value}' is not one of {', '.join(allowed)}")


def scaling(config: dict[str, int]) -> None:
    """minSize <= desiredSize <= maxSize, maxSize at least 1."""
    low, want, high = config["minSize"], config["desiredSize"], config["maxSize"]
    if high < 1:
        raise invalid("maxSize must be at least 1")
    if low > high:
        raise invalid(f"Minimum capacity {low} can't be greater than max size {high}")
    if not low <= want <= high:
        raise invalid(f"desired capacity {want} can't be lower than min size {low} or greater than max size {high}")


def update_config(config: dict[str, Any]) -> dict[str, Any]:
    """The whole updateConfig: EKS replaces one node at a time unless told otherwise."""
    if {"maxUnavailable", "maxUnavailablePercentage"} <= set(config):
        raise invalid("Only one of maxUnavailable and maxUnavailablePercentage can be set")
    limit = {k: config[k] for k in ("maxUnavailable", "maxUnavailablePercentage") if k in config} or {"maxUnavailable": 1}
    return {**limit, "updateStrategy": config.get("updateStrategy", "DEFAULT")}


def node_repair(config: dict[str, Any]) -> None:
    for pair in ("maxUnhealthyNodeThreshold", "maxParallelNodesRepaired"):
        if {f"{pair}Count", f"{pair}Percentage"} <= set(config):
            raise invalid(f"Only one of {pair}Count and {pair}Percentage can be set")
    for override in config.get("nodeRepairConfigOverrides", []):
        missing = {"nodeMonitoringCondition", "nodeUnhealthyReason", "minRepairWaitTimeMins", "repairAction"} - set(override)
        if missing:
            raise invalid(f"nodeRepairConfigOverrides: {', '.join(sorted(missing))} must be specified")


def taints(items: list[dict[str, str]]) -> None:
    for taint in items:
        one_of("taint effect", taint.get("effect"), TAINT_EFFECTS)
        if not taint.get("key"):
            raise invalid("Taint key must be specified")


def version(cluster: Cluster, wanted: str | None) -> str:
    """The Kubernetes minor version of the nodes: not newer than the cluster, at most three older."""
    wanted = wanted or cluster.version
    behind = minor(cluster.version)[1] - minor(wanted)[1]
    if wanted not in VERSIONS or not 0 <= behind <= OLDEST_SKEW:
        raise invalid(f"Requested Nodegroup Kubernetes version {wanted} is not valid for cluster version {cluster.version}")
    return wanted


def release(ami_type: str, kubernetes: str, wanted: str | None) -> str:
    """The AMI release: the latest unless given; Amazon Linux releases name the Kubernetes patch and a date, such as 1.36.2-20260714."""
    if ami_type.startswith("BOTTLEROCKET"):
        return wanted or f"{FACTS['bottlerocket_release']}-5b7b1f3a"
    if wanted and not re.fullmatch(re.escape(kubernetes) + r"\.\d+-\d{8}", wanted):
        raise invalid(f"Requested release version {wanted} is not valid for kubernetes version {kubernetes}.")
    return wanted or f"{VERSIONS[kubernetes]['patch']}-{FACTS['ami_release']}"


def ami_type(cluster: Cluster, value: str) -> None:
    one_of("amiType", value, AMI_TYPES)
    if value.startswith("AL2_") and minor(cluster.version) >= NO_AL2:
        raise invalid(f"AMI Type {value} is only supported for kubernetes versions 1.32 or earlier")


def instance_types(types: list[str], image: str) -> None:
    unknown = [t for t in types if t not in INSTANCE_TYPES]
    if unknown:
        raise invalid(f"The following supplied instance types do not exist: {unknown}")
    want = "arm64" if "ARM_64" in image else "x86_64"
    wrong = [t for t in types if image != "CUSTOM" and want not in INSTANCE_TYPES[t]["ProcessorInfo"]["SupportedArchitectures"]]
    if wrong:
        raise invalid(f"{wrong} is not a valid instance type for requested amiType {image}")


def subnets(call: Call, ids: list[str]) -> None:
    known = {s.id for s in ec2_backends[ACCOUNT][call.region].describe_subnets()}
    missing = [s for s in ids if s not in known]
    if missing or not ids:
        raise invalid(f"The subnet ID '{missing[0]}' does not exist" if missing else "Subnets must be specified")


def node_role(role_arn: str) -> None:
    """The role exists and EC2 may assume it."""
    role = next((r for r in iam_backends[ACCOUNT]["aws"].roles.values() if r.arn == role_arn), None)
    if role is None:
        raise invalid(f"The role with name {role_arn.rsplit('/', 1)[-1]} cannot be found.")
    statements = json.loads(role.assume_role_policy_document or "{}").get("Statement", [])
    services = [s.get("Principal", {}).get("Service", []) for s in (statements if isinstance(statements, list) else [statements])]
    if "ec2.amazonaws.com" not in [name for s in services for name in (s if isinstance(s, list) else [s])]:
        raise invalid(f"Following required service principals [ec2.amazonaws.com] were not found in the trust relationships of nodeRole {role_arn}")


def launch_template(call: Call, given: dict[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """The template with id, name and a version number, and the data of that version."""
    ident, name = given.get("id"), given.get("name")
    if bool(ident) == bool(name):
        raise invalid("Launch template: exactly one of id and name must be specified")
    template = next((t for t in ec2_backends[ACCOUNT][call.region].launch_templates.values() if ident == t.id or name == t.name), None)
    if template is None:
        raise invalid(f"Launch template {ident or name} does not exist")
    number = {"$Latest": template.latest_version_number, "$Default": template.default_version_number}.get(
        given.get("version", "$Default"), given.get("version")
    )
    if not str(number).isdigit() or not 1 <= int(number) <= template.latest_version_number:
        raise invalid(f"Launch template {template.id} has no version {number}")
    data = template.versions[int(number) - 1].data
    for key, text in (("IamInstanceProfile", "IAM instance profile"), ("SubnetId", "subnet")):
        if data.get(key) or any(key in i for i in data.get("NetworkInterfaces", [])):
            raise invalid(f"Launch template {template.id} should not specify a {text}.")
    return {"id": template.id, "name": template.name, "version": str(number)}, data
