# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the eks_* action plugins have in common: the login to AWS, and errors as results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ansible_collections.llmops.eks.plugins.module_utils import _aws, _eks
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

COMMON = {
    "cluster_name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "tags": {"type": "dict", "aliases": ["resource_tags"]},
    "purge_tags": {"type": "bool", "default": True},
    "validate_certs": {"type": "bool", "default": True},
    **_aws.AUTH_ARG_SPEC,
}


class EksAction(Action):
    """A plugin gives ARGUMENTS, with COMMON in it, and RUN."""

    EXPECTED = (*Action.EXPECTED, _aws.AwsError)
    # (login, arguments, check mode) -> the result. Raises Refused and AnsibleEksError.
    RUN: ClassVar[Callable[[_aws.Session, dict[str, Any], bool], dict[str, Any]]]

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        session = _aws.login(params)
        if isinstance(session, str):
            raise _aws.AwsError(
                f"AWS login: found {session}; needed credentials and a region; fix: set profile or keys, and region (or AWS_PROFILE, AWS_REGION)"
            )
        try:
            return self.RUN(session, params, self._task.check_mode)
        except _eks.Refused as refused:
            return {"failed": True, "msg": str(refused), "problems": refused.rows}
        except _eks.AnsibleEksError as error:
            return {"failed": True, "msg": _eks.text(error)}
