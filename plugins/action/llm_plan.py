# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin llm_plan; its documentation and the schema of a model are in plugins/modules/llm_plan.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan
from ansible_collections.llmops.eks.plugins.module_utils._problems import errors, message

ARGUMENTS = {
    "models": {"type": "list", "elements": "dict", "required": True},
    "defaults": {"type": "dict", "default": {}},
    "namespace": {"type": "str", "default": "llm-serving"},
}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(ARGUMENTS)
        models, rows = plan(args["models"], args["defaults"], args["namespace"])
        fatal = errors(rows)
        if fatal:
            return {"failed": True, "problems": rows, "msg": message(fatal, f"The model list has {len(fatal)} problem(s); nothing was written.")}
        return {"changed": False, "models": models, "problems": rows}
