# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that adds up the GPUs of the nodes that planned models need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _instances

DOCUMENTATION = r"""
name: gpus_at_maximum
short_description: GPUs of the nodes that planned models need at their maximum
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Counts whole nodes, because a replica on four GPUs of a node with eight makes an autoscaler start eight.
  - Nodes are of the allowed type with the fewest GPUs; replicas of different models share none.
options:
  _input:
    description: Models planned by P(llmops.eks.llm_plan#module).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
# -> 8: one node p5.48xlarge holds both replicas
- name: Show the GPUs
  ansible.builtin.debug:
    msg: "{{ [{'gpus': 4, 'replicas': {'max': 2}, 'instance_types': ['p5.48xlarge']}] | llmops.eks.gpus_at_maximum }}"
"""

RETURN = r"""
_value:
  description: Number of GPUs, V(0) without models.
  type: int
"""


def gpus_at_maximum(models: Iterable[Mapping[str, Any]]) -> int:
    """GPUs of all nodes that the models need when each runs its largest number of replicas."""
    table = _instances.table()
    total = 0
    for model in models:
        node = min((table[name].gpu_count for name in model["instance_types"]), default=model["gpus"])
        nodes = -(-model["replicas"]["max"] // max(1, node // model["gpus"]))
        total += nodes * node
    return total


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"gpus_at_maximum": gpus_at_maximum}
