# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.gpu_capacity_check, documented in plugins/modules/gpu_capacity_check.py."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _capacity, _capacity_aws, _capacity_cluster, _capacity_context, _capacity_wants
from ansible_collections.llmops.eks.plugins.module_utils._capacity_models import check_models, check_node_pools
from ansible_collections.llmops.eks.plugins.module_utils._capacity_options import SHARED
from ansible_collections.llmops.eks.plugins.module_utils._problems import errors, message, sentence
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

ARGUMENTS = {
    "models": {"type": "list", "elements": "dict", "required": True},
    "image_cuda": {"type": "str"},
    "namespace": {"type": "str", "default": "llm-serving"},
    "cluster_name": {"type": "str"},
    "subnets": {"type": "list", "elements": "str", "default": []},
    "node_pools": {"type": "list", "elements": "dict", "default": []},
    "fail_on_errors": {"type": "bool", "default": False},
    **SHARED,
}


class ActionModule(Action):
    """Looks at the cluster and at AWS, and writes nothing."""

    ARGUMENTS = ARGUMENTS
    EXPECTED = (*Action.EXPECTED, _aws.AwsError)

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        rows = check_models(params["models"]) + check_node_pools(params["node_pools"])
        cuda = params["image_cuda"]
        if rows or (cuda and not re.fullmatch(r"\d+\.\d+", cuda)):
            text = message(rows, "models and node_pools are not planned ones") if rows else (
                f"image_cuda: found {cuda}; needed major.minor; fix: write it as '13.0'"
            )  # fmt: skip
            return {"failed": True, "msg": text, "problems": rows}
        context = look(params)
        rows = _capacity.run(context)
        result = {
            "changed": False,
            "problems": rows,
            "nodes": list(context.nodes),
            "drivers": _capacity.drivers(context),
            "node_pools": _capacity.node_pools(context),
            "quotas": _capacity.quotas(context),
        }
        # Shown by Ansible itself; a role or play need not print them.
        if warnings := [sentence(row) for row in rows if row["severity"] == "warning"]:
            result["warnings"] = warnings
        fatal = errors(rows)
        if fatal and params["fail_on_errors"]:
            result |= {"failed": True, "msg": message(fatal, f"{len(fatal)} problem(s) with GPU nodes; nothing was written.")}
        return result


def look(params: dict[str, Any]) -> _capacity_context.Context:
    """Read the cluster, then ask AWS only for what the NodePools and groups seen there, or planned, may bring."""
    request = _capacity_context.Request(
        models=params["models"],
        month=datetime.datetime.now(datetime.UTC).strftime("%Y-%m"),
        image_cuda=params["image_cuda"],
        node_groups=params["node_groups"],
        namespace=params["namespace"],
        planned=params["node_pools"],
        cluster_name=params["cluster_name"],
        subnets=params["subnets"],
    )
    objects = _capacity_cluster.read_if_any(params, smi=params["exec"])
    session = _aws.login(params)
    if isinstance(session, str):
        return _capacity_context.build(request, objects, no_account=session)
    draft = _capacity_context.build(request, objects)
    return _capacity_context.build(request, objects, _capacity_aws.read(session, _capacity_wants.wants(draft)))
