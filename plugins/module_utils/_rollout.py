# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a resource is ready, and if not why. One kind, one meaning; conditions count only for the generation that they were made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._kube import ANY, ApiError, Cluster
from ._rollout_causes import Cause, cause, claim_cause, refused_cause, when

Object = Mapping[str, Any]
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "Job", "Pod")
# Their controller always writes status.observedGeneration: without it, it has not looked at a new object yet.
OBSERVED = ("Deployment", "DaemonSet", "StatefulSet")


@dataclass(frozen=True)
class Verdict:
    """`state` is ready, waiting or failed; `message` says what is seen; `fix` what to do about it.

    `refusal`: type and reason of a condition that is plainly False, where True was asked for. Some controllers mean "at work" by it, others "never".
    """

    state: str
    message: str = ""
    fix: str = ""
    refusal: str = ""


READY = Verdict("ready")


def judge(obj: Object | None, kind: str, wanted: list[Mapping[str, Any]], fields: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """Verdict on the object alone.

    `wanted` are conditions {type, status, reason (one or a list)}, `fields` {path, value, fix}; without any the kind's own rule applies.
    """
    if obj is None:
        return Verdict("waiting", "does not exist", "see that it was created, and that its kind is served")
    status, generation = obj.get("status", {}), obj["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0 if kind in OBSERVED else generation) < generation:
        return Verdict("waiting", "its controller has not seen the last change yet", "see that the controller runs")
    if wanted or fields:
        verdicts = [*(_condition(obj, w) for w in wanted), *(_field(obj, f) for f in fields)]
        return next((v for v in verdicts if v.state != "ready"), READY)
    rule = {"Deployment": _deployment, "DaemonSet": _daemon_set, "StatefulSet": _stateful_set, "Job": _job, "Pod": _pod, "PersistentVolumeClaim": _claim}.get(
        kind
    )
    if rule:
        return rule(obj)
    return _condition(obj, {"type": "Established" if kind == "CustomResourceDefinition" else "Ready"})


def _conditions(obj: Object) -> dict[str, Object]:
    return {c["type"]: c for c in obj.get("status", {}).get("conditions") or []}


def _condition(obj: Object, wanted: Mapping[str, Any]) -> Verdict:
    kind, status = wanted["type"], str(wanted.get("status") or "True")
    seen = _conditions(obj).get(kind)
    if seen is None:
        return Verdict("waiting", f"has no condition {kind} yet", "see that its controller runs")
    if seen.get("observedGeneration", 0) and seen["observedGeneration"] < obj["metadata"].get("generation", 0):
        return Verdict("waiting", f"condition {kind} is about an older generation", "see that its controller runs")
    told = ": ".join(part for part in (seen.get("reason"), seen.get("message")) if part)
    reasons = wanted.get("reason")
    reasons = [reasons] if isinstance(reasons, str) else reasons
    if seen["status"] != status or (reasons and seen.get("reason") not in reasons):
        # The conditions beside it often say more than Ready itself.
        others = [f"{t} is {c['status']}: {c.get('message') or c.get('reason')}" for t, c in _conditions(obj).items() if t != kind and c["status"] == "False"]
        need = f" (needed {status}{' for ' + ' or '.join(reasons) if reasons else ''})"
        refusal = f"{kind} {seen.get('reason', '')}" if (seen["status"], status) == ("False", "True") else ""
        return Verdict("waiting", "; ".join([f"condition {kind} is {seen['status']}: {told}{need}", *others]), "correct what the message names", refusal)
    return READY


def _field(obj: Object, wanted: Mapping[str, Any]) -> Verdict:
    """`path` leads to the field; without `value` it must be there and be neither empty nor 0."""
    found: Any = obj
    for key in wanted["path"]:
        found = found.get(key) if isinstance(found, Mapping) else None
    value = wanted.get("value")
    if str(found) == str(value) if value is not None else found and str(found) != "0":
        return READY
    told = "missing" if found in (None, "") else found
    need = f" (needed {value})" if value is not None else ""
    return Verdict("waiting", f"{'.'.join(wanted['path'])} is {told}{need}", wanted.get("fix") or "see that its controller runs")


def _deployment(obj: Object) -> Verdict:
    spec, status, conditions = obj["spec"], obj.get("status", {}), _conditions(obj)
    wanted = spec.get("replicas", 1)
    failure, progress = conditions.get("ReplicaFailure"), conditions.get("Progressing")
    if failure and failure["status"] == "True":
        return Verdict("failed", f"pods cannot be created: {failure.get('message')}", "raise the quota or correct what the admission refuses")
    if (
        status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= max(wanted, status.get("updatedReplicas", 0))
    ):
        return READY
    told = f"{status.get('availableReplicas', 0)} of {wanted} replicas available, {status.get('updatedReplicas', 0)} updated"
    if progress and progress["status"] == "False":
        return Verdict("failed", f"{told}; {progress.get('message')}", "look at its pods")
    return Verdict("waiting", told, "look at its pods")


def _daemon_set(obj: Object) -> Verdict:
    status = obj.get("status", {})
    wanted, ready = status.get("desiredNumberScheduled", 0), min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
    return READY if ready >= wanted else Verdict("waiting", f"{ready} of {wanted} pods ready", "look at its pods")


def _stateful_set(obj: Object) -> Verdict:
    status, wanted = obj.get("status", {}), obj["spec"].get("replicas", 1)
    ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", wanted))
    return READY if ready >= wanted else Verdict("waiting", f"{ready} of {wanted} pods ready", "look at its pods")


def _job(obj: Object) -> Verdict:
    conditions, status = _conditions(obj), obj.get("status", {})
    if conditions.get("Complete", {}).get("status") == "True":
        return READY
    for kind in ("Failed", "FailureTarget"):
        if conditions.get(kind, {}).get("status") == "True":
            told = conditions[kind]
            return Verdict("failed", f"{told.get('reason')}: {told.get('message')}", "read the log of its pod")
    return Verdict("waiting", f"{status.get('active', 0)} pods at work, {status.get('failed', 0)} failed", "read the log of its pod")


def _pod(obj: Object) -> Verdict:
    phase = obj.get("status", {}).get("phase")
    if phase == "Failed":
        return Verdict("failed", f"phase Failed: {obj['status'].get('message') or obj['status'].get('reason') or ''}", "read its log")
    ready = phase == "Succeeded" or _conditions(obj).get("Ready", {}).get("status") == "True"
    return READY if ready else Verdict("waiting", f"phase {phase}", "look at its events")


def _claim(obj: Object) -> Verdict:
    phase = obj.get("status", {}).get("phase")
    if phase == "Lost":
        return Verdict("failed", "its volume is lost", "restore the volume or make a new claim")
    return READY if phase == "Bound" else Verdict("waiting", f"phase {phase}", "look at its events: StorageClass, driver, and whether a pod uses it")


def explain(cluster: Cluster, obj: Object, kind: str, since: str = "") -> tuple[Cause | None, bool]:
    """(What the pods or the events of a resource that is not ready say, the gravest cause; whether older pods are on their way out.)

    A pod that finds no place while another one still leaves may only wait for its GPUs: that is neither final nor unschedulable. `since` as for cause().
    """
    namespace = obj["metadata"].get("namespace", "")
    if kind == "PersistentVolumeClaim":
        return claim_cause(obj, _events(cluster, namespace, obj["metadata"]["name"])), False
    found, pods = [], _pods(cluster, obj, kind, namespace)
    # A Deployment's own status says it.
    refused = None if kind in ("Deployment", "Pod") else refused_cause(_events(cluster, namespace, obj["metadata"]["name"]), since)
    if refused:
        found.append(refused)
    leaving = [pod for pod in pods if kind != "Pod" and pod["metadata"].get("deletionTimestamp")]
    for pod in _newest(cluster, obj, namespace, pods) if kind == "Deployment" else pods:
        if pod in leaving or _pod(pod).state == "ready":
            continue
        name = pod["metadata"]["name"]
        seen = cause(pod, _events(cluster, namespace, name), lambda container, name=name: _log(cluster, namespace, name, container), since)
        if seen and seen.unschedulable and "persistentvolumeclaim" in seen.found.lower():
            seen = _claim_of(cluster, namespace, pod) or seen
        if seen and seen.unschedulable and leaving:
            left = ", ".join(p["metadata"]["name"] for p in leaving)
            seen = replace(seen, found=f"{seen.found} (while {left} on its way out)", final=False, unschedulable=False, never=False)
        if seen:
            found.append(seen)
    return max(found, key=lambda c: (c.final, c.never, c.unschedulable), default=None), bool(leaving)


def _claim_of(cluster: Cluster, namespace: str, pod: Object) -> Cause | None:
    """What is wrong with the first claim of a pod that is not bound."""
    for volume in pod["spec"].get("volumes", []):
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        claim = cluster.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}") if name else None
        if name and claim is None:
            return Cause(f"pod {pod['metadata']['name']} wants claim {name}, which does not exist", "create the claim", unschedulable=True)
        if claim and claim.get("status", {}).get("phase") != "Bound":
            seen = claim_cause(claim, _events(cluster, namespace, name))
            return seen and replace(seen, found=f"pod {pod['metadata']['name']} cannot be placed: claim {name}: {seen.found}")
    return None


def last_words(cluster: Cluster, obj: Object) -> str:
    """The last log lines of a failed Job's newest pod."""
    namespace = obj["metadata"]["namespace"]
    pods = sorted(_pods(cluster, obj, "Job", namespace), key=lambda p: p["metadata"]["creationTimestamp"])
    return _log(cluster, namespace, pods[-1]["metadata"]["name"], pods[-1]["spec"]["containers"][0]["name"], previous=False).strip() if pods else ""


def _selector(obj: Object) -> str:
    return ",".join(f"{k}={v}" for k, v in (obj.get("spec", {}).get("selector", {}).get("matchLabels") or {}).items())


def _pods(cluster: Cluster, obj: Object, kind: str, namespace: str) -> list[Object]:
    """All pods of the resource."""
    if kind == "Pod":
        return [obj]
    selector = _selector(obj)
    return cluster.items(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector}) if selector else []


def _newest(cluster: Cluster, obj: Object, namespace: str, pods: list[Object]) -> list[Object]:
    """Those of a Deployment's newest revision."""
    sets = cluster.items(f"/apis/apps/v1/namespaces/{namespace}/replicasets", {"labelSelector": _selector(obj)}) if pods else []
    newest = max(sets, key=lambda s: int(s["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision", 0)), default=None)
    return [p for p in pods if newest and any(o["uid"] == newest["metadata"]["uid"] for o in p["metadata"].get("ownerReferences", []))]


def _events(cluster: Cluster, namespace: str, name: str) -> list[Object]:
    try:
        events = cluster.items(f"/api/v1/namespaces/{namespace}/events", {"fieldSelector": f"involvedObject.name={name}"})
    except ApiError:  # who may not read events still learns what the status says
        return []
    return sorted(events, key=when)


def _log(cluster: Cluster, namespace: str, pod: str, container: str, previous: bool = True) -> str:
    asked = {"container": container, "tailLines": 5, **({"previous": "true"} if previous else {})}
    try:
        return cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", asked, accept=ANY)
    except ApiError:
        return _log(cluster, namespace, pod, container, previous=False) if previous else ""
