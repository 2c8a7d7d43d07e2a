# SPDX-License-Identifier: GPL-3.0-or-later
"""eks_pod_identity_association: check the options and decide which calls to make. Pure: no AWS. Private to this collection."""

from __future__ import annotations

import re
from typing import Any

from ._eks import Call, Plan, plan_tags, tag_problems, tag_strings
from ._problems import problem

IDENTITY = ("clusterName", "namespace", "serviceAccount")
SETTINGS = {"roleArn": "role_arn", "targetRoleArn": "target_role_arn", "disableSessionTags": "disable_session_tags"}


def check(params: dict[str, Any]) -> list[dict[str, str]]:
    """Problem rows of the module's parameters."""
    rows = tag_problems(params.get("tags"))
    for option in ("role_arn", "target_role_arn"):
        role = params.get(option)
        if role is not None and not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/.+", role):
            rows.append(problem("role_arn", option, role or "an empty text", "the ARN of an IAM role, arn:aws:iam::ACCOUNT:role/NAME", "give the role's ARN"))
    return rows


def wanted(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters in the shape of CreatePodIdentityAssociation; options that were not given are absent."""
    values = {
        "clusterName": params["cluster_name"],
        "namespace": params["namespace"],
        "serviceAccount": params["service_account"],
        **{key: params.get(option) for key, option in SETTINGS.items()},
        "tags": tag_strings(params.get("tags")),
    }
    return {k: v for k, v in values.items() if v is not None}


def managed(live: dict[str, Any] | None) -> dict[str, Any]:
    """The part of an association that options describe."""
    return {k: live[k] for k in (*IDENTITY, *SETTINGS, "tags") if live.get(k) is not None} if live else {}


def plan_absent(live: dict[str, Any] | None, role_arn: str | None = None) -> Plan:
    """Delete the association; with `role_arn` one that gives another role stays as it is."""
    plan = Plan(before=managed(live))
    if live and role_arn not in (None, live["roleArn"]):
        plan.after = plan.before
    elif live:
        plan.calls.append(Call("DeletePodIdentityAssociation", {"clusterName": live["clusterName"], "associationId": live["associationId"]}))
    return plan


def plan_present(live: dict[str, Any] | None, want: dict[str, Any], purge_tags: bool = True) -> Plan:
    """Create the association or change what differs. A setting that the API does not show is at its default."""
    if live is None:
        problems = (
            [] if "roleArn" in want else [problem("required", "role_arn", "nothing", "a value, because the association does not exist yet", "set role_arn")]
        )
        return Plan(calls=[Call("CreatePodIdentityAssociation", {k: v for k, v in want.items() if v != {}})], problems=problems, after=dict(want))
    plan = Plan(before=managed(live), after=managed(live))
    changes = {k: want[k] for k in SETTINGS if k in want and want[k] != (live.get(k) or (False if k == "disableSessionTags" else None))}
    if changes:
        plan.calls.append(Call("UpdatePodIdentityAssociation", {"clusterName": live["clusterName"], "associationId": live["associationId"], **changes}))
        plan.after.update(changes)
    plan_tags(plan, live["associationArn"], want.get("tags"), purge_tags)
    return plan
