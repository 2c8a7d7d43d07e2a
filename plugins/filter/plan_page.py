# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan as its HTML page shows it."""

from __future__ import annotations

from typing import Any

from ..module_utils._plan_page import page

DOCUMENTATION = r"""
name: plan_page
short_description: Prepare a plan for its HTML page
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Turns the figures of a plan into text and escapes all text for HTML, so that the template C(plan.html.j2) of the playbooks only places it.
  - The same plan gives the same page. It holds neither the time nor anything of the machine.
extends_documentation_fragment: [llmops.eks.plan]
options:
  cluster:
    description: Name of the cluster, if it is to be named.
    type: str
    default: ''
  region:
    description: Region of the cluster, if it is to be named.
    type: str
    default: ''
positional: problems, cluster, region
"""

EXAMPLES = r"""
- name: Write the plan as a page
  ansible.builtin.template:
    src: plan.html.j2
    dest: plan.html
    mode: "0644"
  vars:
    page: "{{ llm_planned.models | llmops.eks.plan_page(llm_planned.problems, 'prod', 'us-east-1') }}"
"""

RETURN = r"""
_value:
  description: The variable C(page) of the template.
  type: dict
"""


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"plan_page": page}
