# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.object_info, documented in plugins/modules/object_info.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _kube
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

ARGUMENTS = {
    "api_version": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True},
    "name": {"type": "str"},
    "namespace": {"type": "str"},
    "label_selectors": {"type": "list", "elements": "str", "default": []},
    **_kube.AUTH_ARG_SPEC,
}


class ActionModule(Action):
    """Reads one object, or all of a kind."""

    ARGUMENTS = ARGUMENTS

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        cluster = _kube.connect(params)
        api_version, name, namespace = params["api_version"], params["name"], params["namespace"]
        kind = cluster.find(api_version, params["kind"])
        if kind is None:
            return {"changed": False, "api_found": False, "resources": []}
        if name and kind.namespaced and not namespace:
            raise _kube.KubeError(f"{kind.kind} {name}: found no namespace; needed one, because {kind.plural} live in namespaces; fix: set namespace")
        if name:
            found = [cluster.get(kind.path(namespace, name))]
        else:
            selector = ",".join(params["label_selectors"])
            found = cluster.items(kind.path(namespace), {"labelSelector": selector} if selector else None)
        return {"changed": False, "api_found": True, "resources": [_shown(kind, item) for item in found if item]}


def _shown(kind: _kube.Kind, item: dict[str, Any]) -> dict[str, Any]:
    """Without managedFields, and with the type, which the items of a list do not carry."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {"apiVersion": kind.api_version, "kind": kind.kind, **item, "metadata": metadata}
