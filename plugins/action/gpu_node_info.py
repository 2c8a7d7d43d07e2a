# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.gpu_node_info, documented in plugins/modules/gpu_node_info.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _capacity_cluster, _gpu_nodes, _gpu_nodes_ec2, _gpu_nodes_types, _kube
from ansible_collections.llmops.eks.plugins.module_utils._capacity_options import SHARED
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

ARGUMENTS = SHARED


class ActionModule(Action):
    """Reads the nodes, and asks EC2 only about types that the table does not know."""

    ARGUMENTS = ARGUMENTS
    EXPECTED = (*Action.EXPECTED, _aws.AwsError)

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        cluster = _kube.connect(params)
        objects = _capacity_cluster.read(cluster, node_pools=False)
        if params["exec"] and objects.nodes is not None:
            objects = _capacity_cluster.measure(cluster, objects)
        types, unread = _types(params, objects.nodes or ())
        if objects.nodes is None:
            refused = next(item for item in objects.unread if item.resource == "nodes")
            return {
                "failed": True,
                "msg": f'nodes: found {refused.message}; needed verb list on resource nodes in API group ""; fix: bind a ClusterRole with that rule',
            }  # fmt: skip
        nodes = objects.facts(params["node_groups"], types)
        return {"changed": False, "nodes": nodes, "unread": [item.resource for item in objects.unread] + unread + list(objects.silent)}


def _types(params: Mapping[str, Any], nodes: Any) -> tuple[_gpu_nodes_types.Table, list[str]]:
    """(the table of instance types with what EC2 adds to it, what could not be asked). EC2 is asked only for GPU types that the table does not know."""
    labels = [(node["metadata"].get("labels") or {}).get(_gpu_nodes.INSTANCE_TYPE_LABEL) for node in nodes]
    names = _gpu_nodes_types.lacking([*labels, *(name for group in params["node_groups"] for name in group["instance_types"])])
    if not names:
        return _gpu_nodes_types.table(), []
    session = _aws.login(params)
    if isinstance(session, str):
        return _gpu_nodes_types.table(), [f"ec2:DescribeInstanceTypes for {', '.join(names)}: {session}"]
    client = session.client("ec2")
    answers, wrong = _aws.ask({"types": ("ec2", lambda: _gpu_nodes_ec2.describe_types(client, names))})
    missed = [f"{call.action} for {', '.join(names)}: {call.message}" for call in wrong.values()]
    return {**_gpu_nodes_types.table(), **answers.get("types", {})}, missed
