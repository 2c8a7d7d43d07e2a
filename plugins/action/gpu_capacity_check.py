# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.gpu_capacity_check, documented in plugins/modules/gpu_capacity_check.py."""

from __future__ import annotations

import datetime
import re
from typing import Any

from ansible.plugins.action import ActionBase

# At the top: the strategy loads this class in the parent process, so the Kubernetes client is imported once and inherited by every fork.
from ansible_collections.llmops.eks.plugins.module_utils import _capacity, _capacity_cluster, _capacity_context, _kube
from ansible_collections.llmops.eks.plugins.module_utils._capacity_models import check_models
from ansible_collections.llmops.eks.plugins.module_utils._capacity_options import NODE_GROUPS
from ansible_collections.llmops.eks.plugins.module_utils._problems import errors, message

ARGUMENTS = {
    "models": {"type": "list", "elements": "dict", "required": True},
    "image_cuda": {"type": "str"},
    "namespace": {"type": "str", "default": "llm-serving"},
    "node_groups": NODE_GROUPS,
    "fail_on_errors": {"type": "bool", "default": False},
    **_kube.AUTH_ARG_SPEC,
}


class ActionModule(ActionBase):
    """Runs in the controller process; no module is sent, nothing is written."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENTS)
        rows = check_models(params["models"])
        cuda = params["image_cuda"]
        if rows or (cuda and not re.fullmatch(r"\d+\.\d+", cuda)):
            text = message(rows, "models are not those of llm_plan") if rows else f"image_cuda: found {cuda}; needed major.minor; fix: write it as '13.0'"
            return {**result, "failed": True, "msg": text, "problems": rows}
        task_environment: dict[str, str] = {}
        self._compute_environment_string(task_environment)
        try:
            with _kube.environment(task_environment):
                objects = _capacity_cluster.read(_kube.connect(params))
        except (_kube.KubeError, _kube.ApiError) as error:
            return {**result, "failed": True, "msg": str(error)}
        month = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
        context = _capacity_context.build(params["models"], objects, month, cuda, params["node_groups"], params["namespace"])
        rows = _capacity.run(context)
        result |= {
            "changed": False,
            "problems": rows,
            "nodes": list(context.nodes),
            "drivers": _capacity.drivers(context),
            "node_pools": _capacity.node_pools(context),
        }
        fatal = errors(rows)
        if fatal and params["fail_on_errors"]:
            result |= {"failed": True, "msg": message(fatal, f"{len(fatal)} problem(s) with GPU nodes; nothing was written.")}
        return result
