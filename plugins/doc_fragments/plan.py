# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the filters share that show a plan."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  _input:
    description: The planned models, RV(llmops.eks.llm_plan#module:models).
    type: list
    elements: dict
    required: true
  problems:
    description: The plan's warnings, RV(llmops.eks.llm_plan#module:problems).
    type: list
    elements: dict
    default: []
"""
