# SPDX-License-Identifier: GPL-3.0-or-later
"""Pod statuses as a kubelet writes them. Pure: a pod and what its containers do in, a status patch out."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace
from typing import Any

from .kube import Object, now

ADDRESSES = "10.245"  # pods of the stand-ins; KWOK gives 10.244.x.y to its own
BACKOFF_FIRST = 10.0  # seconds of a kubelet's first back-off after a crash, doubling up to BACKOFF_LAST
BACKOFF_LAST = 300.0


@dataclass(frozen=True)
class Container:
    """What one container does: `state` and `last` are container states in API form."""

    name: str
    image: str
    state: Object
    last: Object | None = None
    ready: bool = False
    started: bool = False
    restarts: int = 0

    def to_status(self) -> Object:
        """As an item of status.containerStatuses."""
        running_or_over = "waiting" not in self.state
        return {
            "name": self.name,
            "image": self.image,
            "imageID": f"docker-pullable://{self.image}" if running_or_over else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last or {},
        }


def waiting(reason: str, message: str = "") -> Object:
    """State of a container that does not run."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running() -> Object:
    """State of a container from now on."""
    return {"running": {"startedAt": now()}}


def terminated(exit_code: int, started_at: str, reason: str = "", message: str = "") -> Object:
    """State of a container that has ended now; the reason is the kubelet's for that exit code unless given."""
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "startedAt": started_at or now(),
            "finishedAt": now(),
            **({"message": message} if message else {}),
        }
    }


def back_off(restarts: int) -> float:
    """Seconds that a kubelet waits before it starts a container again that has crashed `restarts` + 1 times."""
    return min(BACKOFF_FIRST * 2**restarts, BACKOFF_LAST)


def crash_loop(container: Container, pod: Object, ended: Object) -> Container:
    """The container after an end, while the kubelet holds it back."""
    meta = pod["metadata"]
    wait = back_off(container.restarts)
    held = f"{wait:.0f}s" if wait < 60 else f"{wait // 60:.0f}m{wait % 60:.0f}s"
    message = f"back-off {held} restarting failed container={container.name} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
    return replace(container, state=waiting("CrashLoopBackOff", message), last=ended, ready=False, started=False)


def probe_budget(container: Object) -> tuple[str, float] | None:
    """(probe, seconds) after which a container that never answers is killed, or None when no probe kills it."""
    for kind in ("startup", "liveness"):
        probe = container.get(f"{kind}Probe")
        if probe:
            return kind, probe.get("initialDelaySeconds", 0) + probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
    return None


def conditions(pod: Object, **truth: tuple[bool, str, str]) -> list[Object]:
    """Conditions of these types: (true?, reason, message). The transition time stays while the status does."""
    known = {c["type"]: c for c in pod.get("status", {}).get("conditions", [])}
    rows = []
    for kind, (value, reason, message) in truth.items():
        status = "True" if value else "False"
        before = known.get(kind, {})
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        # null removes what an earlier state left behind: this is a merge.
        rows.append(
            {"type": kind, "status": status, "lastTransitionTime": since or now(), "lastProbeTime": None, "reason": reason or None, "message": message or None}
        )
    return rows


def pod_patch(
    pod: Object, containers: list[Container], address: str, initialised: bool = True, inits: list[Container] | None = None, phase: str = ""
) -> dict[str, Any]:
    """Strategic merge patch of a pod's status from its containers; PodScheduled, which is the scheduler's, is left alone."""
    unready = [c.name for c in containers if not c.ready]
    over = [c.state["terminated"] for c in containers if "terminated" in c.state]
    if not phase:
        if any("running" in c.state or c.last for c in containers):
            phase = "Running"
        elif len(over) == len(containers):
            phase = "Succeeded" if all(t["exitCode"] == 0 for t in over) else "Failed"
        else:
            phase = "Pending"
    done = phase == "Succeeded"
    reason = "PodCompleted" if done else "ContainersNotReady" if unready else ""
    message = f"containers with unready status: [{' '.join(unready)}]" if unready and not done else ""
    init_message = "" if initialised else "containers with incomplete status"
    placed = any("waiting" not in c.state or c.last for c in [*containers, *(inits or [])])
    status: Object = {
        "phase": phase,
        "startTime": pod.get("status", {}).get("startTime") or now(),
        "observedGeneration": pod["metadata"].get("generation", 1),
        "conditions": conditions(
            pod,
            PodReadyToStartContainers=(placed and not done, "", ""),
            Initialized=(initialised, "PodCompleted" if done else "" if initialised else "ContainersNotInitialized", init_message),
            Ready=(not unready, reason, message),
            ContainersReady=(not unready, reason, message),
        ),
        "containerStatuses": [c.to_status() for c in containers],
    }
    if inits:
        status["initContainerStatuses"] = [c.to_status() for c in inits]
    if address and placed:
        status |= {"hostIP": "127.0.0.1", "podIP": address, "podIPs": [{"ip": address}]}
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}


class Addresses:
    """Hands out pod addresses that nothing routes to."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def take(self) -> str:
        with self._lock:
            number = next(self._numbers)
        return f"{ADDRESSES}.{number // 250 % 250}.{number % 250 + 1}"
