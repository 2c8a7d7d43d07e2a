# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few figures of a plan that another job needs."""

from __future__ import annotations

from typing import Any

from ..module_utils._plan_summary import summary

DOCUMENTATION = r"""
name: plan_summary
short_description: Take the main figures out of a plan
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Small enough for C(ansible.builtin.set_stats), which AWX hands to the next job of a workflow. Holds no secret.
extends_documentation_fragment: [llmops.eks.plan]
positional: problems
"""

EXAMPLES = r"""
- name: Tell the plan to what runs next
  ansible.builtin.set_stats:
    data:
      llm_plan_summary: "{{ llm_planned.models | llmops.eks.plan_summary(llm_planned.problems) }}"
    per_host: false
"""

RETURN = r"""
_value:
  description: One dict a model that is served. What is not known is null.
  type: list
  elements: dict
  contains:
    name:
      description: Name of the model.
      type: str
    verdict:
      description: V(FITS), V(TIGHT), V(NO) or V(UNKNOWN).
      type: str
    margin_gib:
      description: KV cache of one GPU less what one request of C(max_model_len) needs, in GiB.
      type: float
    instance_type:
      description: EC2 instance type of the nodes.
      type: str
    tensor_parallel_size:
      description: GPUs that share each layer.
      type: int
    pipeline_parallel_size:
      description: Stages of layers.
      type: int
    gpus:
      description: GPUs of one replica.
      type: int
    replicas:
      description: The fewest and the most, C({min, max}).
      type: dict
    kv_tokens:
      description: Tokens that the KV cache of one replica holds.
      type: int
    concurrent_requests:
      description: Requests of the expected length that one replica runs at once.
      type: int
    usd_per_hour:
      description: Price of the model's nodes in USD at the fewest and the most replicas, C({min, max}).
      type: dict
    usd_per_million_tokens:
      description: Price of a million output tokens in USD with a replica fully used and used a quarter of the time, C({low, high}).
      type: dict
    startup_seconds:
      description: Estimated seconds from the container's start to ready.
      type: int
    warnings:
      description: The problems of this model, one sentence each.
      type: list
      elements: str
"""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"plan_summary": summary}
