# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.apply, documented in plugins/modules/apply.py. The only place of the collection that writes to Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _apply_absent, _apply_batch, _apply_present, _apply_prune, _kube
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

PRUNE = {
    "api_version": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True},
    "namespace": {"type": "str"},
    "label_selector": {"type": "str", "required": True},
}
ARGUMENTS = {
    "definitions": {"type": "raw", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force_conflicts": {"type": "bool", "default": False},
    "field_manager": {"type": "str", "default": "llmops.eks"},
    "check_mode_groups": {"type": "list", "elements": "str", "default": []},
    "wait_deleted": {"type": "int", "default": 0},
    "existing": {"type": "str", "choices": ["update", "keep"], "default": "update"},
    "handed_over": {"type": "list", "elements": "str", "default": []},
    "prune": {"type": "list", "elements": "dict", "default": [], "options": PRUNE},
    **_kube.AUTH_ARG_SPEC,
}


class ActionModule(Action):
    """Creates, updates and deletes; says what it did to each object."""

    ARGUMENTS = ARGUMENTS
    _supports_diff = True

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        absent = params["state"] == "absent"
        options = _apply_batch.Options(
            field_manager=str(params["field_manager"]),
            force_conflicts=params["force_conflicts"],
            check_mode=self._task.check_mode,
            check_mode_groups=tuple(params["check_mode_groups"]),
            wait_deleted=params["wait_deleted"],
            keep_existing=params["existing"] == "keep",
            handed_over=tuple(params["handed_over"]),
            prune=tuple(params["prune"]),
        )
        try:
            batch = _apply_batch.load(_kube.connect(params), params["definitions"], options, absent)
            leftovers = _apply_prune.find(batch)
            if absent:
                # Deleted in reverse order, so the leftovers go first: a Job must be gone before the claim that it uses can be.
                batch.items += leftovers
                _apply_absent.run(batch)
            else:
                _apply_present.run(batch)
                _apply_prune.delete(batch, leftovers)
        except _apply_batch.Refused as refused:
            return {**refused.result, "failed": True, "msg": str(refused), "problems": refused.rows}
        told = batch.result()
        if self._task.check_mode and not self._task.diff:  # "changed" alone does not say what would come; --diff shows each object
            for row in told["objects"]:
                if row["changed"]:
                    place = f"{row['namespace']}/" if row["namespace"] else ""
                    self._display.display(f"  would be {row['action']}: {row['kind']} {place}{row['name']}")
        return told
