# SPDX-License-Identifier: GPL-3.0-or-later
"""What a resource's status, its pods and their events make of a wait."""

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _rollout, _rollout_causes


def deployment(available=0, updated=0, wanted=1, generation=1, observed=1, conditions=()):
    status = {"observedGeneration": observed, "availableReplicas": available, "updatedReplicas": updated, "replicas": updated, "conditions": list(conditions)}
    return {"metadata": {"name": "d", "generation": generation}, "spec": {"replicas": wanted}, "status": status}


def custom(status="True", reason="Reconciled", generation=1, observed=1):
    condition = {"type": "Ready", "status": status, "reason": reason, "message": "said so", "observedGeneration": observed}
    return {"metadata": {"name": "c", "generation": generation}, "status": {"conditions": [condition]}}


def job(**conditions):
    return {
        "metadata": {"name": "j"},
        "spec": {},
        "status": {"conditions": [{"type": k, "status": "True", "reason": v, "message": "m"} for k, v in conditions.items()]},
    }


@pytest.mark.parametrize(
    ("obj", "kind", "wanted", "state", "says"),
    [
        (None, "Deployment", [], "waiting", "does not exist"),
        (deployment(1, 1), "Deployment", [], "ready", ""),
        (deployment(1, 1, generation=2), "Deployment", [], "waiting", "has not seen the last change"),
        (deployment(1, 0), "Deployment", [], "waiting", "1 of 1 replicas available, 0 updated"),
        (deployment(conditions=[{"type": "Progressing", "status": "False", "message": "too long"}]), "Deployment", [], "failed", "too long"),
        (
            deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}]),
            "Deployment",
            [],
            "failed",
            "exceeded quota",
        ),
        (custom(), "NodePool", [], "ready", ""),
        (custom(generation=2), "NodePool", [], "waiting", "older generation"),
        (custom("False"), "NodePool", [], "waiting", "condition Ready is False: Reconciled: said so"),
        (custom(reason="NoGPUNodes"), "ClusterPolicy", [{"type": "Ready", "reason": "Reconciled"}], "waiting", "needed True for Reconciled"),
        (custom(reason="NoGPUNodes"), "ClusterPolicy", [{"type": "Ready", "reason": ["Reconciled", "NoGPUNodes"]}], "ready", ""),
        ({"metadata": {}, "status": {}}, "NodePool", [], "waiting", "no condition Ready yet"),
        (job(Complete="x"), "Job", [], "ready", ""),
        (job(Failed="BackoffLimitExceeded"), "Job", [], "failed", "BackoffLimitExceeded"),
        ({"metadata": {}, "status": {"phase": "Bound"}}, "PersistentVolumeClaim", [], "ready", ""),
        ({"metadata": {}, "status": {"phase": "Lost"}}, "PersistentVolumeClaim", [], "failed", "lost"),
        ({"metadata": {}, "status": {"phase": "Succeeded"}}, "Pod", [], "ready", ""),
    ],
)
def test_verdicts(obj, kind, wanted, state, says):
    verdict = _rollout.judge(obj, kind, wanted)
    assert verdict.state == state
    assert says in verdict.message


GPU_FIELD = {"path": ["status", "allocatable", "nvidia.com/gpu"], "fix": "look at the device plugin"}


@pytest.mark.parametrize(
    ("status", "field", "state", "says"),
    [
        ({"allocatable": {"nvidia.com/gpu": "4"}}, GPU_FIELD, "ready", ""),
        ({"allocatable": {"nvidia.com/gpu": "0"}}, GPU_FIELD, "waiting", "status.allocatable.nvidia.com/gpu is 0"),
        ({"allocatable": {"cpu": "4"}}, GPU_FIELD, "waiting", "status.allocatable.nvidia.com/gpu is missing"),
        ({"state": "ready"}, {"path": ["status", "state"], "value": "ready"}, "ready", ""),
        ({"state": "notReady"}, {"path": ["status", "state"], "value": "ready"}, "waiting", "status.state is notReady (needed ready)"),
    ],
)
def test_fields(status, field, state, says):
    verdict = _rollout.judge({"metadata": {}, "status": status}, "Node", [], [field])
    assert (verdict.state, verdict.message) == (state, says)
    assert state == "ready" or verdict.fix == field.get("fix", "see that its controller runs")


def test_a_field_does_not_excuse_a_condition():
    obj = custom("False")
    obj["status"]["state"] = "ready"
    verdict = _rollout.judge(obj, "ClusterPolicy", [{"type": "Ready"}], [{"path": ["status", "state"], "value": "ready"}])
    assert verdict.state == "waiting"


def pod(statuses=(), scheduled="True", message="", phase="Pending"):
    conditions = [{"type": "PodScheduled", "status": scheduled, "reason": "Unschedulable", "message": message}]
    spec = {"nodeName": "n"} if scheduled == "True" else {}
    return {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase, "conditions": conditions, "containerStatuses": list(statuses)}}


def container(state, restarts=0, last=None):
    return {"name": "vllm", "image": "r/vllm:1", "restartCount": restarts, "state": state, "lastState": last or {}}


def event(reason, message, component="kubelet"):
    return {"reason": reason, "message": message, "source": {"component": component}}


@pytest.mark.parametrize(
    ("seen", "events", "final", "says"),
    [
        (pod(scheduled="False", message="0/3 nodes: 3 Insufficient nvidia.com/gpu."), [], False, "Insufficient nvidia.com/gpu"),
        (pod(scheduled="False"), [event("Nominated", "Pod should schedule on: nodeclaim/a", "karpenter")], False, "waits for its new node"),
        (
            pod(scheduled="False"),
            [event("FailedScheduling", "all available instance types exceed limits for nodepool: gpu", "karpenter")],
            True,
            "exceed limits",
        ),
        (
            pod([container({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}})]),
            [event("Failed", "Failed to pull image: not found")],
            True,
            "not found",
        ),
        (pod([container({"waiting": {"reason": "ErrImagePull", "message": "i/o timeout"}})]), [], False, "i/o timeout"),
        (pod([container({"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "k" not found'}})]), [], True, 'secret "k" not found'),
        (pod([container({"waiting": {"reason": "CrashLoopBackOff"}}, 3, {"terminated": {"exitCode": 2}})]), [], True, "exit code 2: first | last line"),
        (
            pod([container({"waiting": {"reason": "CrashLoopBackOff"}}, 2, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]),
            [],
            True,
            "out of memory",
        ),
        (
            pod([container({"running": {}}, 1)], phase="Running"),
            [event("Killing", "Container vllm failed startup probe, will be restarted")],
            True,
            "killed by its startup probe",
        ),
        (pod([container({"waiting": {"reason": "ContainerCreating"}})]), [event("FailedMount", "claim not bound")], False, "claim not bound"),
        (pod([container({"running": {}})], phase="Running"), [], False, "runs but is not ready"),
    ],
)
def test_causes(seen, events, final, says):
    cause = _rollout_causes.cause(seen, events, lambda name: "first\nlast line")
    assert cause.final is final
    assert says in cause.found
    assert cause.fix


def test_a_pod_on_its_way_has_no_cause():
    assert _rollout_causes.cause(pod([container({"waiting": {"reason": "ContainerCreating"}})]), [], lambda name: "") is None
