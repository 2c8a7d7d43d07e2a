# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.eks_access_entry, documented in plugins/modules/eks_access_entry.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _eks
from ansible_collections.llmops.eks.plugins.module_utils._eks_access_entry import TYPES, associated, check, managed, plan_absent, plan_present, shown, wanted
from ansible_collections.llmops.eks.plugins.plugin_utils._eks_action import COMMON, EksAction

# EKS' words for a principal that it does not know (yet)
UNKNOWN = "invalid principal"

ARGUMENTS = {
    "principal_arn": {"type": "str", "required": True},
    "type": {"type": "str", "choices": list(TYPES)},
    "kubernetes_groups": {"type": "list", "elements": "str"},
    "username": {"type": "str"},
    "policies": {
        "type": "list",
        "elements": "dict",
        "options": {
            "policy_arn": {"type": "str", "required": True},
            "scope": {
                "type": "dict",
                "options": {
                    "type": {"type": "str", "choices": ["cluster", "namespace"], "default": "cluster"},
                    "namespaces": {"type": "list", "elements": "str"},
                },
            },
        },
    },
    "purge_policies": {"type": "bool", "default": True},
    **COMMON,
}


def run(session: _aws.Session, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    client = session.client("eks")
    subject = f"access entry of {params['principal_arn']}"
    absent = params["state"] == "absent"
    if not absent:
        _eks.refuse(check(params), subject)
    live, policies = read(client, params)
    if absent:
        plan = plan_absent(live, policies)
    else:
        plan = plan_present(live, policies, wanted(params), params["purge_policies"], params["purge_tags"])
        if live is None:
            _eks.require_cluster(client, params["cluster_name"])
    _eks.refuse(plan.problems, subject)
    if plan.calls and not check_mode:
        for step in plan.calls:
            _eks.write(client, step, UNKNOWN)
        live, policies = read(client, params)
        plan.after = managed(live, policies)
    plan.before, plan.after = shown(plan.before), shown(plan.after)
    return _eks.result("access_entry", plan, None if absent else {**(live or {}), **plan.after})


def read(client: Any, params: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """(entry in the API's shape or None, {policy ARN: scope})."""
    ident = {"clusterName": params["cluster_name"], "principalArn": params["principal_arn"]}
    try:
        answer = _eks.find(client, "DescribeAccessEntry", **ident)
    except _eks.AnsibleEksError as error:
        if params["state"] == "present" or not _eks.without_access_entries(error.exception):
            raise
        answer = None
    if answer is None:
        return None, {}
    return answer["accessEntry"], associated(_eks.find_all(client, "ListAssociatedAccessPolicies", "associatedAccessPolicies", **ident))


class ActionModule(EksAction):
    """Keeps an access entry and its policies."""

    ARGUMENTS = ARGUMENTS
    RUN = staticmethod(run)
