# SPDX-License-Identifier: GPL-3.0-or-later
"""What a resource's status, its pods and their events make of a wait."""

import pytest
from ansible_collections.llmops.eks.plugins.action import rollout
from ansible_collections.llmops.eks.plugins.module_utils import _kube, _rollout, _rollout_causes

BEFORE, SINCE, AFTER = "2026-11-26T07:00:00Z", "2026-11-26T08:00:00Z", "2026-11-26T08:01:00Z"
EXCEEDED = "all available instance types exceed limits for nodepool: gpu"


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
        ({"metadata": {"generation": 1}, "spec": {}, "status": {}}, "DaemonSet", [], "waiting", "has not seen the last change"),
        ({"metadata": {"generation": 1}, "spec": {"replicas": 0}}, "StatefulSet", [], "waiting", "has not seen the last change"),
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


def ended(at):
    return {"terminated": {"exitCode": 1, "finishedAt": at}}


def container(state, restarts=0, last=None):
    return {"name": "vllm", "image": "r/vllm:1", "restartCount": restarts, "state": state, "lastState": last or {}}


def event(reason, message, component="kubelet", at=AFTER):
    return {"reason": reason, "message": message, "source": {"component": component}, "lastTimestamp": at}


@pytest.mark.parametrize(
    ("seen", "events", "final", "says"),
    [
        (pod(scheduled="False", message="0/3 nodes: 3 Insufficient nvidia.com/gpu."), [], False, "Insufficient nvidia.com/gpu"),
        (pod(scheduled="False"), [event("Nominated", "Pod should schedule on: nodeclaim/a", "karpenter")], False, "waits for its new node"),
        (
            pod(scheduled="False"),
            [event("FailedScheduling", EXCEEDED, "karpenter")],
            True,
            "exceed limits",
        ),
        (pod(scheduled="False"), [event("FailedScheduling", EXCEEDED, "karpenter", BEFORE)], False, "exceed limits"),
        (
            pod(scheduled="False"),
            [event("FailedScheduling", 'incompatible with nodepool "gpu", no instance type has the required offering', "karpenter")],
            False,
            "required offering",
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
        (
            pod([container({"running": {}}, 1)], phase="Running"),
            [event("Killing", "Container vllm failed startup probe, will be restarted", at=BEFORE)],
            False,
            "runs but is not ready",
        ),
        (pod([container({"running": {}}, 3, ended(BEFORE))], phase="Running"), [], False, "runs but is not ready"),
        (pod([container({"running": {}}, 3, ended(AFTER))], phase="Running"), [], True, "ended 3 times with exit code 1"),
        (pod([container({"waiting": {"reason": "ContainerCreating"}})]), [event("FailedMount", "claim not bound")], False, "claim not bound"),
        (pod([container({"running": {}})], phase="Running"), [], False, "runs but is not ready"),
    ],
)
def test_causes(seen, events, final, says):
    cause = _rollout_causes.cause(seen, events, lambda name: "first\nlast line", SINCE)
    assert cause.final is final
    assert says in cause.found
    assert cause.fix


def test_a_pod_on_its_way_has_no_cause():
    assert _rollout_causes.cause(pod([container({"waiting": {"reason": "ContainerCreating"}})]), [], lambda name: "") is None


DEPLOYMENT = {"api_version": "apps/v1", "kind": "Deployment", "namespace": "ns", "name": "d"}


class Cluster:
    """A Deployment whose one new pod has no place, and Karpenter says `said` of it. `leaving`: whether the old pod is still there."""

    def __init__(self, said, at, leaving=False):
        self.said, self.at, self.leaving = said, at, leaving

    def find(self, api_version, kind, fresh=False):
        return _kube.Kind(api_version, kind, kind.lower() + "s", True)

    def get(self, path):
        assert path.endswith("/deployments/d")
        obj = deployment(updated=1)
        return {**obj, "metadata": {**obj["metadata"], "namespace": "ns"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}}}

    def items(self, path, query):
        what = path.rpartition("/")[2]
        if what == "replicasets":
            return [{"metadata": {"uid": str(n), "annotations": {"deployment.kubernetes.io/revision": str(n)}}} for n in (1, 2)]
        if what == "events":
            return [event("FailedScheduling", self.said, "karpenter", self.at)]
        new, old = pod(scheduled="False"), pod([container({"running": {}}, 5, ended(AFTER))], phase="Running")
        new["metadata"]["ownerReferences"] = [{"uid": "2"}]
        old["metadata"] = {"name": "old", "ownerReferences": [{"uid": "1"}], "deletionTimestamp": AFTER}
        return [new, old] if self.leaving else [new]


@pytest.fixture
def states(monkeypatch):
    """states(cluster, seconds of the looks ...) -> the verdicts' states. A look takes place at SINCE + seconds, and a wait begins at SINCE."""
    clock = {}
    monkeypatch.setattr(rollout, "now", lambda: f"2026-11-26T08:{int(clock['gone']) // 60:02}:{int(clock['gone']) % 60:02}")

    def look(cluster, *seconds, waited=None):
        clock["gone"], found = 0, []
        waited = waited or rollout.Waited(DEPLOYMENT, since=SINCE)
        for clock["gone"] in seconds:
            rollout.look(cluster, waited, clock["gone"], 120)
            found.append(waited.verdict.state)
        return found

    return look


def test_what_karpenter_says_during_the_wait_ends_it(states):
    assert states(Cluster(EXCEEDED, AFTER), 61) == ["failed"]


def test_what_karpenter_said_before_must_stand_for_a_while(states):
    assert states(Cluster(EXCEEDED, BEFORE), 0, 29, 30) == ["waiting", "waiting", "failed"]


def test_capacity_that_is_short_has_the_grace(states):
    assert states(Cluster("no instance type has the required offering", AFTER), 0, 119, 120) == ["waiting", "waiting", "failed"]


def test_a_pod_waits_for_the_gpus_of_pods_that_leave(states):
    cluster, waited = Cluster(EXCEEDED, AFTER, leaving=True), rollout.Waited(DEPLOYMENT, since=SINCE)
    assert states(cluster, 0, 61, 400, waited=waited) == ["waiting"] * 3
    assert "while old on its way out" in waited.verdict.message
    cluster.leaving = False
    # What was said while they left is old now.
    assert states(cluster, 402, 431, 432, waited=waited) == ["waiting", "waiting", "failed"]


class Other:
    """One object of any kind, pods of it, and the events and claims of a namespace by name."""

    def __init__(self, obj, pods=(), claims=(), **events):
        self.obj, self.pods, self.claims, self.events = obj, list(pods), {claim["metadata"]["name"]: claim for claim in claims}, events

    def find(self, api_version, kind, fresh=False):
        return _kube.Kind(api_version, kind, kind.lower() + "s", True)

    def get(self, path):
        return self.claims.get(path.rpartition("/")[2]) if "persistentvolumeclaims" in path and self.obj["kind"] != "PersistentVolumeClaim" else self.obj

    def items(self, path, query):
        if path.endswith("/events"):
            return self.events.get(query["fieldSelector"].partition("=")[2].replace("-", "_"), [])
        return self.pods


def waited(kind, name, **options):
    return rollout.Waited({"api_version": "x/v1", "kind": kind, "name": name, "namespace": "ns", **options}, since=SINCE)


def nodeclass(status="False", reason="SubnetsNotFound"):
    return {"kind": "EC2NodeClass", **custom(status, reason)}


def test_a_condition_that_stays_false_ends_the_wait_only_with_a_grace(states):
    for grace, last in ((60, "failed"), (None, "waiting")):
        wait = waited("EC2NodeClass", "c", condition={"type": "Ready"}, condition_grace=grace)
        assert states(Other(nodeclass()), 5, 64, 65, waited=wait) == ["waiting", "waiting", last]
        assert "condition Ready is False: SubnetsNotFound: said so" in wait.verdict.message


def test_the_grace_begins_anew_with_another_reason_and_is_not_for_unknown(states):
    wait = waited("EC2NodeClass", "c", condition={"type": "Ready"}, condition_grace=60)
    assert states(Other(nodeclass()), 0, waited=wait) == ["waiting"]
    assert states(Other(nodeclass(reason="AMIsNotFound")), 50, 109, waited=wait) == ["waiting", "waiting"]
    assert states(Other(nodeclass("Unknown")), 110, 300, waited=wait) == ["waiting", "waiting"]
    assert states(Other(nodeclass()), 301, 361, waited=wait) == ["waiting", "failed"]


@pytest.mark.parametrize("kind", ["Job", "StatefulSet", "DaemonSet"])
def test_pods_that_a_quota_refuses_are_told_and_end_the_wait_early(states, kind):
    status = {"desiredNumberScheduled": 1, "observedGeneration": 1}
    obj = {"kind": kind, "metadata": {"name": "j", "namespace": "ns", "generation": 1}, "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": status}
    wait = waited(kind, "j")
    refused = Other(obj, j=[event("FailedCreate", "pods is forbidden: exceeded quota: gpus", "job-controller")])
    assert states(refused, 2, 31, 32, waited=wait) == ["waiting", "waiting", "failed"]
    assert "pods cannot be created: pods is forbidden: exceeded quota: gpus" in wait.verdict.message
    assert wait.verdict.fix.startswith("raise the quota")
    old = Other(obj, j=[event("FailedCreate", "exceeded quota", "job-controller", BEFORE)])
    assert states(old, 2, 300, waited=waited(kind, "j")) == ["waiting", "waiting"]


def claim(phase="Pending"):
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "w", "namespace": "ns"}, "spec": {"storageClassName": "efs"}, "status": {"phase": phase}}


PROVISIONING = event("ProvisioningFailed", 'storageclass "efs" not found', "persistentvolume-controller")


def test_a_claim_whose_provisioner_fails_ends_the_wait_after_the_grace(states):
    wait = waited("PersistentVolumeClaim", "w")
    assert states(Other(claim(), w=[PROVISIONING]), 0, 119, 120, waited=wait) == ["waiting", "waiting", "failed"]
    assert wait.verdict.message == 'phase Pending; storageclass "efs" not found'
    assert wait.verdict.fix == "correct the StorageClass (efs) or its driver"
    assert states(Other(claim()), 0, 500, waited=waited("PersistentVolumeClaim", "w")) == ["waiting", "waiting"]


@pytest.mark.parametrize(
    ("claims", "says", "fix"),
    [
        ([claim()], 'pod p cannot be placed: claim w: storageclass "efs" not found', "correct the StorageClass (efs) or its driver"),
        ([], "pod p wants claim w, which does not exist", "create the claim"),
        ([claim("Bound")], "0/1 nodes: pod has unbound immediate PersistentVolumeClaims", "add a node with free GPUs"),
    ],
)
def test_a_pod_without_a_volume_says_what_is_wrong_with_its_claim(states, claims, says, fix):
    obj = {"kind": "StatefulSet", "metadata": {"name": "s", "namespace": "ns"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}
    lacking = pod(scheduled="False", message="0/1 nodes: pod has unbound immediate PersistentVolumeClaims.")
    lacking["spec"]["volumes"] = [{"name": "shm", "emptyDir": {}}, {"name": "weights", "persistentVolumeClaim": {"claimName": "w"}}]
    obj["status"] = {"observedGeneration": 0}
    wait = waited("StatefulSet", "s")
    assert states(Other(obj, [lacking], claims, w=[PROVISIONING]), 0, 119, 120, waited=wait) == ["waiting", "waiting", "failed"]
    assert says in wait.verdict.message
    assert wait.verdict.fix.startswith(fix)


class Action(rollout.ActionModule):
    def __init__(self):
        pass


GONE = _kube.KubeError("found no answer")


@pytest.mark.parametrize(
    ("looks", "error"),
    [
        ({0: None, 2: GONE, 20: GONE, 25: "ready"}, None),
        ({0: None, 2: _kube.ApiError("GET", "/", 503, {}), 4: "ready"}, None),
        ({0: GONE}, _kube.KubeError),
        ({0: None, 2: GONE, 31: GONE}, _kube.KubeError),
        ({0: None, 2: _kube.ApiError("GET", "/", 403, {})}, _kube.ApiError),
        ({0: None, 60: GONE}, _kube.KubeError),
    ],
)
def test_an_api_server_may_be_silent_for_a_while(monkeypatch, looks, error):
    def look(_cluster, waited, gone, _grace):
        if isinstance(looks[gone], Exception):
            raise looks[gone]
        waited.verdict = _rollout.Verdict(looks[gone] or "waiting")

    monkeypatch.setattr(rollout, "look", look)
    monkeypatch.setattr(_kube, "connect", lambda params: None)
    monkeypatch.setattr(_kube, "poll", lambda seconds, first: iter(looks))
    params = {"resources": [DEPLOYMENT], "timeout": 60, "unschedulable_grace": 120}
    if error:
        with pytest.raises(error):
            Action().act(params, {})
    else:
        assert "failed" not in Action().act(params, {})
