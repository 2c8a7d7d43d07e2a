# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes, weights Jobs, GPU operator and Prometheus operator, as the stand-ins play them, against the real parts around them."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from standins_world import GPU_NODE, ROOT, World, eventually, page, ready_pods, serve, world

from sandbox import build
from sandbox.processes import spawn, stop
from sandbox.standins.kube import Object, path_of
from sandbox.standins.volumes import CLASS

__all__ = ["serve", "world"]  # fixtures


def test_other_storage_classes_stay_pending(world: World) -> None:
    def phase(name: str) -> str:
        return (world.kube.get(path_of("v1", "persistentvolumeclaims", "llm", name)) or {}).get("status", {}).get("phase", "")

    for name, storage_class in (("other", "gp3"), ("ours", CLASS)):
        spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        world.kube.request("POST", path_of("v1", "persistentvolumeclaims", "llm"), body={"metadata": {"name": name}, "spec": spec})
    # Claims are looked at in the order of their events, so the other one has had its turn.
    eventually(lambda: phase("ours") == "Bound")
    assert phase("other") == "Pending"


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


@pytest.fixture(scope="module")
def inputs(world: World) -> None:
    """What the pods of `job` mount and read."""
    script = (
        "import os, sys, pathlib\ntarget = sys.argv[1].split('=')[1]\n"
        "assert pathlib.Path(target).is_dir(), target\nprint('token', os.environ['TOKEN'], 'in', os.environ['POD'])\nsys.exit(int(os.environ['CODE']))\n"
    )
    world.kube.apply(
        path_of("v1", "configmaps", "llm", "copy-script"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "copy-script"}, "data": {"copy.py": script}},
    )
    world.kube.apply(
        path_of("v1", "secrets", "llm", "job-token"), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "job-token"}, "stringData": {"t": "tok-123"}}
    )


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(("code", "condition"), [(0, "Complete"), (3, "Failed")])
def test_local_jobs_really_run(world: World, code: int, condition: str) -> None:
    name = f"copy-{code}"
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


def test_api_server_that_restarts_is_waited_for(world: World, serve: Callable[..., Object]) -> None:
    plane = world.plane
    assert plane.process is not None
    stop([plane.process], grace=10)
    plane.process = spawn("kubeall", list(plane.process.argv), plane.process.log)
    plane.wait_ready()
    serve("after")
    eventually(lambda: ready_pods(world, "after"), 60)


@pytest.mark.usefixtures("inputs")
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
    try:
        assert stop([world.process]) == []
        assert not Path(f"/proc/{pid}").exists()
        assert not world.process.running()
    finally:
        world.kube.request("DELETE", path_of("batch/v1", "jobs", "llm", "endless"), {"propagationPolicy": "Background"})
        world.restart()
