# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.gpu_node_info, documented in plugins/modules/gpu_node_info.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

# At the top: the strategy loads this class in the parent process, so the Kubernetes client is imported once and inherited by every fork.
from ansible_collections.llmops.eks.plugins.module_utils import _capacity_cluster, _gpu_nodes, _kube
from ansible_collections.llmops.eks.plugins.module_utils._capacity_options import NODE_GROUPS

ARGUMENTS = {"node_groups": NODE_GROUPS, **_kube.AUTH_ARG_SPEC}


class ActionModule(ActionBase):
    """Runs in the controller process; no module is sent."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(ARGUMENTS)
        task_environment: dict[str, str] = {}
        self._compute_environment_string(task_environment)
        try:
            with _kube.environment(task_environment):
                objects = _capacity_cluster.read(_kube.connect(params), node_pools=False)
        except (_kube.KubeError, _kube.ApiError) as error:
            return {**result, "failed": True, "msg": str(error)}
        if objects.nodes is None:
            return {
                **result, "failed": True,
                "msg": f'nodes: found {objects.unread[0].message}; needed verb list on resource nodes in API group ""; fix: bind a ClusterRole with that rule',
            }  # fmt: skip
        nodes = _gpu_nodes.describe(objects.nodes, objects.pods, params["node_groups"], objects.node_classes or ())
        return {**result, "changed": False, "nodes": nodes, "unread": [item.resource for item in objects.unread]}
