# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin llm_plan; its documentation and the schema of a model are in plugins/modules/llm_plan.py."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _checkpoint_places, _kube
from ansible_collections.llmops.eks.plugins.module_utils._model_source import Readers
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan
from ansible_collections.llmops.eks.plugins.module_utils._prices import Prices
from ansible_collections.llmops.eks.plugins.module_utils._problems import errors, message
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

ARGUMENTS = {
    "models": {"type": "list", "elements": "dict", "required": True},
    "defaults": {"type": "dict", "default": {}},
    "namespace": {"type": "str", "default": "llm-serving"},
    "live": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **_kube.AUTH_ARG_SPEC,
    **_aws.AUTH_ARG_SPEC,
}
# Networks without a way to the price list are common, and a dated price is better than a long wait.
PATIENCE = {"connect_timeout": 3, "read_timeout": 15, "retries": {"total_max_attempts": 2}}


class ActionModule(Action):
    """Completes the model list; nothing is written."""

    ARGUMENTS = ARGUMENTS

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        removing = params["state"] == "absent"
        readers, prices = self._live(params, task_vars) if params["live"] and not removing else (Readers.none(), Prices.table(params["region"] or ""))
        models, rows = plan(params["models"], params["defaults"], params["namespace"], readers, prices, removing)
        fatal = errors(rows)
        if fatal:
            return {"failed": True, "problems": rows, "msg": message(fatal, f"The model list has {len(fatal)} problem(s); nothing was written.")}
        return {"changed": False, "models": models, "problems": rows}

    def _live(self, params: Mapping[str, Any], task_vars: Mapping[str, Any]) -> tuple[Readers, Prices]:
        """What asks S3, the hub, the cluster and AWS' price lists. Each logs in when it is first needed."""
        base = Path(task_vars.get("inventory_dir") or self._loader.get_basedir())
        cluster = functools.cache(lambda: _kube.connect(params))

        def volume(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
            try:
                return _checkpoint_places.copied(cluster(), params["namespace"], model)
            except (_kube.KubeError, _kube.ApiError):
                return None  # a plan needs no cluster; what nobody describes is said to be unknown

        config = {**PATIENCE, **(params["aws_config"] or {})}
        prices = Prices.live(params["region"] or "", lambda region: _aws.login({**params, "region": region, "aws_config": config}))
        return Readers.of(params, base, volume), prices
