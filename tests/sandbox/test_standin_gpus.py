# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels, verdicts and series of the GPU stand-ins."""

from __future__ import annotations

import pytest

from sandbox.standins import dcgm, gpu_labels, kube_state_metrics
from sandbox.standins.gpu_operator import sharing, status_of, verdict
from sandbox.standins.settings import Node

TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(instance_type: str = "g5.12xlarge", gpus: int = 4, image: str = "Amazon Linux 2023", taints: tuple[dict, ...] = (), **labels: str) -> dict:
    return {
        "metadata": {"name": "a", "labels": {"node.kubernetes.io/instance-type": instance_type, **labels}},
        "spec": {"taints": list(taints)},
        "status": {"capacity": {"cpu": "47810m", "memory": "1Ki", gpu_labels.GPU: str(gpus)}, "nodeInfo": {"osImage": image}},
    }


@pytest.mark.parametrize(
    ("instance_type", "product", "memory", "compute"),
    [
        ("g5.12xlarge", "NVIDIA-A10G", "23028", ("8", "6")),
        ("g6.xlarge", "NVIDIA-L4", "23034", ("8", "9")),
        ("p5.48xlarge", "NVIDIA-H100-80GB-HBM3", "81559", ("9", "0")),
    ],
)
def test_feature_discovery_labels(instance_type: str, product: str, memory: str, compute: tuple[str, str]) -> None:
    labels = gpu_labels.gfd(node(instance_type, 8))
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.memory"], labels["nvidia.com/gpu.count"]) == (product, memory, "8")
    assert (labels["nvidia.com/gpu.compute.major"], labels["nvidia.com/gpu.compute.minor"]) == compute
    assert labels["nvidia.com/cuda.runtime-version.full"] == "13.0"


def test_time_slicing_shows_in_labels() -> None:
    text = "sharing:\n  timeSlicing:\n    resources:\n      - {name: nvidia.com/gpu, replicas: 4}\n"
    assert sharing(text) == (4, "time-slicing")
    assert sharing("") == (1, "none")
    labels = gpu_labels.gfd(node(), *sharing(text))
    assert (labels["nvidia.com/gpu.product"], labels["nvidia.com/gpu.replicas"], labels["nvidia.com/gpu.count"]) == ("NVIDIA-A10G-SHARED", "4", "4")


@pytest.mark.parametrize(
    ("nodes", "nfd", "driver", "reason"),
    [
        ([node()], True, False, "Reconciled"),
        ([node()], True, True, "OperandNotReady"),
        ([node(image="Bottlerocket OS 1.66.0 (aws-k8s-1.36-nvidia)")], True, True, "OperandNotReady"),
        ([node(image="Ubuntu 24.04.1 LTS")], True, True, "Reconciled"),
        ([node(taints=({"key": "team", "effect": "NoSchedule"},))], True, True, "Reconciled"),  # DESIRED 0 counts as ready
        ([node(**{"nvidia.com/gpu.deploy.driver": "false"})], True, True, "Reconciled"),
        ([], True, True, "NoGPUNodes"),
        ([node()], False, False, "NFDLabelsMissing"),
    ],
)
def test_verdict(nodes: list[dict], nfd: bool, driver: bool, reason: str) -> None:
    spec = {"driver": {"enabled": driver}, "daemonsets": {"tolerations": [TOLERATION]}}
    found, message = verdict(nodes, nfd, spec, {})
    assert found == reason
    assert ("state-driver" in message) == (reason == "OperandNotReady")


def test_status_is_stable_while_nothing_changes() -> None:
    first = status_of({}, "OperandNotReady", "no", "gpu-operator")
    first["conditions"][0]["lastTransitionTime"] = first["conditions"][1]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    assert status_of({"status": first}, "OperandNotReady", "no", "gpu-operator") == first
    assert first["state"] == "notReady"
    assert {c["type"]: c["status"] for c in first["conditions"]} == {"Ready": "False", "Error": "True"}


def test_tolerations() -> None:
    tainted = node(taints=({"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}))
    assert gpu_labels.tolerates(tainted, [TOLERATION])
    assert not gpu_labels.tolerates(tainted, [{**TOLERATION, "operator": "Equal", "value": "false"}])


def test_gpus_are_given_to_the_pods_that_hold_them() -> None:
    pod = {
        "metadata": {"namespace": "llm", "name": "p"},
        "status": {"phase": "Running"},
        "spec": {"nodeName": "a", "containers": [{"name": "vllm", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
    }
    gpus = dcgm.gpus_of(node(), [pod])
    assert [g.holder is not None for g in gpus] == [True, True, False, False]
    assert dcgm.labels_of(node(), gpus[0])["pod"] == "p"
    assert "pod" not in dcgm.labels_of(node(), gpus[3])
    values = {name: value for name, _, _, value in dcgm.values_of(gpus[0], 23028, Node())}
    assert values["DCGM_FI_DEV_FB_USED"] + values["DCGM_FI_DEV_FB_FREE"] + values["DCGM_FI_DEV_FB_RESERVED"] == 23028
    assert {name for name, *_ in dcgm.values_of(gpus[0], 1, Node())} >= {"DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_PROF_DRAM_ACTIVE"}


def test_kube_state_metrics_page() -> None:
    page = kube_state_metrics.page([node(**{"nvidia.com/gpu.present": "true"})])
    assert 'kube_node_status_capacity{node="a",resource="nvidia_com_gpu",unit="integer"} 4' in page
    assert 'kube_node_status_capacity{node="a",resource="cpu",unit="core"} 47.81' in page
    assert 'label_nvidia_com_gpu_present="true"' in page
