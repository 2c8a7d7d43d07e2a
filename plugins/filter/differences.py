# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters that compare what was asked for with what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: differences
short_description: Say where an object lacks or contradicts wanted values
version_added: 1.0.0
author:
  - llmops.eks contributors
description:
  - Walks wanted mappings and names every leaf that the object does not have, or has with another value. Fields that are not wanted are ignored.
options:
  _input:
    description: The object as it is.
    type: dict
    required: true
  wanted:
    description: The values that must be in it.
    type: dict
    required: true
"""

EXAMPLES = r"""
# -> ["driver.enabled is True instead of False"]
- name: Show the differences
  ansible.builtin.debug:
    msg: "{{ {'driver': {'enabled': true}} | llmops.eks.differences({'driver': {'enabled': false}}) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each difference, in the order of the wanted values.
  type: list
  elements: str
"""


def differences(found: Any, wanted: Mapping[str, Any], path: str = "") -> list[str]:
    """['driver.enabled is True instead of False', ...]; empty when `found` has every wanted leaf."""
    rows: list[str] = []
    for key, value in wanted.items():
        where = f"{path}{key}"
        if not isinstance(found, Mapping) or key not in found:
            if value not in ({}, [], None):
                rows.append(f"{where} is missing instead of {value}")
        elif isinstance(value, Mapping):
            rows += differences(found[key], value, f"{where}.")
        elif found[key] != value:
            rows.append(f"{where} is {found[key]} instead of {value}")
    return rows


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"differences": differences}
