# SPDX-License-Identifier: GPL-3.0-or-later
"""Why is this pod not ready? Pure functions from a pod and its events to the most telling finding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._rollout_finding import NEVER, Finding
from ._rollout_verdict import SHORT_PATIENCE, create_failure

# What no retry changes, in the words of registries and of containerd.
IMAGE_IS_WRONG = re.compile(r"not found|manifest unknown|does not exist|denied|unauthorized|forbidden|invalid reference|no match for platform", re.IGNORECASE)
IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"}
CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# A registry that does not answer is tried again for so long.
IMAGE_PATIENCE = 90
PROBE_KILL = re.compile(r"Container (?P<container>\S+) failed (?P<probe>startup|liveness) probe")
# Karpenter's reasons for not launching a node that only a change of pool, quota or pod removes.
KARPENTER_NEVER = re.compile(r"no instance type|exceed limits for nodepool|incompatible (?:with nodepool|requirements)|did not tolerate|no nodepools? found")
KARPENTER_PATIENCE = 30
LAUNCH_REASONS = {"Nominated", "TriggeredScaleUp"}  # Karpenter, cluster-autoscaler
REFUSED_LAUNCH = {"NotTriggerScaleUp"}


def pod_finding(
    pod: Mapping[str, Any], events: Iterable[Mapping[str, Any]], launches: Iterable[Mapping[str, Any]], unschedulable_grace: float, retried: bool
) -> Finding | None:
    """`events` are those of the pod, oldest first; `launches` those of NodeClaims and NodePools; `retried`: its Job counts failures itself."""
    events = list(events)
    for status in _container_statuses(pod):
        if found := _container(pod, status, events, retried):
            return found
    return _scheduling(pod, events, list(launches), unschedulable_grace) or _mounts(pod, events) or _probes(pod, events)


def claim_finding(events: Iterable[Mapping[str, Any]]) -> Finding | None:
    """Why a PersistentVolumeClaim is not bound."""
    told = [e for e in events if e.get("reason") in ("ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer", "ExternalProvisioning")]
    if not told:
        return None
    reason, message = told[-1]["reason"], told[-1].get("message", "")
    if reason == "WaitForFirstConsumer":
        return Finding(
            "claim", "a claim that binds only when a pod uses it (WaitForFirstConsumer)", "a bound claim", "start the pod first, or do not wait for it"
        )
    final = "not found" in message or "no storage class is set" in message
    fix = "create the StorageClass or name another one" if final else "look at the storage driver's controller"
    return Finding("claim", f"{reason}: {message}", "a bound claim", fix, SHORT_PATIENCE if final else NEVER)


def creation_finding(events: Iterable[Mapping[str, Any]]) -> Finding | None:
    """Why a ReplicaSet, DaemonSet, StatefulSet or Job makes no pods."""
    told = [e for e in events if e.get("reason") == "FailedCreate"]
    return create_failure(told[-1].get("message", "")) if told else None


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return pod.get("status", {}).get("phase") == "Succeeded" or any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _container_statuses(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _container(pod: Mapping[str, Any], status: Mapping[str, Any], events: list[Mapping[str, Any]], retried: bool) -> Finding | None:
    waits = (status.get("state") or {}).get("waiting") or {}
    reason, message, name = waits.get("reason", ""), waits.get("message", ""), status["name"]
    if reason in IMAGE_REASONS:
        pulls = [e["message"] for e in events if e.get("reason") == "Failed" and "pull" in e.get("message", "")]
        told = pulls[-1] if pulls else message or reason
        patience = 0 if reason in ("InvalidImageName", "ErrImageNeverPull") or IMAGE_IS_WRONG.search(told) else IMAGE_PATIENCE
        found = f"image {status.get('image') or _spec(pod, name).get('image')} not pulled: {told}"
        return Finding("image", found, "an image that the node can pull", "correct the image name or tag, or the registry's credentials", patience)
    if reason in CONFIG_REASONS:
        fix = "create the Secret or ConfigMap, or correct name and key" if reason == "CreateContainerConfigError" else "correct command and mounts"
        return Finding("container_config", f"container {name} not started: {message or reason}", "everything that the container refers to", fix, SHORT_PATIENCE)
    exits = (status.get("lastState") or {}).get("terminated") or (status.get("state") or {}).get("terminated") or {}
    if exits and not status.get("ready") and (exits.get("exitCode") or not _is_done(status)):
        return _crash(pod, status, exits, reason == "CrashLoopBackOff", events, retried)
    return None


def _is_done(status: Mapping[str, Any]) -> bool:
    """True for an init container or a Job's container that ended well."""
    ended = (status.get("state") or {}).get("terminated")
    return bool(ended) and ended.get("exitCode") == 0


def _crash(
    pod: Mapping[str, Any], status: Mapping[str, Any], exits: Mapping[str, Any], backs_off: bool, events: list[Mapping[str, Any]], retried: bool
) -> Finding:
    name, restarts, code = status["name"], status.get("restartCount", 0), exits.get("exitCode")
    previous = not (status.get("state") or {}).get("terminated")
    log_of = (pod["metadata"]["name"], name, previous)
    # One exit may be a late dependency; a Job decides by its own backoffLimit.
    patience = NEVER if retried or not (restarts >= 2 or (backs_off and restarts >= 1)) else 0
    if exits.get("reason") == "OOMKilled":
        limit = _spec(pod, name).get("resources", {}).get("limits", {}).get("memory", "none")
        return Finding("oom", f"container {name} killed for memory, limit {limit}", "more memory", "raise its memory limit", patience, log_of)
    kills = [m["probe"] for e in events if e.get("reason") == "Killing" and (m := PROBE_KILL.search(e.get("message", ""))) and m["container"] == name]
    if kills:
        return _probe_kill(pod, name, kills[-1], patience, retried, log_of)
    found = f"container {name} exited with code {code} ({exits.get('reason', 'Error')}), {restarts} restarts"
    return Finding("crash", found, "a process that keeps running", "read its last log lines", patience, log_of)


def _probe_kill(pod: Mapping[str, Any], name: str, probe: str, patience: float, retried: bool, log_of: tuple[str, str, bool]) -> Finding:
    settings = _spec(pod, name).get(f"{probe}Probe", {})
    seconds = settings.get("initialDelaySeconds", 0) + settings.get("failureThreshold", 3) * settings.get("periodSeconds", 10)
    if probe == "startup":
        found = f"container {name} killed by its startup probe after {seconds} s: budget too short or never listening"
        fix = "raise failureThreshold of the startup probe if the log shows progress, else correct port and path"
        return Finding("startup_probe", found, "an answer to the startup probe within its budget", fix, NEVER if retried else 0, log_of)
    found = f"container {name} killed by its liveness probe after {seconds} s without an answer"
    return Finding("liveness_probe", found, "a process that answers its liveness probe", "see in the log why it hangs", patience, log_of)


def _scheduling(pod: Mapping[str, Any], events: list[Mapping[str, Any]], launches: list[Mapping[str, Any]], grace: float) -> Finding | None:
    conditions = pod.get("status", {}).get("conditions") or []
    unscheduled = next((c for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), None)
    if unscheduled is None:
        return None
    if unscheduled.get("reason") == "SchedulingGated":
        return Finding("unschedulable", "a pod held by its scheduling gates", "gates removed by their controller", "see who sets spec.schedulingGates")
    message = scheduler_sentence(unscheduled.get("message", ""))
    needed, fix = _cure(message)
    launching = [e for e in events if e.get("reason") in LAUNCH_REASONS]
    refusals = [e["message"] for e in events if _is_karpenter(e) and e.get("reason") == "FailedScheduling"]
    refusals += [e["message"] for e in events if e.get("reason") in REFUSED_LAUNCH]
    said = ""
    if launching:
        troubles = [e["message"] for e in launches if e.get("type") == "Warning" and _is_about(e, launching[-1])]
        said = f"; a node is on its way ({launching[-1]['message']})" + (f", but: {troubles[-1]}" if troubles else "")
        return Finding("unschedulable", message + said, needed, "wait, or look at the node's launch (kubectl get nodeclaims)", NEVER)
    if refusals:
        said = f"; the autoscaler adds no node: {_short(refusals[-1])}"
    elif troubles := [e for e in launches if e.get("type") == "Warning" and e["involvedObject"]["kind"] == "NodePool"]:
        said = f"; NodePool {troubles[-1]['involvedObject']['name']}: {_short(troubles[-1]['message'])}"
    never = any(KARPENTER_NEVER.search(refusal) for refusal in refusals[-1:])
    return Finding("unschedulable", message + said, needed, fix, min(grace, KARPENTER_PATIENCE) if never else grace)


def scheduler_sentence(message: str) -> str:
    """`0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 ...` without what preemption and resource claims add to it."""
    text = re.split(r"\.? *(?:preemption|no new claims to deallocate)\b", message.strip())[0].strip(" .,")
    match = re.match(r"0/(\d+) nodes are available: (.+)", text, re.DOTALL)
    if match:
        return f"no room on any of {match[1]} nodes: {match[2].rstrip(' .,')}"
    return text or "the scheduler has not placed it"


def _cure(message: str) -> tuple[str, str]:
    if "no nodes available" in message or "any of 0 nodes" in message:
        return "a node", "add a node group or NodePool"
    if "PersistentVolumeClaim" in message or "volume node affinity" in message:
        return "a bound claim in the zone of a fitting node", "look at the claim and its StorageClass"
    if resource := re.search(r"Insufficient ([^\s,.]+(?:\.[^\s,]+)*)", message):
        return f"a node with free {resource[1]}", f"add nodes with {resource[1]} or free some; with Karpenter, see the NodePool's limits and instance types"
    if "taint" in message:
        return "a node whose taints it tolerates", "add the toleration to the pod, or remove the taint"
    if "affinity" in message or "selector" in message:
        return "a node with the labels it asks for", "label a node, or change nodeSelector and affinity"
    return "a node that fits", "change the pod's demands or add a node"


def _is_karpenter(event: Mapping[str, Any]) -> bool:
    return "karpenter" in (event.get("reportingComponent") or event.get("source", {}).get("component") or "")


def _is_about(event: Mapping[str, Any], nomination: Mapping[str, Any]) -> bool:
    """True for trouble with the NodeClaim that Karpenter nominated (`Pod should schedule on: nodeclaim/x, node/y`)."""
    return f"/{event['involvedObject']['name']}" in nomination.get("message", "")


def _mounts(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Finding | None:
    if not any(((s.get("state") or {}).get("waiting") or {}).get("reason") in ("ContainerCreating", "PodInitializing") for s in _container_statuses(pod)):
        return None
    told = [e for e in events if e.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")]
    if not told:
        return None
    message = _short(told[-1].get("message", ""))
    final = "not found" in message
    fix = "create what is missing or correct its name" if final else "look at the storage or network driver on that node"
    return Finding("mount", f"{told[-1]['reason']}: {message}", "volumes and network for the pod", fix, SHORT_PATIENCE if final else NEVER)


def _probes(pod: Mapping[str, Any], events: list[Mapping[str, Any]]) -> Finding | None:
    """Running, but not (yet) answering: normal while weights load."""
    told = [e["message"] for e in events if e.get("reason") == "Unhealthy"]
    running = [s["name"] for s in _container_statuses(pod) if not s.get("ready") and (s.get("state") or {}).get("running")]
    if not running:
        return None
    found = f"container {', '.join(running)} running but not ready" + (f": {_short(told[-1])}" if told else "")
    return Finding("not_ready", found, "an answer to its probes", "wait, or read its log")


def _spec(pod: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    spec = pod.get("spec") or {}
    return next((c for c in [*spec.get("containers", []), *spec.get("initContainers", [])] if c["name"] == container), {})


def _short(text: str, longest: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
