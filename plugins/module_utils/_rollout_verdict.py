# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this object ready? Pure functions from an object, as the API server returns it, to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._rollout_finding import READY, Finding, Verdict, failed, waiting

# Seconds for which a state that may heal by itself (a Secret made a moment later, a quota freed by an old pod) is borne with.
SHORT_PATIENCE = 20
# Conditions that mean "works" where the user names none, best first.
GOOD_CONDITIONS = ("Ready", "Available", "Established")

DEADLINE_FIX = "look at the cause below the pods; raise progressDeadlineSeconds if it is only slow"


def verdict(obj: Mapping[str, Any] | None, conditions: list[dict[str, Any]], has_status: bool) -> Verdict:
    """`conditions` are what the user asked for, normalized by conditions_of; `has_status`: a controller is expected to write .status."""
    if obj is None:
        return waiting("it does not exist", "the object")
    if obj["metadata"].get("deletionTimestamp"):
        return waiting(f"it being deleted since {obj['metadata']['deletionTimestamp']}", "an object that stays")
    if conditions:
        return _named_conditions(obj, conditions)
    group = obj["apiVersion"].rpartition("/")[0]
    known = KNOWN.get((group, obj["kind"]))
    return known(obj) if known else _any_kind(obj, has_status)


def conditions_of(given: Any) -> list[dict[str, Any]]:
    """The option `condition` as a list of {type, status, reasons, terminal}. Raises ValueError naming what is wrong."""
    listed = [given] if isinstance(given, Mapping) else given or []
    if not isinstance(listed, (list, tuple)):
        raise ValueError(f"a {type(given).__name__} as condition; needed a dict or a list of dicts")
    wanted = []
    for one in listed:
        if not isinstance(one, Mapping) or not one.get("type"):
            raise ValueError("a condition without type; needed e.g. {type: Ready}")
        if unknown := sorted(one.keys() - {"type", "status", "reason", "terminal"}):
            raise ValueError(f"the unknown key {', '.join(unknown)} in a condition; known are type, status, reason, terminal")
        reason = one.get("reason") or []
        reasons = [str(r) for r in ([reason] if isinstance(reason, str) else reason)]
        # YAML's true is the API's "True".
        wanted.append({"type": str(one["type"]), "status": str(one.get("status", "True")), "reasons": reasons, "terminal": bool(one.get("terminal"))})
    return wanted


def _unseen(obj: Mapping[str, Any], required: bool = True) -> str:
    """Non-empty while the controller has not seen the newest generation, so that its status is about an older one."""
    seen, generation = obj.get("status", {}).get("observedGeneration"), obj["metadata"].get("generation")
    if generation is None or (seen is None and not required) or (seen or 0) >= generation:
        return ""
    return f"its controller has not yet seen generation {generation} (status is of {seen or 'none'})"


def _condition(obj: Mapping[str, Any], name: str) -> dict[str, Any]:
    return next((c for c in obj.get("status", {}).get("conditions") or [] if c.get("type") == name), {})


def _told(condition: Mapping[str, Any]) -> str:
    """`Ready=False (Reason): message`"""
    reason, message = condition.get("reason"), condition.get("message")
    return f"{condition['type']}={condition.get('status')}" + (f" ({reason})" if reason else "") + (f": {message}" if message else "")


def _stale(obj: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    seen = condition.get("observedGeneration")
    return seen is not None and seen < (obj["metadata"].get("generation") or 0)


def _named_conditions(obj: Mapping[str, Any], wanted: list[dict[str, Any]]) -> Verdict:
    if unseen := _unseen(obj, required=False):
        return waiting(unseen)
    open_points = []
    for want in wanted:
        has = _condition(obj, want["type"])
        expected = f"{want['type']}={want['status']}" + (f" ({' or '.join(want['reasons'])})" if want["reasons"] else "")
        fits = bool(has) and not _stale(obj, has) and has.get("status") == want["status"] and (not want["reasons"] or has.get("reason") in want["reasons"])
        if want["terminal"]:
            if fits:
                return failed("condition", _told(has), f"not {expected}", "remove the cause that the message names")
        elif not fits:
            told = "no condition " + want["type"] if not has else _told(has) + (" of an older generation" if _stale(obj, has) else "")
            open_points.append((told, expected))
    if not open_points:
        return READY
    return waiting("; ".join(told for told, _expected in open_points), ", ".join(expected for _told_, expected in open_points))


def _any_kind(obj: Mapping[str, Any], has_status: bool) -> Verdict:
    """A custom resource, or a kind that is ready by being there."""
    if unseen := _unseen(obj, required=False):
        return waiting(unseen)
    status = obj.get("status") or {}
    if isinstance(state := status.get("state"), str):  # NVIDIA's operators
        if state.lower() == "ready":
            return READY
        told = [_told(c) for c in status.get("conditions") or [] if c.get("status") == "False" or c.get("type") == "Error"]
        return waiting("; ".join([f"status.state {state}", *told]), "status.state ready")
    for name in GOOD_CONDITIONS:
        if has := _condition(obj, name):
            if has.get("status") == "True" and not _stale(obj, has):
                return READY
            return waiting(_told(has) + (" of an older generation" if _stale(obj, has) else ""), f"{name}=True")
    if has_status and not status:
        return waiting("no status yet", "a status from its controller")
    return READY


def _deployment(obj: Mapping[str, Any]) -> Verdict:
    if unseen := _unseen(obj):
        return waiting(unseen)
    if obj["spec"].get("paused"):
        return failed("paused", "a paused Deployment", "one that rolls out", "set spec.paused: false (kubectl rollout resume)")
    progressing, failure = _condition(obj, "Progressing"), _condition(obj, "ReplicaFailure")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return failed("progress_deadline", progressing.get("message") or "no progress", "progress within progressDeadlineSeconds", DEADLINE_FIX, inspect=True)
    if failure.get("status") == "True":
        return Verdict(False, create_failure(failure.get("message", "")), inspect=True)
    wanted, status = obj["spec"].get("replicas", 1), obj.get("status") or {}
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated < wanted:
        return waiting(f"{updated} of {wanted} pods of the new version created", inspect=True)
    if status.get("replicas", 0) > updated:
        return waiting(f"{status['replicas'] - updated} pods of the old version still there", inspect=True)
    if available < updated:
        return waiting(f"{available} of {wanted} pods available", inspect=True)
    return READY


def _daemon_set(obj: Mapping[str, Any]) -> Verdict:
    if unseen := _unseen(obj):
        return waiting(unseen)
    status = obj["status"]
    wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    updated = wanted if obj["spec"].get("updateStrategy", {}).get("type") == "OnDelete" else status.get("updatedNumberScheduled", 0)
    if updated < wanted or available < wanted:
        return waiting(f"{updated} of {wanted} pods updated, {available} available", inspect=True)
    return READY


def _stateful_set(obj: Mapping[str, Any]) -> Verdict:
    if unseen := _unseen(obj):
        return waiting(unseen)
    status, wanted = obj["status"], obj["spec"].get("replicas", 1)
    strategy = obj["spec"].get("updateStrategy", {})
    old = strategy.get("rollingUpdate", {}).get("partition", 0)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if available < wanted:
        return waiting(f"{available} of {wanted} pods available", inspect=True)
    if strategy.get("type") != "OnDelete" and status.get("updateRevision") != status.get("currentRevision") and updated < wanted - old:
        return waiting(f"{updated} of {wanted - old} pods updated", inspect=True)
    return READY


def _job(obj: Mapping[str, Any]) -> Verdict:
    if _condition(obj, "Complete").get("status") == "True":
        return READY
    failure = _condition(obj, "Failed")
    if failure.get("status") == "True":
        return failed("job", _told(failure), "a completed Job", "read the log of its pod, delete the Job and run again", inspect=True)
    if obj["spec"].get("suspend"):
        return waiting("it suspended", "a running Job")
    status = obj.get("status") or {}
    return waiting(f"{status.get('active', 0)} active, {status.get('succeeded', 0)} succeeded, {status.get('failed', 0)} failed pods", inspect=True)


def _pod(obj: Mapping[str, Any]) -> Verdict:
    status = obj.get("status") or {}
    if status.get("phase") == "Succeeded" or _condition(obj, "Ready").get("status") == "True":
        return READY
    if status.get("phase") == "Failed":
        return failed("pod", f"it failed: {status.get('reason', '')} {status.get('message', '')}".strip(), "a ready pod", "read its log", inspect=True)
    return waiting(f"phase {status.get('phase', 'unknown')}", "a ready pod", inspect=True)


def _claim(obj: Mapping[str, Any]) -> Verdict:
    phase = obj.get("status", {}).get("phase")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return failed("claim", "its volume lost", "a bound claim", "restore the PersistentVolume, or delete the claim and make it again")
    return waiting(f"phase {phase}", "a bound claim", inspect=True)


def _custom_resource_definition(obj: Mapping[str, Any]) -> Verdict:
    names = _condition(obj, "NamesAccepted")
    if names.get("status") == "False":
        return failed("crd", _told(names), "names that no other CRD has", "remove the other CRD or rename this one")
    established = _condition(obj, "Established")
    if established.get("status") == "True":
        return READY
    return waiting(_told(established) if established else "no condition Established", "Established=True")


def _namespace(obj: Mapping[str, Any]) -> Verdict:
    phase = obj.get("status", {}).get("phase")
    return READY if phase == "Active" else waiting(f"phase {phase}", "phase Active")


def create_failure(message: str) -> Finding:
    """Pods that the API server refuses: quota, admission, a missing ServiceAccount."""
    if "exceeded quota" in message:
        return Finding("quota", message, "room in the namespace's ResourceQuota", "raise the quota or lower the request", SHORT_PATIENCE)
    return Finding("create", message, "pods that the API server admits", "correct what the message names (admission policy, ServiceAccount)", SHORT_PATIENCE)


KNOWN: dict[tuple[str, str], Callable[[Mapping[str, Any]], Verdict]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Namespace"): _namespace,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _custom_resource_definition,
}
