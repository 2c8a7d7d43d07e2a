# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with the stand-ins for their tests: real API server, scheduler, controller manager, KWOK and Prometheus."""

from __future__ import annotations

import subprocess
import sys
import time
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
from sandbox.standins.control import Control
from sandbox.standins.kube import Kube, Object, path_of

ROOT = Path(__file__).resolve().parents[2]
GPU_NODE = "gpu-1"


@dataclass
class World:
    """A running cluster with KWOK and the stand-ins."""

    plane: ControlPlane
    kube: Kube
    kubeconfig: Path
    control: Control
    process: Process
    spawned: list[Process]
    state: Path
    prometheus: Path
    prometheus_url: str

    def restart(self) -> None:
        """The stand-ins anew, after a test has ended them."""
        started = len(self.process.log.read_text())
        self.process = spawn("standins", self.process.argv, self.process.log, {"PYTHONPATH": str(ROOT)})
        self.spawned.append(self.process)
        eventually(lambda: "ready http" in self.process.log.read_text()[started:], 60)

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
        spawned: list[Process] = []

        def start(name: str, argv: list[str], env: dict[str, str] | None = None) -> Process:
            spawned.append(spawn(name, argv, base / f"{name}.log", env))
            return spawned[-1]

        try:
            start(
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
            )
            configuration = write_configuration(base / "prometheus", {})
            start(
                "prometheus",
                [
                    str(home / "bin" / "prometheus"),
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={base / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{chosen['prometheus']}",
                    "--web.enable-lifecycle",
                    "--log.level=warn",
                ],
            )
            prometheus_url = f"http://127.0.0.1:{chosen['prometheus']}"
            standins = start(
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
                {"PYTHONPATH": str(ROOT)},
            )
            eventually(lambda: "ready http" in standins.log.read_text(), 60)
            control = Control(f"http://127.0.0.1:{chosen['control']}")
            yield World(plane, kube, plane.kubeconfig, control, standins, spawned, base / "state", base / "prometheus", prometheus_url)
        finally:
            stop(spawned)
            kube.closing.set()
            if (log := base / "standins.log").exists():
                print("standins.log:\n", log.read_text()[-4000:])


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
