# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM servers and their kubelet, as the stand-ins play them, against a real API server, scheduler, controller manager and KWOK."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from standins_world import GPU_NODE, World, container, deployment, eventually, page, pods, ready_pods, reason, series, serve, url_of, world

from sandbox import build, ports
from sandbox.standins.control import ControlError
from sandbox.standins.kube import Object, path_of

__all__ = ["serve", "world"]  # fixtures


def test_server_becomes_ready_serves_and_goes(world: World, serve: Callable[..., Object]) -> None:
    world.kube.request("POST", path_of("v1", "secrets", "llm"), body={"metadata": {"name": "key"}, "stringData": {"token": "long-secret-key"}})
    serve("alpha", ["--shutdown-timeout", "60"], env=[{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}}])
    pod = eventually(lambda: ready_pods(world, "alpha"))[0]
    conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
    assert {conditions[t] for t in ("PodScheduled", "Initialized", "ContainersReady", "Ready")} == {"True"}
    assert pod["spec"]["nodeName"] == GPU_NODE
    assert pod["status"]["podIP"].startswith("10.245.")
    live = world.kube.get(path_of("apps/v1", "deployments", "llm", "alpha"))
    assert live is not None
    eventually(lambda: (world.kube.get(path_of("apps/v1", "deployments", "llm", "alpha")) or {})["status"].get("availableReplicas") == 1)
    address = url_of(world, pod)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        page(f"{address}/v1/models")
    request = urllib.request.Request(f"{address}/v1/models", headers={"Authorization": "Bearer long-secret-key"})
    assert json.load(urllib.request.urlopen(request, timeout=5))["data"][0]["id"] == "alpha"
    assert 'model_name="alpha"' in page(f"{world.control.url}/pods/llm/{pod['metadata']['name']}/metrics")
    world.kube.delete(path_of("v1", "pods", "llm", pod["metadata"]["name"]))
    eventually(lambda: world.kube.get(path_of("v1", "pods", "llm", pod["metadata"]["name"])) is None)
    with pytest.raises(OSError, match="refused"):
        page(f"{address}/health")


def test_logs_and_port_forward_through_the_api_server(world: World, serve: Callable[..., Object]) -> None:
    serve("forward")
    name = eventually(lambda: ready_pods(world, "forward"))[0]["metadata"]["name"]
    assert "Application startup complete" in eventually(lambda: (t := world.kubectl("logs", "-n", "llm", name)) and "startup complete" in t and t)
    local = ports.choose({"forward": 0})["forward"]
    forward = subprocess.Popen(
        [str(build.home() / "bin" / "kubeall"), "kubectl", "--kubeconfig", str(world.kubeconfig), "port-forward", "-n", "llm", f"pod/{name}", f"{local}:8000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert forward.stdout is not None
        assert "Forwarding from" in forward.stdout.readline()
        assert json.loads(page(f"http://127.0.0.1:{local}/version")) == {"version": "0.33.0"}
    finally:
        forward.terminate()
        forward.wait(5)


def test_load_is_spread_over_ready_pods(world: World, serve: Callable[..., Object]) -> None:
    serve("spread", ["--max-num-seqs", "4"], replicas=2)
    found = eventually(lambda: (p := ready_pods(world, "spread")) and len(p) == 2 and p)
    world.control.load("spread", 11)
    texts = [page(f"{url_of(world, pod)}/metrics") for pod in found]
    assert [series(t, "vllm:num_requests_running") for t in texts] == [4, 4]
    assert sum(series(t, "vllm:num_requests_waiting") for t in texts) == 3
    world.control.load("spread", 0)
    assert series(page(f"{url_of(world, found[0])}/metrics"), "vllm:num_requests_running") == 0


def test_unknown_argument_crash_loops_with_the_parsers_message(world: World, serve: Callable[..., Object]) -> None:
    serve("typo", ["--swap-space", "4"], terminationMessagePolicy="FallbackToLogsOnError")
    eventually(lambda: reason(world, "typo") == "CrashLoopBackOff" and container(world, "typo")["restartCount"] >= 1)
    ended = container(world, "typo")["lastState"]["terminated"]
    assert ended["exitCode"] == 2
    assert "unrecognized arguments: --swap-space" in ended["message"]
    name = pods(world, "typo")[0]["metadata"]["name"]
    assert "unrecognized arguments: --swap-space" in world.kubectl("logs", "-n", "llm", "--previous", name)


def test_image_that_cannot_be_pulled_until_it_can(world: World, serve: Callable[..., Object]) -> None:
    world.control.image("vllm-openai:v0.99", "fail")
    serve("pull", image="docker.io/vllm/vllm-openai:v0.99.0")
    eventually(lambda: reason(world, "pull") == "ImagePullBackOff")
    world.control.image("vllm-openai:v0.99", "ok")
    eventually(lambda: ready_pods(world, "pull"))


def test_startup_probe_that_is_too_short_kills(world: World, serve: Callable[..., Object]) -> None:
    world.control.model("slow", load_seconds=8)
    serve("slow", startupProbe={"httpGet": {"path": "/health", "port": 8000}, "failureThreshold": 1, "periodSeconds": 1, "terminationGracePeriodSeconds": 5})
    eventually(lambda: container(world, "slow").get("restartCount", 0) >= 1)
    assert container(world, "slow")["lastState"]["terminated"]["exitCode"] == 137
    uid = pods(world, "slow")[0]["metadata"]["uid"]
    events = {e["reason"]: e["message"] for e in world.kube.items(path_of("v1", "events", "llm"), {"fieldSelector": f"involvedObject.uid={uid}"})}
    assert "connection refused" in events["Unhealthy"]
    assert "failed startup probe, will be restarted" in events["Killing"]


def test_missing_secret_is_a_config_error_that_heals(world: World, serve: Callable[..., Object]) -> None:
    serve("secretless", env=[{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}])
    eventually(lambda: reason(world, "secretless") == "CreateContainerConfigError")
    assert 'secret "absent" not found' in container(world, "secretless")["state"]["waiting"]["message"]
    world.kube.request("POST", path_of("v1", "secrets", "llm"), body={"metadata": {"name": "absent"}, "stringData": {"k": "value-of-key"}})
    eventually(lambda: ready_pods(world, "secretless"))


@pytest.mark.parametrize(("fail", "code", "why"), [("crash", 1, "Error"), ("oom", 137, "OOMKilled"), ("kv_cache", 1, "Error")])
def test_failures_at_the_start(world: World, serve: Callable[..., Object], fail: str, code: int, why: str) -> None:
    world.control.model("broken", fail=fail, load_seconds=0.1)
    serve("broken")
    ended = eventually(lambda: container(world, "broken").get("lastState", {}).get("terminated"))
    assert (ended["exitCode"], ended["reason"]) == (code, why)


def test_dead_engine_ends_with_zero_and_restarts(world: World, serve: Callable[..., Object]) -> None:
    serve("dead")
    eventually(lambda: ready_pods(world, "dead"))
    world.control.model("dead", fail="engine_dead")
    eventually(lambda: container(world, "dead").get("lastState", {}).get("terminated", {}).get("exitCode") == 0)
    world.control.model("dead", fail="")
    eventually(lambda: ready_pods(world, "dead") and container(world, "dead")["restartCount"] >= 1)


def test_weights_claim_must_hold_the_model(world: World, serve: Callable[..., Object]) -> None:
    claim = {
        "metadata": {"name": "weights"},
        "spec": {"storageClassName": "sandbox-rwx", "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "10Gi"}}},
    }
    world.kube.request("POST", path_of("v1", "persistentvolumeclaims", "llm"), body=claim)
    eventually(lambda: (world.kube.get(path_of("v1", "persistentvolumeclaims", "llm", "weights")) or {})["status"].get("phase") == "Bound")
    body = deployment("claimed", [], volumeMounts=[{"name": "w", "mountPath": "/models"}])
    body["spec"]["template"]["spec"]["volumes"] = [{"name": "w", "persistentVolumeClaim": {"claimName": "weights"}}]
    world.kube.request("POST", path_of("apps/v1", "deployments", "llm"), body=body)
    try:
        ended = eventually(lambda: container(world, "claimed").get("lastState", {}).get("terminated"))
        assert ended["exitCode"] == 1
        folder = world.state / "volumes" / "llm" / "weights" / "m"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        eventually(lambda: ready_pods(world, "claimed"))
    finally:
        world.kube.request("DELETE", path_of("apps/v1", "deployments", "llm", "claimed"), {"propagationPolicy": "Foreground"})
        eventually(lambda: not pods(world, "claimed"))
        world.kube.delete(path_of("v1", "persistentvolumeclaims", "llm", "weights"))
        eventually(lambda: not (world.state / "volumes" / "llm" / "weights").exists())


def test_control_api_refuses_what_it_does_not_know(world: World) -> None:
    with pytest.raises(ControlError, match="fail: found 'sulk'; needed: one of crash"):
        world.control.model("x", fail="sulk")
    with pytest.raises(ControlError, match="found unknown colour"):
        world.control.node("n", colour="red")
