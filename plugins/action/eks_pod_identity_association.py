# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.eks_pod_identity_association, documented in plugins/modules/eks_pod_identity_association.py."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _eks
from ansible_collections.llmops.eks.plugins.module_utils._eks_pod_identity import check, managed, plan_absent, plan_present, wanted
from ansible_collections.llmops.eks.plugins.plugin_utils._eks_action import COMMON, EksAction

# EKS' words for a role that it does not know (yet): "Role provided in the request does not exist."
UNKNOWN = "role provided in the request does not exist"

ARGUMENTS = {
    "namespace": {"type": "str", "required": True},
    "service_account": {"type": "str", "required": True},
    "role_arn": {"type": "str"},
    "target_role_arn": {"type": "str"},
    "disable_session_tags": {"type": "bool"},
    **COMMON,
}


def run(session: _aws.Session, params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    client = session.client("eks")
    subject = f"pod identity of {params['namespace']}/{params['service_account']}"
    _eks.refuse(check(params), subject)
    live = read(client, params)
    if params["state"] == "absent":
        plan = plan_absent(live, params["role_arn"])
    else:
        if live is None:
            _eks.require_cluster(client, params["cluster_name"])
        plan = plan_present(live, wanted(params), params["purge_tags"])
    _eks.refuse(plan.problems, subject)
    if plan.calls and not check_mode:
        for step in plan.calls:
            _eks.write(client, step, UNKNOWN)
        live = read(client, params)
        plan.after = managed(live)
    return _eks.result("association", plan, {**(live or {}), **plan.after} if plan.after else None)


def read(client: Any, params: dict[str, Any]) -> dict[str, Any] | None:
    """The association in the API's shape, or None."""
    cluster = params["cluster_name"]
    rows = _eks.find_all(
        client, "ListPodIdentityAssociations", "associations", clusterName=cluster, namespace=params["namespace"], serviceAccount=params["service_account"]
    )
    for row in rows:
        answer = _eks.find(client, "DescribePodIdentityAssociation", clusterName=cluster, associationId=row["associationId"])
        if answer:
            return answer["association"]
    return None


class ActionModule(EksAction):
    """Keeps the association of a role with a service account."""

    ARGUMENTS = ARGUMENTS
    RUN = staticmethod(run)
