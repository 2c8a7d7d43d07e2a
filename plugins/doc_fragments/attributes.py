# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every plugin of the collection says about itself: extends_documentation_fragment: llmops.eks.attributes[.controller|.k8s|.aws]"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
"""

    # An action plugin that does all of its work in the controller process.
    CONTROLLER = r"""
options: {}
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
    details:
      - Everything runs in the controller process; nothing is sent to the host and C(become) has no effect.
      - C(environment) of the task is respected.
"""

    K8S = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/llmops.eks.k8s) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - llmops.eks.k8s
"""

    AWS = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/llmops.eks.aws) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - llmops.eks.aws
"""
