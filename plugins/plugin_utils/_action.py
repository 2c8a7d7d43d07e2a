# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all action plugins of the collection have in common: they run in the controller process, and no module is sent.

The strategy loads an action's class in the parent process, so what these files import (the Kubernetes client, boto3) is imported once and inherited by every
fork.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.llmops.eks.plugins.module_utils import _kube
from ansible_collections.llmops.eks.plugins.module_utils._problems import errors, message


class Action(ActionBase):
    """A plugin gives ARGUMENTS and act()."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    ARGUMENTS: ClassVar[Mapping[str, Any]]
    # Errors of act() whose text is the message, without a traceback: found, needed and fix, or a refused request in the API server's own words.
    EXPECTED: ClassVar[tuple[type[Exception], ...]] = (_kube.KubeError, _kube.ApiError)
    # Why there is nothing to do in check mode, and what the result holds then; None: act() runs there, too.
    NOT_IN_CHECK_MODE: ClassVar[tuple[str, Mapping[str, Any]] | None] = None

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Do it with the validated arguments and return the result, in the environment that the task sets."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        environment: dict[str, str] = {}
        self._compute_environment_string(environment)
        with _kube.environment(environment):
            _validation, params = self.validate_argument_spec(self.ARGUMENTS)
            if self._task.check_mode and self.NOT_IN_CHECK_MODE:
                why, fields = self.NOT_IN_CHECK_MODE
                return {**result, "changed": False, "skipped": True, "msg": f"not in check mode: {why}", **fields}
            try:
                if isinstance(params.get("kubeconfig"), str):
                    params["kubeconfig"] = os.pathsep.join(self._local(path) for path in params["kubeconfig"].split(os.pathsep))
                return {**result, **self.act(params, task_vars or {})}
            except self.EXPECTED as error:
                return {**result, "failed": True, "msg": str(error)}

    def _local(self, path: str) -> str:
        """A file as kubernetes.core's plugins find it: beside the play or role, or in `files/` there, decrypted if it is vaulted."""
        try:
            found = self._find_needle("files", path)
        except AnsibleError:
            return path  # the login says that it is missing
        try:
            return self._loader.get_real_file(found, decrypt=True)
        except AnsibleError as error:
            raise _kube.KubeError(
                f"kubeconfig {path}: found a file that cannot be read ({error}); needed a kubeconfig, and for a vaulted one the vault's password; "
                "fix: run with --vault-password-file or --ask-vault-pass"
            ) from error


def judged(rows: list[Any], headline: str, **result: Any) -> dict[str, Any]:
    """The result of an action that looks: failed when a row is an error. `headline` may name their number as {n}."""
    fatal = errors(rows)
    told = {"changed": False, **result, "problems": rows}
    return {**told, "failed": True, "msg": message(fatal, headline.format(n=len(fatal)))} if fatal else told
