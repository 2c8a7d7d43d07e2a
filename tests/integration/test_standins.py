# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins against a real API server, scheduler, controller manager and KWOK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import build, ports
from sandbox.cluster import ControlPlane
from sandbox.processes import Process, spawn, stop
from sandbox.prometheus import write_configuration
from sandbox.standins.control import Control, ControlError
from sandbox.standins.kube import Kube, Object, path_of

ROOT = Path(__file__).resolve().parents[2]
GPU_NODE = "gpu-1"


@dataclass
class World:
    """A running cluster with KWOK and the stand-ins."""

    kube: Kube
    kubeconfig: Path
    control: Control
    process: Process
    state: Path
    prometheus: Path
    prometheus_url: str

    def kubectl(self, *args: str) -> str:
        done = subprocess.run(
            [str(build.home() / "bin" / "kubeall"), "kubectl", "--kubeconfig", str(self.kubeconfig), *args],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout + done.stderr


def eventually(check: Callable[[], Any], timeout: float = 25.0) -> Any:
    """The first true result of `check`; fails with the last one after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := check()):
        assert time.monotonic() < deadline, f"not so after {timeout} s: {result!r}"
        time.sleep(0.1)
    return result


def node(name: str, gpus: int = 0) -> Object:
    amounts = {"cpu": "32", "memory": "128Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    labels = {"node.kubernetes.io/instance-type": "g5.12xlarge" if gpus else "m6i.4xlarge", "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def crds() -> list[Object]:
    folders = [ROOT / "sandbox" / "crds", build.home() / "share" / "crds" / "kwok"]
    found = [d for folder in folders for path in folder.glob("*.yaml") for d in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader) if d]
    wanted = ("ClusterLogs", "ClusterPortForward", "ClusterExec", "ClusterPolicy", "PodMonitor", "ServiceMonitor", "PrometheusRule")
    return [d for d in found if d["spec"]["names"]["kind"] in wanted]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = build.home()
    if not (home / "share" / "crds" / "kwok").exists():
        pytest.skip(f"no complete {home}: run `python -m sandbox build`")
    base = tmp_path_factory.mktemp("standins")
    with ControlPlane(base / "cluster") as plane:
        kube = Kube(plane.kubeconfig)
        for crd in crds():
            kube.apply(path_of("apiextensions.k8s.io/v1", "customresourcedefinitions", name=crd["metadata"]["name"]), crd)
        for item in (node("system-1"), node(GPU_NODE, 4)):
            kube.request("POST", path_of("v1", "nodes"), body=item)
        kube.request("POST", path_of("v1", "namespaces"), body={"metadata": {"name": "llm"}})
        chosen = ports.choose({"kwok": 0, "control": 0, "prometheus": 0})
        pki = plane.directory / "pki"
        kwok = spawn(
            "kwok",
            [
                str(home / "bin" / "kwok"),
                f"--config={ROOT / 'sandbox' / 'config' / 'kwok.yaml'}",
                f"--kubeconfig={pki / 'kwok.kubeconfig'}",
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
                "--node-lease-duration-seconds=40",
                "--cidr=10.244.0.0/16",
                f"--server-address=127.0.0.1:{chosen['kwok']}",
                "--node-ip=127.0.0.1",
                f"--node-port={chosen['kwok']}",
                f"--tls-cert-file={pki / 'tls.crt'}",
                f"--tls-private-key-file={pki / 'tls.key'}",
                "--enable-crds=ClusterPortForward,ClusterLogs,ClusterExec",
            ],
            base / "kwok.log",
        )
        configuration = write_configuration(base / "prometheus", {})
        prometheus = spawn(
            "prometheus",
            [
                str(home / "bin" / "prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={base / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{chosen['prometheus']}",
                "--web.enable-lifecycle",
                "--log.level=warn",
            ],
            base / "prometheus.log",
        )
        prometheus_url = f"http://127.0.0.1:{chosen['prometheus']}"
        standins = spawn(
            "standins",
            [
                sys.executable,
                "-m",
                "sandbox.standins",
                "--kubeconfig",
                str(plane.kubeconfig_of("standins")),
                "--control-port",
                str(chosen["control"]),
                "--state-dir",
                str(base / "state"),
                "--prometheus-dir",
                str(base / "prometheus"),
                "--prometheus-url",
                prometheus_url,
                "--load-seconds",
                "0.5",
            ],
            base / "standins.log",
            {"PYTHONPATH": str(ROOT)},
        )
        try:
            eventually(lambda: "ready http" in standins.log.read_text(), 60)
            control = Control(f"http://127.0.0.1:{chosen['control']}")
            yield World(kube, plane.kubeconfig, control, standins, base / "state", base / "prometheus", prometheus_url)
        finally:
            stop([standins, kwok, prometheus])
            kube.closing.set()
            print("standins.log:\n", standins.log.read_text()[-4000:])


def deployment(name: str, args: list[str], replicas: int = 1, **container: Any) -> Object:
    spec = {
        "name": "vllm",
        "image": "docker.io/vllm/vllm-openai:v0.33.0",
        "args": ["/models/m", "--served-model-name", name, *args],
        "ports": [{"name": "http", "containerPort": 8000}],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        **container,
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "llm"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 60, "containers": [spec]}},
        },
    }


@pytest.fixture
def serve(world: World) -> Iterator[Callable[..., Object]]:
    """Create Deployments that are gone after the test."""
    names: list[str] = []

    def create(name: str, args: list[str] | None = None, **more: Any) -> Object:
        names.append(name)
        return world.kube.request("POST", path_of("apps/v1", "deployments", "llm"), body=deployment(name, args or [], **more))

    yield create
    for name in names:
        world.kube.request("DELETE", path_of("apps/v1", "deployments", "llm", name), {"propagationPolicy": "Foreground"})
        world.control.model(name, fail="", load_seconds=0.5, seconds_per_token=0.0)
    eventually(lambda: not any(pods(world, name) or world.kube.get(path_of("apps/v1", "deployments", "llm", name)) for name in names))


def pods(world: World, name: str) -> list[Object]:
    return world.kube.items(path_of("v1", "pods", "llm"), {"labelSelector": f"app={name}"})


def container(world: World, name: str) -> Object:
    found = pods(world, name)
    return (found[0].get("status", {}).get("containerStatuses") or [{}])[0] if found else {}


def ready_pods(world: World, name: str) -> list[Object]:
    return [p for p in pods(world, name) if any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", []))]


def reason(world: World, name: str) -> str:
    return container(world, name).get("state", {}).get("waiting", {}).get("reason", "")


def url_of(world: World, pod: Object) -> str:
    return next(row["url"] for row in world.control.state()["vllm_pods"] if row["pod"] == pod["metadata"]["name"])


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def series(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name + "{")).rsplit(" ", 1)[1])


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


def test_other_storage_classes_stay_pending(world: World) -> None:
    spec = {"storageClassName": "gp3", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "other"}, "spec": spec}
    world.kube.request("POST", path_of("v1", "persistentvolumeclaims", "llm"), body=claim)
    time.sleep(1)
    assert (world.kube.get(path_of("v1", "persistentvolumeclaims", "llm", "other")) or {})["status"]["phase"] == "Pending"


def job(name: str, script: str, code: int = 0) -> Object:
    copy = {
        "name": "copy",
        "image": "any/python:3",
        "command": ["python3", "/scripts/copy.py", "--target=/models/out"],
        "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "job-token", "key": "t"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CODE", "value": str(code)},
        ],
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}, {"name": "models", "mountPath": "/models"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    init = {
        "name": "prepare",
        "image": "any/python:3",
        "command": ["sh", "-c", "mkdir -p /models/out"],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    volumes = [{"name": "scripts", "configMap": {"name": script}}, {"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/component": "weights"}},
                "spec": {"restartPolicy": "Never", "initContainers": [init], "containers": [copy], "volumes": volumes},
            },
        },
    }


@pytest.mark.parametrize(("code", "condition"), [(0, "Complete"), (3, "Failed")])
def test_local_jobs_really_run(world: World, code: int, condition: str) -> None:
    script = (
        "import os, sys, pathlib\ntarget = sys.argv[1].split('=')[1]\n"
        "assert pathlib.Path(target).is_dir(), target\nprint('token', os.environ['TOKEN'], 'in', os.environ['POD'])\nsys.exit(int(os.environ['CODE']))\n"
    )
    name = f"copy-{code}"
    world.kube.apply(
        path_of("v1", "configmaps", "llm", "copy-script"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "copy-script"}, "data": {"copy.py": script}},
    )
    world.kube.apply(
        path_of("v1", "secrets", "llm", "job-token"), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "job-token"}, "stringData": {"t": "tok-123"}}
    )
    world.kube.request("POST", path_of("batch/v1", "jobs", "llm"), body=job(name, "copy-script", code))
    done = eventually(
        lambda: [
            c["type"]
            for c in (world.kube.get(path_of("batch/v1", "jobs", "llm", name)) or {}).get("status", {}).get("conditions", [])
            if c["type"] in ("Complete", "Failed")
        ]
    )
    assert done == [condition]
    pod = world.kube.items(path_of("v1", "pods", "llm"), {"labelSelector": f"job-name={name}"})[0]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
    assert "token tok-123 in " + pod["metadata"]["name"] in world.kubectl("logs", "-n", "llm", pod["metadata"]["name"])


def helm(world: World, *args: str) -> None:
    done = subprocess.run(
        [str(build.home() / "bin" / "helm"), "--kubeconfig", str(world.kubeconfig), "--namespace", "gpu-operator", *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HELM_CACHE_HOME": str(world.state / "helm")},
    )
    assert done.returncode == 0, done.stderr


def install(world: World, driver: bool = False, nfd: bool = True) -> None:
    chart = str(ROOT / "sandbox" / "charts" / "gpu-operator")
    flags = [
        f"--set=driver.enabled={driver}".lower(),
        f"--set=nfd.enabled={nfd}".lower(),
        "--set=toolkit.enabled=false",
        "--set=dcgmExporter.serviceMonitor.additionalLabels.release=monitoring",
        '--set-json=dcgmExporter.serviceMonitor.relabelings=[{"sourceLabels":["__meta_kubernetes_pod_node_name"],"targetLabel":"node"}]',
    ]
    helm(world, "upgrade", "--install", "gpu-operator", chart, "--create-namespace", *flags)


def policy_status(world: World) -> tuple[str, str]:
    item = world.kube.get(path_of("nvidia.com/v1", "clusterpolicies", name="cluster-policy")) or {}
    status = item.get("status", {})
    return status.get("state", ""), next((c["reason"] for c in status.get("conditions", []) if c["status"] == "True"), "")


def gpu_node(world: World) -> dict[str, str]:
    return (world.kube.get(path_of("v1", "nodes", name=GPU_NODE)) or {})["metadata"]["labels"]


def test_gpu_operator_from_install_to_removal(world: World) -> None:
    install(world, nfd=False)
    eventually(lambda: policy_status(world) == ("ready", "NFDLabelsMissing"))
    install(world)
    eventually(lambda: policy_status(world) == ("ready", "Reconciled"))
    labels = eventually(lambda: "nvidia.com/gpu.product" in gpu_node(world) and gpu_node(world))
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.count"], labels["nvidia.com/gpu.memory"]) == ("NVIDIA-A10G", "4", "23028")
    assert labels["nvidia.com/cuda.driver-version.full"] == "580.159.03"
    assert "nvidia.com/gpu.present" not in (world.kube.get(path_of("v1", "nodes", name="system-1")) or {})["metadata"]["labels"]
    install(world, driver=True)
    eventually(lambda: policy_status(world) == ("notReady", "OperandNotReady"))
    install(world)
    eventually(lambda: policy_status(world) == ("ready", "Reconciled"))
    world.control.operator("DriverNotReady", "no driver")
    eventually(lambda: policy_status(world) == ("notReady", "DriverNotReady"))
    world.control.operator()
    eventually(lambda: policy_status(world) == ("ready", "Reconciled"))
    unhealthy_gpus_show(world)
    helm(world, "uninstall", "gpu-operator")
    eventually(lambda: "nvidia.com/gpu.product" not in gpu_node(world))


def unhealthy_gpus_show(world: World) -> None:
    """Exporter pods that the chart started carry the series, Prometheus would scrape them, and faults show."""
    text = eventually(lambda: exporter(world))
    assert sum(line.startswith("DCGM_FI_DEV_GPU_TEMP{") for line in text.splitlines()) == 4
    assert (world.prometheus / "scrape" / "servicemonitor-gpu-operator-nvidia-dcgm-exporter.yaml").exists()
    world.control.node(GPU_NODE, unhealthy_gpus=1, xid=79)
    assert 'err_code="79"' in exporter(world)
    wanted = f'kube_node_status_allocatable{{node="{GPU_NODE}",resource="nvidia_com_gpu",unit="integer"}} 3'
    eventually(lambda: wanted in page(f"{world.control.url}/kube-state-metrics/metrics"))
    result = eventually(lambda: query(world, 'DCGM_FI_DEV_XID_ERRORS{err_code="79"}'))
    assert result[0]["metric"]["node"] == GPU_NODE
    assert result[0]["metric"]["job"] == "nvidia-dcgm-exporter"
    world.control.node(GPU_NODE, unhealthy_gpus=0, xid=0)
    eventually(lambda: wanted not in page(f"{world.control.url}/kube-state-metrics/metrics"))


def query(world: World, expression: str) -> list[Object]:
    """What Prometheus knows."""
    return json.loads(page(f"{world.prometheus_url}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))["data"]["result"]


def exporter(world: World) -> str:
    found = world.kube.items(path_of("v1", "pods", "gpu-operator"), {"labelSelector": "app=nvidia-dcgm-exporter"})
    try:
        return page(f"{world.control.url}/pods/gpu-operator/{found[0]['metadata']['name']}/metrics") if found else ""
    except urllib.error.HTTPError:
        return ""


def test_only_selected_monitors_reach_prometheus(world: World, serve: Callable[..., Object]) -> None:
    serve("watched", ["--max-num-seqs", "4"], replicas=2)
    group = {"name": "g", "rules": [{"alert": "Queue", "expr": "vllm:num_requests_waiting > 0"}]}
    for name, labels in (("taken", {"release": "monitoring"}), ("ignored", {"release": "other"})):
        rule = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": name, "labels": labels}, "spec": {"groups": [group]}}
        endpoint = {"port": "http", "path": "/metrics", "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}]}
        monitor = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PodMonitor",
            "metadata": {"name": name, "labels": labels},
            "spec": {"selector": {"matchLabels": {"app": "watched"}}, "podTargetLabels": ["app"], "podMetricsEndpoints": [endpoint]},
        }
        world.kube.request("POST", path_of("monitoring.coreos.com/v1", "prometheusrules", "llm"), body=rule)
        world.kube.request("POST", path_of("monitoring.coreos.com/v1", "podmonitors", "llm"), body=monitor)
    rules = world.prometheus / "rules" / "prometheusrule-llm-taken.yaml"
    eventually(lambda: rules.exists() and (world.prometheus / "scrape" / "podmonitor-llm-taken.yaml").exists())
    assert yaml.safe_load(rules.read_text()) == {"groups": [group]}
    assert not list(world.prometheus.rglob("*ignored*"))
    eventually(lambda: len(ready_pods(world, "watched")) == 2)
    world.control.load("watched", 11)
    total = 'sum(vllm:num_requests_running{namespace="llm",model_name="watched"}) + sum(vllm:num_requests_waiting{namespace="llm",model_name="watched"})'
    eventually(lambda: [r["value"][1] for r in query(world, total)] == ["11"])
    one = query(world, "vllm:num_requests_running")[0]["metric"]
    assert (one["job"], one["app"], one["container"], one["endpoint"]) == ("llm/taken", "watched", "vllm", "http")
    assert one["instance"].startswith("10.245.")
    assert query(world, 'python_info{job="llm/taken"}') == []
    eventually(lambda: len(query(world, 'ALERTS{alertname="Queue",alertstate="firing"}')) == 2)
    world.control.load("watched", 0)
    world.kube.delete(path_of("monitoring.coreos.com/v1", "prometheusrules", "llm", "taken"))
    eventually(lambda: not rules.exists() and query(world, 'ALERTS{alertname="Queue"}') == [])


def test_control_api_refuses_what_it_does_not_know(world: World) -> None:
    with pytest.raises(ControlError, match="fail: found 'sulk'; needed: one of crash"):
        world.control.model("x", fail="sulk")
    with pytest.raises(ControlError, match="found unknown colour"):
        world.control.node("n", colour="red")


def test_sigterm_leaves_no_child(world: World) -> None:
    body = job("endless", "copy-script")
    body["spec"]["template"]["spec"]["containers"][0] |= {"command": ["sleep", "600"]}
    world.kube.request("POST", path_of("batch/v1", "jobs", "llm"), body=body)
    pid = eventually(
        lambda: next(
            (
                row["pid"]
                for row in world.control.state()["local_pods"]
                if row["pod"].startswith("endless") and row["pid"] and row["states"]["copy"] == "running"
            ),
            None,
        )
    )
    assert stop([world.process]) == []
    assert not Path(f"/proc/{pid}").exists()
    assert not world.process.running()
