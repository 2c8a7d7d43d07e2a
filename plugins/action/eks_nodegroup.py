# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.eks_nodegroup, documented in plugins/modules/eks_nodegroup.py."""

from __future__ import annotations

import contextlib
from typing import Any

with contextlib.suppress(ImportError):  # the login says that boto3 is missing
    from botocore.exceptions import BotoCoreError, ClientError

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _eks
from ansible_collections.llmops.eks.plugins.module_utils._eks_nodegroup_options import AMI_TYPES, DEAD_AMI_TYPES, EFFECTS, REPAIR_PAIRS, check, wanted
from ansible_collections.llmops.eks.plugins.module_utils._eks_nodegroup_plan import health, managed, plan_absent, plan_present
from ansible_collections.llmops.eks.plugins.module_utils._eks_nodegroup_wait import Patience
from ansible_collections.llmops.eks.plugins.plugin_utils._eks_action import COMMON, EksAction

INTEGER = {"type": "int"}

ARGUMENTS = {
    "name": {"type": "str", "required": True},
    "node_role": {"type": "str"},
    "subnets": {"type": "list", "elements": "str"},
    "ami_type": {"type": "str", "choices": [*AMI_TYPES, *DEAD_AMI_TYPES]},
    "capacity_type": {"type": "str", "choices": ["ON_DEMAND", "SPOT", "CAPACITY_BLOCK"]},
    "instance_types": {"type": "list", "elements": "str"},
    "disk_size": INTEGER,
    "remote_access": {
        "type": "dict",
        "options": {
            "ec2_ssh_key": {"type": "str", "no_log": False},
            "source_security_groups": {"type": "list", "elements": "str"},
        },
    },
    "launch_template": {
        "type": "dict",
        "mutually_exclusive": [("id", "name")],
        "required_one_of": [("id", "name")],
        "options": {
            "id": {"type": "str"},
            "name": {"type": "str"},
            "version": {"type": "str"},
        },
    },
    "scaling": {
        "type": "dict",
        "options": {
            "min_size": {"type": "int", "required": True},
            "max_size": {"type": "int", "required": True},
            "desired_size": INTEGER,
        },
    },
    "labels": {"type": "dict"},
    "taints": {
        "type": "list",
        "elements": "dict",
        "options": {
            "key": {"type": "str", "required": True, "no_log": False},
            "value": {"type": "raw"},
            "effect": {"type": "str", "required": True, "choices": [*EFFECTS, *EFFECTS.values()]},
        },
    },
    "update_config": {
        "type": "dict",
        "mutually_exclusive": [("max_unavailable", "max_unavailable_percentage")],
        "options": {
            "max_unavailable": INTEGER,
            "max_unavailable_percentage": INTEGER,
            "update_strategy": {"type": "str", "choices": ["DEFAULT", "MINIMAL"]},
        },
    },
    "node_repair": {
        "type": "dict",
        "mutually_exclusive": list(REPAIR_PAIRS),
        "options": {
            "enabled": {"type": "bool", "default": True},
            **{name: INTEGER for pair in REPAIR_PAIRS for name in pair},
            "overrides": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "node_monitoring_condition": {"type": "str", "required": True},
                    "node_unhealthy_reason": {"type": "str", "required": True},
                    "min_repair_wait_time_mins": {"type": "int", "required": True},
                    "repair_action": {"type": "str", "required": True, "choices": ["Replace", "Reboot", "NoAction"]},
                },
            },
        },
    },
    "version": {"type": "str"},
    "release_version": {"type": "str"},
    "force_update": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 2400},
    **COMMON,
}


def run(session: _aws.Session, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    patience = Patience(session.client("eks"), params["cluster_name"], params["name"], params["wait_timeout"])
    return (present if params["state"] == "present" else absent)(session, params, check_mode, patience)


def present(session: _aws.Session, params: dict[str, Any], check_mode: bool, patience: Patience) -> dict[str, Any]:
    subject = f"node group {params['name']} of cluster {params['cluster_name']}"
    _eks.refuse(check(params), subject)
    live = read(session, params)
    if live and live["status"] == "DELETING":
        if not check_mode:
            patience.deleted()
        live = None
    if live is None:
        _eks.require_cluster(session.client("eks"), params["cluster_name"])
    want = wanted(params)
    resolve_template(session, want, check_mode)
    plan = plan_present(live, want, params["cluster_name"], params["name"], params["purge_tags"], params["force_update"])
    _eks.refuse(plan.problems, subject)
    if not check_mode:
        update = None
        for step in plan.calls:
            if update:
                patience.updated(update)
            update = patience.write(step)
        if params["wait"]:
            if update:
                patience.updated(update)
            patience.active()
        if plan.calls or params["wait"]:
            live = read(session, params)
        if plan.calls:
            plan.after = managed(live)
    sick = [f"{subject} is {live['status']}: {health(live)}"] if live and live["status"] in ("DEGRADED", "CREATE_FAILED") else []
    return {**_eks.result("nodegroup", plan, {**(live or {}), **plan.after}), **({"warnings": sick} if sick else {})}


def absent(session: _aws.Session, params: dict[str, Any], check_mode: bool, patience: Patience) -> dict[str, Any]:
    live = read(session, params)
    plan = plan_absent(live, params["cluster_name"], params["name"])
    if live and not check_mode:
        for step in plan.calls:
            patience.delete(step)
        if params["wait"]:
            patience.deleted()
    return _eks.result("nodegroup", plan, None)


def read(session: _aws.Session, params: dict[str, Any]) -> dict[str, Any] | None:
    """The node group in the API's shape, or None."""
    answer = _eks.find(session.client("eks"), "DescribeNodegroup", clusterName=params["cluster_name"], nodegroupName=params["name"])
    return answer and answer["nodegroup"]


def resolve_template(session: _aws.Session, want: dict[str, Any], check_mode: bool) -> None:
    """Replace $Latest and $Default by the number, which is what EKS shows. In check mode the template may be one that the same run creates."""
    template = want.get("launchTemplate", {})
    field = {"$Latest": "LatestVersionNumber", "$Default": "DefaultVersionNumber"}.get(template.get("version"))
    if not field:
        return
    key = "id" if "id" in template else "name"
    try:
        answer = session.client("ec2").describe_launch_templates(**{f"LaunchTemplate{key.capitalize()}s": [template[key]]})
    except (ClientError, BotoCoreError) as error:
        missing = isinstance(error, ClientError) and ".NotFound" in error.response["Error"]["Code"]
        if missing and check_mode:
            return
        raise _eks.AnsibleEksError(message=f"launch_template: cannot look up version {template['version']} of {template[key]}", exception=error) from error
    want["launchTemplate"] = {**template, "version": str(answer["LaunchTemplates"][0][field])}


class ActionModule(EksAction):
    """Keeps a managed node group and waits for it."""

    ARGUMENTS = ARGUMENTS
    RUN = staticmethod(run)
