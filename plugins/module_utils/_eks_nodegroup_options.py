# SPDX-License-Identifier: GPL-3.0-or-later
"""eks_nodegroup: options checked against each other and turned into the API's shape. Pure: neither AWS nor Ansible. Private to this collection."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ._eks import tag_problems, tag_strings
from ._problems import problem

# Choices of the EKS API (botocore 1.44 service model, 2026-11) without Windows, on which no LLM server of this collection runs.
AMI_TYPES = (
    "AL2023_x86_64_NVIDIA",
    "AL2023_ARM_64_NVIDIA",
    "AL2023_x86_64_STANDARD",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NEURON",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64_NVIDIA_FIPS",
    "BOTTLEROCKET_ARM_64_NVIDIA_FIPS",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_x86_64_FIPS",
    "BOTTLEROCKET_ARM_64_FIPS",
    "CUSTOM",
)
# Accepted by the argument parser only to be refused with a reason.
DEAD_AMI_TYPES = ("AL2_x86_64", "AL2_x86_64_GPU", "AL2_ARM_64")
# Kubernetes patch version and date; Bottlerocket counts its releases differently.
AL2023_RELEASE = r"(1\.\d\d)\.\d+-\d{8}"
# The last figures of a closed line of images: awslabs/amazon-eks-ami README and CHANGELOG, read 2026-11.
AL2_END = "Amazon Linux 2, whose EKS images ended on 2025-11-26 with NVIDIA driver 570 (CUDA 12.8)"
EFFECTS = {"NoSchedule": "NO_SCHEDULE", "NoExecute": "NO_EXECUTE", "PreferNoSchedule": "PREFER_NO_SCHEDULE"}
MAX_LABEL, MAX_TAINT_VALUE, MAX_INSTANCE_TYPES = 63, 63, 20
REPAIR_PAIRS = (
    ("max_unhealthy_node_threshold_count", "max_unhealthy_node_threshold_percentage"),
    ("max_parallel_nodes_repaired_count", "max_parallel_nodes_repaired_percentage"),
)


def text(value: Any) -> str:
    """Labels and taint values as Kubernetes writes them: a YAML true becomes "true", not Python's "True"."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check(params: dict[str, Any]) -> list[dict[str, str]]:
    """Problem rows of the module's parameters, for state present."""
    return [
        *_images(params),
        *_template(params),
        *_scaling(params),
        *_labels(params),
        *_taints(params),
        *_rollout(params),
        *_repair(params),
        *_identity(params),
        *tag_problems(params.get("tags")),
    ]


def wanted(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters in the shape of CreateNodegroup. Options that were not given are absent; a given {} or [] stays."""
    result: dict[str, Any] = {
        "amiType": params.get("ami_type"),
        "capacityType": params.get("capacity_type"),
        "instanceTypes": params.get("instance_types"),
        "subnets": params.get("subnets"),
        "nodeRole": params.get("node_role"),
        "diskSize": params.get("disk_size"),
        "version": params.get("version"),
        "releaseVersion": params.get("release_version"),
        "tags": tag_strings(params.get("tags")),
        "remoteAccess": _given(params.get("remote_access"), {"ec2_ssh_key": "ec2SshKey", "source_security_groups": "sourceSecurityGroups"}),
        "launchTemplate": _given(params.get("launch_template"), {"id": "id", "name": "name", "version": "version"}),
        "scalingConfig": _given(params.get("scaling"), {"min_size": "minSize", "max_size": "maxSize", "desired_size": "desiredSize"}),
        "updateConfig": _given(
            params.get("update_config"),
            {"max_unavailable": "maxUnavailable", "max_unavailable_percentage": "maxUnavailablePercentage", "update_strategy": "updateStrategy"},
        ),
        "nodeRepairConfig": _node_repair(params.get("node_repair")),
    }
    if params.get("labels") is not None:
        result["labels"] = {str(k): text(v) for k, v in params["labels"].items()}
    if params.get("taints") is not None:
        result["taints"] = [_taint(t) for t in params["taints"]]
    return {k: v for k, v in result.items() if v is not None}


def _given(options: dict[str, Any] | None, names: dict[str, str]) -> dict[str, Any] | None:
    return None if options is None else {api: options[name] for name, api in names.items() if options.get(name) is not None}


def _taint(taint: dict[str, Any]) -> dict[str, str]:
    return {"key": taint["key"], "value": text(taint.get("value")), "effect": EFFECTS.get(taint["effect"], taint["effect"])}


def _node_repair(options: dict[str, Any] | None) -> dict[str, Any] | None:
    if options is None:
        return None
    names = {"enabled": "enabled", **{name: _camel(name) for pair in REPAIR_PAIRS for name in pair}}
    result = _given(options, names)
    if options.get("overrides") is not None:
        result["nodeRepairConfigOverrides"] = [{_camel(k): v for k, v in o.items()} for o in options["overrides"]]
    return result


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _images(params: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    kind, version, release = params.get("ami_type"), params.get("version"), params.get("release_version")
    if kind in DEAD_AMI_TYPES:
        instead = {
            "AL2_x86_64_GPU": "AL2023_x86_64_NVIDIA or BOTTLEROCKET_x86_64_NVIDIA",
            "AL2_x86_64": "AL2023_x86_64_STANDARD",
            "AL2_ARM_64": "AL2023_ARM_64_STANDARD",
        }[kind]
        rows.append(
            problem(
                "ami_type",
                "ami_type",
                f"{kind}: {AL2_END}",
                "an image that is still made; current vLLM images (CUDA 13) need driver 580",
                f"set ami_type: {instead}, in a node group of a new name",
            )
        )
    if kind == "CUSTOM":
        if not params.get("launch_template"):
            rows.append(problem("ami_type", "ami_type", "CUSTOM without launch_template", "a launch template that names the AMI", "set launch_template"))
        if version or release:
            rows.append(
                problem(
                    "ami_type",
                    "version, release_version",
                    "set with ami_type CUSTOM",
                    "the AMI of the launch template alone",
                    "remove version and release_version; to update, change launch_template.version",
                )
            )
    if version and not re.fullmatch(r"1\.\d\d", version):
        rows.append(
            problem("version", "version", version, 'a Kubernetes minor version such as "1.36"', "quote it in YAML (1.30 without quotes is read as 1.3)")
        )
    elif version and release and re.fullmatch(AL2023_RELEASE, release) and not release.startswith(f"{version}."):
        rows.append(problem("release_version", "release_version", release, f"a release of Kubernetes {version}", "make version and release_version agree"))
    return rows


def _template(params: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    template, block = params.get("launch_template"), params.get("capacity_type") == "CAPACITY_BLOCK"
    for option in ("disk_size", "remote_access"):
        if template and params.get(option) is not None:
            rows.append(
                problem(
                    "launch_template",
                    option,
                    "set beside launch_template",
                    "only one of them (rule of the EKS API)",
                    f"put it into the launch template and remove {option}",
                )
            )
    if block and not template:
        rows.append(
            problem(
                "capacity_block",
                "capacity_type",
                "CAPACITY_BLOCK without launch_template",
                "a launch template with market type capacity-block, the capacity reservation and the instance type",
                "set launch_template",
            )
        )
    if block and params.get("instance_types"):
        rows.append(
            problem(
                "capacity_block",
                "instance_types",
                "set with capacity_type CAPACITY_BLOCK",
                "the instance type inside the launch template",
                "remove instance_types",
            )
        )
    if len(params.get("instance_types") or []) > MAX_INSTANCE_TYPES:
        rows.append(problem("instance_types", "instance_types", f"{len(params['instance_types'])} types", f"at most {MAX_INSTANCE_TYPES}", "shorten the list"))
    if params.get("instance_types") == [] or params.get("subnets") == []:
        option = "subnets" if params.get("subnets") == [] else "instance_types"
        rows.append(problem(option, option, "an empty list", "at least one, or the option left out", f"fill or remove {option}"))
    if params.get("disk_size") is not None and params["disk_size"] < 1:
        rows.append(problem("disk_size", "disk_size", params["disk_size"], "at least 1 GiB", "set the size in GiB"))
    return rows


def _scaling(params: dict[str, Any]) -> list[dict[str, str]]:
    scaling = params.get("scaling")
    if not scaling:
        return []
    low, high, first = scaling["min_size"], scaling["max_size"], scaling.get("desired_size")
    rows = []
    if low < 0 or high < 1:
        rows.append(problem("scaling", "scaling", f"min_size {low}, max_size {high}", "min_size of at least 0, max_size of at least 1", "correct the sizes"))
    if low > high:
        rows.append(problem("scaling", "scaling", f"min_size {low} above max_size {high}", "min_size <= max_size", "raise max_size or lower min_size"))
    elif first is not None and not low <= first <= high:
        rows.append(problem("scaling", "scaling.desired_size", first, f"{low} to {high}", "set it between min_size and max_size, or leave it out"))
    return rows


def _labels(params: dict[str, Any]) -> list[dict[str, str]]:
    return [
        problem(
            "labels",
            f"labels[{key}]",
            f"key of {len(str(key))} and value of {len(text(value))} characters",
            f"1 to {MAX_LABEL} characters each (EKS takes no empty label value)",
            "change the label",
        )
        for key, value in (params.get("labels") or {}).items()
        if not (0 < len(str(key)) <= MAX_LABEL and 0 < len(text(value)) <= MAX_LABEL)
    ]


def _taints(params: dict[str, Any]) -> list[dict[str, str]]:
    taints = [_taint(t) for t in params.get("taints") or []]
    rows = [
        problem(
            "taints",
            f"taints[{t['key']}]",
            f"key of {len(t['key'])} and value of {len(t['value'])} characters",
            f"key of 1 to {MAX_LABEL}, value of at most {MAX_TAINT_VALUE} characters",
            "shorten them",
        )
        for t in taints
        if not 0 < len(t["key"]) <= MAX_LABEL or len(t["value"]) > MAX_TAINT_VALUE
    ]
    for (key, effect), count in Counter((t["key"], t["effect"]) for t in taints).items():
        if count > 1:
            rows.append(problem("taints", f"taints[{key}]", f"{count} taints with effect {effect}", "one for each key and effect", "remove the others"))
    return rows


def _rollout(params: dict[str, Any]) -> list[dict[str, str]]:
    options = params.get("update_config") or {}
    count, share = options.get("max_unavailable"), options.get("max_unavailable_percentage")
    rows = []
    if count is not None and not 1 <= count <= 100:
        rows.append(problem("update_config", "update_config.max_unavailable", count, "1 to 100 nodes", "correct it"))
    if share is not None and not 1 <= share <= 100:
        rows.append(problem("update_config", "update_config.max_unavailable_percentage", share, "1 to 100 percent", "correct it"))
    return rows


def _repair(params: dict[str, Any]) -> list[dict[str, str]]:
    options = params.get("node_repair") or {}
    rows = []
    for pair in REPAIR_PAIRS:
        for name in pair:
            value, top = options.get(name), 100 if name.endswith("percentage") else None
            if value is not None and (value < 1 or (top and value > top)):
                rows.append(problem("node_repair", f"node_repair.{name}", value, f"1 to {top} percent" if top else "at least 1", "correct it"))
    for override in options.get("overrides") or []:
        if override["min_repair_wait_time_mins"] < 1:
            rows.append(
                problem(
                    "node_repair", "node_repair.overrides[].min_repair_wait_time_mins", override["min_repair_wait_time_mins"], "at least 1 minute", "correct it"
                )
            )
    return rows


def _identity(params: dict[str, Any]) -> list[dict[str, str]]:
    role = params.get("node_role")
    if role and not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/.+", role):
        return [problem("node_role", "node_role", role, "the ARN of an IAM role, arn:aws:iam::ACCOUNT:role/NAME", "give the role's ARN")]
    return []
