# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.rollout, documented in plugins/modules/rollout.py. The only place of the collection that waits for Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _kube, _rollout
from ansible_collections.llmops.eks.plugins.module_utils._problems import message, problem
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action

RESOURCE = {
    "api_version": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str"},
    "condition": {"type": "raw"},
    "condition_grace": {"type": "int"},
    "fields": {
        "type": "list",
        "elements": "dict",
        "options": {"path": {"type": "list", "elements": "str", "required": True}, "value": {"type": "str"}, "fix": {"type": "str"}},
    },
}
ARGUMENTS = {
    "resources": {"type": "list", "elements": "dict", "options": RESOURCE, "required": True},
    "timeout": {"type": "int", "default": 600},
    "unschedulable_grace": {"type": "int", "default": 120},
    **_kube.AUTH_ARG_SPEC,
}
WAITING = _rollout.Verdict("waiting")
# An API server that is restarted or moved answers again within this.
SILENCE_SECONDS = 30
# What Karpenter said before the wait it takes back within this, when the cause is mended.
OLD_NEWS_SECONDS = 30


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


@dataclass
class Waited:
    """One resource: its last verdict, the seconds until it was ready or given up, and since when its pods cannot be placed.

    `since`: what was said of its pods until then is old: the start, or the first look after older pods of it were gone (`leaving`: are not yet).
    `refusal`: the condition that is False since `refused_since`.
    """

    resource: dict[str, Any]
    verdict: _rollout.Verdict = WAITING
    seconds: float = 0.0
    unplaced_since: float | None = None
    since: str = field(default_factory=now)
    leaving: bool = False
    refusal: str = ""
    refused_since: float = 0.0

    @property
    def label(self) -> str:
        namespace = self.resource.get("namespace")
        return f"{self.resource['kind']} {namespace + '/' if namespace else ''}{self.resource['name']}"

    def row(self) -> dict[str, Any]:
        named = {key: self.resource.get(key) or "" for key in ("kind", "namespace", "name")}
        return {**named, "ready": self.verdict.state == "ready", "seconds": round(self.seconds, 1), "message": self.verdict.message}


class ActionModule(Action):
    """Waits for all at once, and no longer than it makes sense."""

    ARGUMENTS = ARGUMENTS
    NOT_IN_CHECK_MODE = ("nothing was written that could be waited for", {"resources": [], "problems": []})

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        waits = [Waited(resource) for resource in params["resources"]]
        cluster = _kube.connect(params)
        answered = None
        for gone in _kube.poll(params["timeout"], first=0.3):
            try:
                for waited in waits:
                    if waited.verdict.state != "ready":
                        look(cluster, waited, gone, params["unschedulable_grace"])
            except (_kube.KubeError, _kube.ApiError) as error:
                refused = isinstance(error, _kube.ApiError) and error.status < 500
                if refused or answered is None or gone - answered >= SILENCE_SECONDS or gone >= params["timeout"]:
                    raise
                continue
            answered = gone
            if all(w.verdict.state == "ready" for w in waits) or any(w.verdict.state == "failed" for w in waits):
                break
        result = {"changed": False, "resources": [w.row() for w in waits], "problems": []}
        failed = [w for w in waits if w.verdict.state == "failed"] or [w for w in waits if w.verdict.state != "ready"]
        if not failed:
            return result
        early = any(w.verdict.state == "failed" for w in waits)
        rows = [problem("rollout", w.label, w.verdict.message, f"it ready within {params['timeout']} s", w.verdict.fix) for w in failed]
        headline = f"{len(failed)} of {len(waits)} not ready" + (
            f", given up after {failed[0].seconds:.0f} s because waiting longer is of no use:" if early else ":"
        )
        return {**result, "problems": rows, "failed": True, "msg": message(rows, headline)}


def look(cluster: _kube.Cluster, waited: Waited, gone: float, unschedulable_grace: int) -> None:
    """Read one resource and set its verdict, with the cause when it is not ready."""
    resource, waited.seconds = waited.resource, gone
    served = cluster.find(resource["api_version"], resource["kind"])
    if served is None:
        cluster.find(resource["api_version"], resource["kind"], fresh=True)
        waited.verdict = _rollout.Verdict("waiting", f"kind {resource['kind']} of {resource['api_version']} is not served", "install its CRD")
        return
    obj = cluster.get(served.path(resource.get("namespace"), resource["name"]))
    condition = resource.get("condition") or []
    conditions = condition if isinstance(condition, list) else [condition]
    waited.verdict = verdict = _rollout.judge(obj, resource["kind"], conditions, resource.get("fields") or [])
    if verdict.refusal != waited.refusal:
        waited.refusal, waited.refused_since = verdict.refusal, gone
    grace = resource.get("condition_grace")
    if verdict.refusal and grace is not None and gone - waited.refused_since >= grace:
        waited.verdict = replace(verdict, state="failed")
        return
    if obj is None or verdict.state == "ready" or (resource["kind"] not in _rollout.WORKLOADS and resource["kind"] != "PersistentVolumeClaim"):
        return
    if verdict.state == "failed" and resource["kind"] == "Job":
        waited.verdict = _rollout.Verdict("failed", f"{verdict.message}; its last words: {_rollout.last_words(cluster, obj) or 'none'}", verdict.fix)
        return
    if waited.leaving:
        waited.since = now()
    cause, waited.leaving = _rollout.explain(cluster, obj, resource["kind"], waited.since)
    waited.unplaced_since = None if not (cause and cause.unschedulable) else gone if waited.unplaced_since is None else waited.unplaced_since
    if cause is None:
        return
    # Without a place for so long, and nobody at work on a node for it: a later look would find the same.
    grace = min(unschedulable_grace, OLD_NEWS_SECONDS) if cause.never else unschedulable_grace
    stuck = waited.unplaced_since is not None and gone - waited.unplaced_since >= grace
    state = "failed" if cause.final or stuck or verdict.state == "failed" else "waiting"
    waited.verdict = _rollout.Verdict(state, f"{verdict.message}; {cause.found}", cause.fix)
