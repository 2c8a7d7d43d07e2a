# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a pod does not become ready, in one sentence. Pure: the caller brings pod, events and log lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

# Registries say this when trying again is of no use.
PULL_FINAL = re.compile(r"not found|manifest unknown|unauthorized|denied|forbidden|invalid|no such host|failed to resolve", re.IGNORECASE)
CONFIG_ERRORS = ("CreateContainerConfigError", "CreateContainerError", "InvalidImageName", "ErrImageNeverPull", "RunContainerError")
# Karpenter's words when no node that it may start can ever take the pod. "Offering" beside them may be capacity that is only short for minutes.
NEVER = re.compile(r"exceed.*limit|limits? exceeded|no instance type|incompatible with nodepool|no nodepools? found|did not tolerate", re.IGNORECASE)
OFFERING = re.compile(r"offering", re.IGNORECASE)


@dataclass(frozen=True)
class Cause:
    """`final` causes end the wait; others are shown when the time is over. `found` is a clause, `fix` what to do.

    `unschedulable`: the pod has no place (or no volume, or may not be created), and nobody is at work on it. `never`: nor can anybody be, but that was
    said before the wait or is tried again.
    """

    found: str
    fix: str
    final: bool = False
    unschedulable: bool = False
    never: bool = False


def when(event: Object) -> str:
    """The last time of an event, to the second; "" if it names none."""
    return (event.get("lastTimestamp") or event.get("eventTime") or "")[:19]


def cause(pod: Object, events: Iterable[Object], log: Callable[[str], str], since: str = "") -> Cause | None:
    """The cause that matters most, None when the pod is simply on its way. `log(container)` returns the last lines of its last run.

    `since`: UTC in Kubernetes' format; what happened until then may be mended by now, and is not final.
    """
    name, status = pod["metadata"]["name"], pod.get("status", {})
    events = sorted(events, key=when)
    scheduled = next((c for c in status.get("conditions", []) if c["type"] == "PodScheduled"), None)
    if scheduled and scheduled["status"] == "False" and not pod["spec"].get("nodeName"):
        return _unscheduled(name, scheduled, events, since[:19])
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        found = _container(name, container, events, log, since[:19])
        if found:
            return found
    mount = next((e for e in reversed(events) if e.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")), None)
    if mount and status.get("phase") == "Pending":
        return Cause(f"pod {name}: {mount['message']}", "see that the volume, Secret or ConfigMap exists and can be reached from the node")
    if status.get("phase") == "Running":
        return Cause(f"pod {name} runs but is not ready", "read its log; if it is still loading, raise startup_seconds")
    return None


def _latest(events: Iterable[Object], *reasons: str) -> Object | None:
    return max((e for e in events if e.get("reason") in reasons), key=when, default=None)


def claim_cause(claim: Object, events: Iterable[Object]) -> Cause | None:
    """Why a claim is not bound, from its events."""
    last = _latest(events, "ProvisioningFailed", "FailedBinding")
    if last is None:
        return None
    storage_class = claim.get("spec", {}).get("storageClassName") or "the default one"
    return Cause(last["message"], f"correct the StorageClass ({storage_class}) or its driver", unschedulable=True)


def refused_cause(events: Iterable[Object], since: str = "") -> Cause | None:
    """Why a Job, StatefulSet or DaemonSet may not create pods (quota, admission), from its events. It tries again, so this is not final at once."""
    last = _latest(events, "FailedCreate")
    if last is None or when(last) <= since[:19]:
        return None
    return Cause(f"pods cannot be created: {last['message']}", "raise the quota or correct what the admission refuses", unschedulable=True, never=True)


def _unscheduled(name: str, condition: Object, events: list[Object], since: str) -> Cause:
    said = condition.get("message") or condition.get("reason") or "no reason given"
    last = next((e for e in reversed(events) if "karpenter" in _source(e)), None)
    if last and last.get("reason") == "Nominated":
        return Cause(
            f"pod {name} waits for its new node ({last['message']})",
            "see kubectl get nodeclaims; a node that never becomes Initialized lacks its device plugin",
        )
    if last and last.get("reason") == "FailedScheduling":
        never, fresh = bool(NEVER.search(last["message"])) and not OFFERING.search(last["message"]), when(last) > since
        found, fix = f"pod {name} cannot be placed: Karpenter says {last['message']}", "raise the NodePool's limits, or allow a type that fits"
        return Cause(found, fix, never and fresh, True, never)
    return Cause(f"pod {name} cannot be placed: {said}", "add a node with free GPUs of an allowed type, or a NodePool that may start one", False, True)


def _container(pod: str, status: Object, events: list[Object], log: Callable[[str], str], since: str) -> Cause | None:
    name = status["name"]
    waiting, ended = (
        status.get("state", {}).get("waiting", {}),
        status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {},
    )
    reason, said = waiting.get("reason", ""), waiting.get("message", "")
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        pulled = next((e["message"] for e in reversed(events) if e.get("reason") in ("Failed", "BackOff") and "pull" in e["message"].lower()), said)
        final = reason == "ImagePullBackOff" or bool(PULL_FINAL.search(f"{pulled} {said}"))
        return Cause(
            f"pod {pod} cannot pull {status.get('image')}: {pulled or reason}", "correct image and tag, or give the nodes access to the registry", final
        )
    if reason in CONFIG_ERRORS:
        return Cause(f"pod {pod}, container {name}: {reason}: {said}", "create what is named there", True)
    looping = reason == "CrashLoopBackOff"
    if status.get("restartCount", 0) == 0 and not looping:
        return None
    killed = next((e for e in reversed(events) if e.get("reason") == "Killing" and "probe" in e["message"] and (looping or when(e) > since)), None)
    if killed:
        probe = re.search(r"(startup|liveness)", killed["message"])
        fix = "raise startup_seconds" if probe and probe[1] == "startup" else "read the log: a server that hangs is restarted by this probe"
        return Cause(f"pod {pod} was killed by its {probe[1] if probe else ''} probe ({killed['message']})", fix, True)
    if looping or (status.get("restartCount", 0) >= 2 and (ended.get("finishedAt") or "")[:19] > since):
        lines = " | ".join(line for line in log(name).strip().splitlines()[-3:] if line.strip())
        code = ended.get("exitCode")
        why = " (out of memory)" if ended.get("reason") == "OOMKilled" else ""
        return Cause(
            f"pod {pod}, container {name} ended {status['restartCount']} times with exit code {code}{why}: {lines or 'no log'}", "mend what its log says", True
        )
    return None


def _source(event: Object) -> str:
    return f"{event.get('reportingComponent', '')} {event.get('source', {}).get('component', '')}"
