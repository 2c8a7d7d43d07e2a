# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan as a table of text."""

from __future__ import annotations

from typing import Any

from ..module_utils._plan_summary import table

DOCUMENTATION = r"""
name: plan_table
short_description: Show a plan as a table of text
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - One row a model that is served, with the units in the header and numbers aligned to the right, then the sum of the prices, the models that are removed,
    what the figures mean, where the prices come from, and the warnings.
extends_documentation_fragment: [llmops.eks.plan]
options:
  width:
    description: Most characters of a line. Names too long for it get a line of their own. With the default the table fits 120 columns as Ansible prints it.
    type: int
    default: 109
positional: problems, width
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ llm_planned.models | llmops.eks.plan_table(llm_planned.problems) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"plan_table": table}
