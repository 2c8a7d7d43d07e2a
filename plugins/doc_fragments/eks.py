# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation of the eks_* actions shares."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cluster_name:
    description: Name of the EKS cluster. It must exist, unless O(state=absent).
    type: str
    required: true
attributes:
  check_mode:
    description: Predicts what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows the managed part of the resource before and after.
    support: full
  idempotent:
    description: A second run with the same options makes no mutating call and reports no change.
    support: full
"""
