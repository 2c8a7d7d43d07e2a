# SPDX-License-Identifier: GPL-3.0-or-later
"""eks_nodegroup: compare a node group with what is wanted and decide which calls to make. Pure: no AWS. Private to this collection.

Both sides are in the API's shape. The API leaves fields out that were never set; absent means the API's default.
"""

from __future__ import annotations

import re
from typing import Any

from ._eks import Call, Plan, plan_tags
from ._eks_nodegroup_options import AL2023_RELEASE
from ._problems import problem

MANAGED = (
    "amiType",
    "capacityType",
    "diskSize",
    "instanceTypes",
    "labels",
    "launchTemplate",
    "nodeRepairConfig",
    "nodeRole",
    "releaseVersion",
    "remoteAccess",
    "scalingConfig",
    "subnets",
    "tags",
    "taints",
    "updateConfig",
    "version",
)
# Fields that no call can change, with the option's name.
IMMUTABLE = {
    "amiType": "ami_type",
    "capacityType": "capacity_type",
    "instanceTypes": "instance_types",
    "subnets": "subnets",
    "nodeRole": "node_role",
    "diskSize": "disk_size",
    "remoteAccess": "remote_access",
}
REPLACE = "create a node group of another name and delete this one when it is drained, or delete this one first (state: absent)"
UNAVAILABLE = ("maxUnavailable", "maxUnavailablePercentage")
REPAIR_PAIRS = (
    ("maxUnhealthyNodeThresholdCount", "maxUnhealthyNodeThresholdPercentage"),
    ("maxParallelNodesRepairedCount", "maxParallelNodesRepairedPercentage"),
)


def plan_absent(live: dict[str, Any] | None, cluster: str, name: str) -> Plan:
    """Delete the group unless it is gone or going."""
    plan = Plan(before=managed(live))
    if live and live["status"] != "DELETING":
        plan.calls.append(Call("DeleteNodegroup", {"clusterName": cluster, "nodegroupName": name}))
    return plan


def plan_present(live: dict[str, Any] | None, want: dict[str, Any], cluster: str, name: str, purge_tags: bool = True, force: bool = False) -> Plan:
    """Create the group or change what differs.

    live: DescribeNodegroup's group or None. want: `_eks_nodegroup_options.wanted`, its launch template version resolved to a number.
    """
    ident = {"clusterName": cluster, "nodegroupName": name}
    if live is None:
        return _creation(want, ident)
    plan = Plan(before=managed(live), after=managed(live), problems=[*_immutable(live, want), *_impossible(live, want, name)])
    plan_tags(plan, live["nodegroupArn"], want.get("tags"), purge_tags)
    config = _config_changes(live, want, plan.after)
    if config:
        plan.calls.append(Call("UpdateNodegroupConfig", {**ident, **config}))
    version = _version_changes(live, want, plan.after)
    if version:
        plan.calls.append(Call("UpdateNodegroupVersion", {**ident, **version, **({"force": True} if force else {})}))
    return plan


def managed(live: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a group that options describe."""
    return {k: live[k] for k in MANAGED if live.get(k) is not None} if live else {}


def _creation(want: dict[str, Any], ident: dict[str, str]) -> Plan:
    params = {k: v for k, v in want.items() if v not in ({}, [])}
    if params.get("amiType") == "CUSTOM":
        del params["amiType"]  # the API derives it from the launch template's AMI and refuses to be told
    if "scalingConfig" in params:
        params["scalingConfig"] = {"desiredSize": params["scalingConfig"]["minSize"], **params["scalingConfig"]}
    if "updateConfig" in params and not set(UNAVAILABLE) & set(params["updateConfig"]):
        params["updateConfig"] = {"maxUnavailable": 1, **params["updateConfig"]}
    problems = [
        problem("required", option, "nothing", f"a value, because node group {ident['nodegroupName']} does not exist yet", f"set {option}")
        for key, option in (("nodeRole", "node_role"), ("subnets", "subnets"))
        if key not in params
    ]
    return Plan(calls=[Call("CreateNodegroup", {**ident, **params})], problems=problems, after={**params, **{k: want[k] for k in ("amiType",) if k in want}})


def _immutable(live: dict[str, Any], want: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    template = live.get("launchTemplate")
    for key, option in IMMUTABLE.items():
        found = live.get(key, {"capacityType": "ON_DEMAND", "remoteAccess": {}}.get(key))
        in_template = found is None and key == "diskSize" and template
        # What the API does not show, such as instance types that stand in a launch template, cannot be compared.
        if key not in want or (found is None and not in_template) or _comparable(found) == _comparable(want[key]):
            continue
        rows.append(
            problem(
                "immutable",
                option,
                "what the launch template says" if in_template else _shown(found),
                _shown(want[key]),
                f"EKS cannot change it: {REPLACE}; or set {option} back",
            )
        )
    wanted = want.get("launchTemplate")
    if wanted and not template:
        rows.append(problem("immutable", "launch_template", "none", wanted.get("id") or wanted.get("name"), f"EKS cannot add one: {REPLACE}"))
    for key in ("id", "name"):
        if wanted and template and key in wanted and wanted[key] != template.get(key):
            rows.append(problem("immutable", f"launch_template.{key}", template.get(key), wanted[key], f"EKS takes only another version of it: {REPLACE}"))
    return rows


def _comparable(value: Any) -> Any:
    """Order does not count in lists, also inside dicts."""
    if isinstance(value, list):
        return sorted(value)
    return {k: _comparable(v) for k, v in value.items() if v} if isinstance(value, dict) else value


def _shown(value: Any) -> str:
    return ", ".join(sorted(value)) if isinstance(value, list) else str(value or "none")


def _impossible(live: dict[str, Any], want: dict[str, Any], name: str) -> list[dict[str, str]]:
    if live["status"] in ("CREATE_FAILED", "DELETE_FAILED"):
        return [
            problem(
                "status",
                f"node group {name}",
                f"{live['status']}: {health(live) or 'EKS gives no reason'}",
                "a node group that works",
                "remove the cause, delete the node group (state: absent) and create it again",
            )
        ]
    if live.get("amiType") == "CUSTOM" and {"version", "releaseVersion"} & set(want):
        return [
            problem(
                "ami_type",
                "version, release_version",
                "set for a node group with a custom AMI",
                "the AMI of the launch template alone",
                "remove version and release_version; to update, change launch_template.version",
            )
        ]
    if "version" in want and live.get("version") and _number(want["version"]) < _number(live["version"]):
        return [problem("version", "version", live["version"], f"{want['version']}, which is older", f"EKS does not go back: {REPLACE}")]
    return []


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _config_changes(live: dict[str, Any], want: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Parameters for UpdateNodegroupConfig; what changes is noted in `after`."""
    changes: dict[str, Any] = {}
    for key, compare in (
        ("labels", _labels),
        ("taints", _taints),
        ("scalingConfig", _scaling),
        ("updateConfig", _update_config),
        ("nodeRepairConfig", _node_repair),
    ):
        if key not in want:
            continue
        change, result = compare(live.get(key), want[key])
        if change:
            changes[key], after[key] = change, result
    return changes


def _labels(live: dict[str, str] | None, want: dict[str, str]) -> tuple[dict[str, Any], Any]:
    live = live or {}
    change = {"addOrUpdateLabels": {k: v for k, v in want.items() if live.get(k) != v}, "removeLabels": sorted(set(live) - set(want))}
    return {k: v for k, v in change.items() if v}, want


def _taints(live: list[dict[str, str]] | None, want: list[dict[str, str]]) -> tuple[dict[str, Any], Any]:
    """A taint is identified by key and effect; an absent value is an empty one."""
    old = {(t["key"], t["effect"]): t for t in live or []}
    new = {(t["key"], t["effect"]): t for t in want}
    change = {
        "addOrUpdateTaints": [t for k, t in new.items() if k not in old or (old[k].get("value") or "") != t["value"]],
        "removeTaints": [t for k, t in old.items() if k not in new],
    }
    return {k: v for k, v in change.items() if v}, want


def _scaling(live: dict[str, int] | None, want: dict[str, int]) -> tuple[dict[str, Any], Any]:
    """Autoscalers own the desired size after creation; it is moved only as far as the new bounds force it."""
    live = live or {}
    bounds = {k: want[k] for k in ("minSize", "maxSize")}
    if all(live.get(k) == v for k, v in bounds.items()):
        return {}, live
    change = dict(bounds)
    desired = live.get("desiredSize")
    if desired is not None and not bounds["minSize"] <= desired <= bounds["maxSize"]:
        change["desiredSize"] = min(max(desired, bounds["minSize"]), bounds["maxSize"])
    return change, {**live, **change}


def _update_config(live: dict[str, Any] | None, want: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    live = live or {}
    current = {"updateStrategy": "DEFAULT", **({} if set(UNAVAILABLE) & set(live) else {"maxUnavailable": 1}), **live}
    new = _exchange(current, want, (UNAVAILABLE,))
    if new == current:
        return {}, current
    if "updateStrategy" not in {**live, **want}:
        new.pop("updateStrategy")
    return new, new


def _node_repair(live: dict[str, Any] | None, want: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    current = {"enabled": False, "nodeRepairConfigOverrides": [], **(live or {})}
    new = _exchange(current, want, REPAIR_PAIRS)
    for config in (current, new):
        config["nodeRepairConfigOverrides"] = sorted(config["nodeRepairConfigOverrides"], key=lambda o: sorted((k, str(v)) for k, v in o.items()))
    if new == current:
        return {}, current
    if not new["nodeRepairConfigOverrides"] and not current["nodeRepairConfigOverrides"]:
        del new["nodeRepairConfigOverrides"]
    return new, new


def _exchange(current: dict[str, Any], want: dict[str, Any], pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """current overlaid by want, where the members of a pair exclude each other."""
    gone = {name for pair in pairs if set(pair) & set(want) for name in pair}
    return {**{k: v for k, v in current.items() if k not in gone}, **want}


def _version_changes(live: dict[str, Any], want: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Parameters for UpdateNodegroupVersion.

    Left to itself the API takes the cluster's version and the newest AMI. A change of the launch template alone therefore pins both to what they
    are, and a change of the release names the Kubernetes version it was built for.
    """
    template, custom = live.get("launchTemplate"), live.get("amiType") == "CUSTOM"
    changes = {k: want[k] for k in ("version", "releaseVersion") if k in want and want[k] != live.get(k) and not custom}
    template_version = want.get("launchTemplate", {}).get("version")
    other_template = bool(template and template_version and template_version != template.get("version"))
    if not changes and not other_template:
        return {}
    if "version" in changes and "releaseVersion" not in changes:
        after.pop("releaseVersion", None)  # the newest of that version, known only afterwards
    elif not custom:
        named = re.fullmatch(AL2023_RELEASE, changes.get("releaseVersion", ""))
        pinned = {"version": named.group(1) if named else live.get("version"), "releaseVersion": live.get("releaseVersion")}
        changes = {k: v for k, v in {**pinned, **changes}.items() if v}
    after.update(changes)
    if template:
        known = {"id": template["id"]} if template.get("id") else {"name": template["name"]}
        changes["launchTemplate"] = {**known, "version": template_version or template["version"]}
        after["launchTemplate"] = {**template, "version": changes["launchTemplate"]["version"]}
    return changes


def health(group: dict[str, Any]) -> str:
    """The health issues of a group in one sentence, '' without any."""
    issues = (group.get("health") or {}).get("issues") or []
    return "; ".join(_issue(i.get("code"), i.get("message"), i.get("resourceIds")) for i in issues)


def update_errors(update: dict[str, Any]) -> str:
    """The errors of an update in one sentence, '' without any."""
    return "; ".join(_issue(e.get("errorCode"), e.get("errorMessage"), e.get("resourceIds")) for e in update.get("errors") or [])


def _issue(code: str | None, text: str | None, resources: list[str] | None) -> str:
    return f"{code}: {(text or 'no message').rstrip('.')}" + (f" ({', '.join(resources)})" if resources else "")
