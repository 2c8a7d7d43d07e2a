# SPDX-License-Identifier: GPL-3.0-or-later
"""nvidia-smi by exec through the API server. KWOK is the kubelet and runs the command on this machine, where a script plays nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import kubernetes
import pytest
import yaml
from action_runner import Runner
from standins_world import GPU_NODE, World, eventually, world  # noqa: F401  world is a fixture

from sandbox.standins.kube import path_of

NAMESPACE, PLUGIN = "kube-system", "device-plugin-1"
BOARD = "580.159.03, NVIDIA A10G, 23028, 8.6"


@pytest.fixture(scope="module", autouse=True)
def smi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A nvidia-smi on the PATH of the KWOK that `world` starts; it says what its file says, or fails without one."""
    folder = tmp_path_factory.mktemp("smi")
    script, output = folder / "nvidia-smi", folder / "output"
    script.write_text(f'#!/bin/sh\ncase "$*" in *driver_version,name,memory.total,compute_cap*) exec cat {output} ;; esac\nexit 2\n')
    script.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{before}"
    yield output
    os.environ["PATH"] = before


@pytest.fixture(scope="module")
def plugin(world: World) -> World:  # noqa: F811
    """A device plugin's pod on the GPU node, and KWOK's leave to exec into it."""
    spec = {"nodeName": GPU_NODE, "containers": [{"name": "config-manager", "image": "x"}, {"name": "nvidia-device-plugin", "image": "x"}]}
    labels = {"app": "nvidia-device-plugin-daemonset"}
    pod = {"metadata": {"name": PLUGIN, "namespace": NAMESPACE, "labels": labels}, "spec": {**spec, "automountServiceAccountToken": False}}
    eventually(lambda: world.kube.get(path_of("v1", "serviceaccounts", NAMESPACE, "default")), 60)
    world.kube.request("POST", path_of("v1", "pods", NAMESPACE), body=pod)
    access = {
        "apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "ClusterExec", "metadata": {"name": f"{NAMESPACE}.{PLUGIN}"},
        "spec": {"selector": {"matchNamespaces": [NAMESPACE], "matchNames": [PLUGIN]}, "execs": [{"local": {"workDir": "/tmp"}}]},
    }  # fmt: skip
    world.kube.apply(path_of("kwok.x-k8s.io/v1alpha1", "clusterexecs", name=f"{NAMESPACE}.{PLUGIN}"), access)
    eventually(lambda: (world.kube.get(path_of("v1", "pods", NAMESPACE, PLUGIN)).get("status") or {}).get("phase") == "Running", 60)
    return world


def facts(world: World, **options):  # noqa: F811
    runner = Runner(world.kubeconfig, world.plane.audit_log)
    result = runner("gpu_node_info", **options)
    assert not result.get("failed"), result.get("msg")
    return next(row for row in result["nodes"] if row["name"] == GPU_NODE), result["unread"], runner


def test_driver_and_boards_are_measured_when_asked_for(plugin, smi):
    smi.write_text(f"{BOARD}\n" * 4)

    def measured():
        row, unread, runner = facts(plugin, exec=True)
        # KWOK needs a moment to see the ClusterExec.
        return (row, runner) if not unread else None

    row, runner = eventually(measured, 30)
    assert row["driver"] == {"version": "580.159.03", "branch": 580, "max_cuda": "13.0"}
    assert row["provenance"]["driver"] == {"source": "nvidia-smi", "confidence": "measured"}
    assert (row["gpu"]["count"], row["gpu"]["memory_mib"], row["gpus"]["unhealthy"]) == (4, 23028, 0)
    assert [line for line in runner.writes() if "pods" not in line] == []


def test_without_the_option_nothing_is_run(plugin, smi):
    smi.write_text(f"{BOARD}\n" * 4)
    row, _unread, runner = facts(plugin)
    assert row["driver"] is None
    assert runner.writes() == []


def test_a_pod_without_nvidia_smi_is_told(plugin, smi):
    smi.unlink(missing_ok=True)
    row, unread, _runner = facts(plugin, exec=True)
    assert row["driver"] is None
    assert [text.partition(":")[0] for text in unread] == [f"nvidia-smi in {NAMESPACE}/{PLUGIN}"]


def test_the_check_uses_it_too(plugin, smi):
    """A driver that no label tells is too old for the image: known before the server starts and dies."""
    smi.write_text("570.195.03, NVIDIA A10G, 23028, 8.6\n" * 4)
    model = {"name": "m", "image": "docker.io/vllm/vllm-openai:v0.33.0", "gpus": 1, "instance_types": ["g5.12xlarge"]}
    runner = Runner(plugin.kubeconfig, plugin.plane.audit_log)
    result = runner("gpu_capacity_check", models=[model], exec=True)
    assert ("driver_cuda_major", "error", f"node {GPU_NODE}") in [(row["check"], row["severity"], row["subject"]) for row in result["problems"]]
    assert [(row["driver"], row["source"]) for row in result["drivers"]] == [("570.195.03", "nvidia-smi")]


def test_no_permission_to_exec_is_told(plugin, smi):
    """A token that may list and not exec."""
    smi.write_text(f"{BOARD}\n")
    name, rbac = "gpu-check-lists", "rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": ["*"], "resources": ["nodes", "pods", "ec2nodeclasses", "resourceslices"], "verbs": ["list"]}]
    role = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    plugin.kube.request("POST", path_of("v1", "serviceaccounts", NAMESPACE), body={"metadata": {"name": name}})
    plugin.kube.request("POST", path_of(rbac, "clusterroles"), body={"metadata": {"name": name}, "rules": rules})
    plugin.kube.request("POST", path_of(rbac, "clusterrolebindings"), body={"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    token = plugin.kube.request("POST", path_of("v1", "serviceaccounts", NAMESPACE, name) + "/token", body={"spec": {}})["status"]["token"]
    server = yaml.safe_load(plugin.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    # A playbook logs in once a process; here the client would still present the certificate of the logins before.
    kubernetes.client.Configuration.set_default(None)
    row, unread, _runner = facts(plugin, exec=True, kubeconfig="/dev/null", host=server, api_key=token, validate_certs=False)
    assert row["driver"] is None
    assert len(unread) == 1
    assert unread[0].startswith(f"pods/exec in {NAMESPACE}/{PLUGIN}: ")
    assert "403 Forbidden" in unread[0]


def test_nothing_is_run_as_another_user(plugin, smi):
    """The client would run it with the rights of the real one."""
    smi.write_text(f"{BOARD}\n")
    row, unread, _runner = facts(plugin, exec=True, impersonate_user="admin", impersonate_groups=["system:masters"])
    assert row["driver"] is None
    assert unread == [f"pods/exec in {NAMESPACE}/{PLUGIN}: not done as another user (impersonate_user)"]
