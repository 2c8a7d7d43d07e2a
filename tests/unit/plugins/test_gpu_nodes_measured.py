# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that nvidia-smi, ResourceSlices and EC2 tell where no label does."""

from __future__ import annotations

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _aws, _capacity, _gpu_nodes_dra, _gpu_nodes_smi, _gpu_nodes_types
from ansible_collections.llmops.eks.plugins.module_utils._capacity_context import Objects, Request, build
from gpu_objects import GPU, gfd, model, node, node_pool, pod
from moto.ec2.models.instance_types import INSTANCE_TYPES

A10G = "580.159.03, NVIDIA A10G, 23028, 8.6"


def facts(item, **objects):
    (row,) = Objects(nodes=[item], **{"pods": [], **objects}).facts()
    return row


def boards(text, all_boards=True):
    return {"node-1": _gpu_nodes_smi.parse(text, all_boards)}


def test_nvidia_smi_tells_driver_and_boards():
    row = facts(node(instance_type="g5.12xlarge"), boards=boards("\n".join([A10G] * 4)))
    assert row["gpu"] == {
        "product": "NVIDIA-A10G", "name": "a10g", "count": 4, "memory_mib": 23028, "compute_capability": "8.6", "family": "ampere", "mixed": [],
    }  # fmt: skip
    assert row["driver"] == {"version": "580.159.03", "branch": 580, "max_cuda": "13.0"}
    assert row["provenance"]["driver"] == {"source": "nvidia-smi", "confidence": "measured"}


def test_labels_are_better_than_nvidia_smi():
    row = facts(node(labels=gfd("g5.xlarge", driver="580.105.08")), boards=boards(A10G))
    assert (row["driver"]["version"], row["provenance"]["driver"]["source"]) == ("580.105.08", "label")


def test_a_board_that_the_plugin_lost_is_unhealthy():
    row = facts(node(instance_type="g5.12xlarge", capacity={GPU: "3"}), boards=boards("\n".join([A10G] * 4)))
    assert (row["gpus"]["allocatable"], row["gpus"]["unhealthy"]) == (3, 1)


def test_a_servers_pod_sees_its_own_boards_only():
    row = facts(node(instance_type="g5.12xlarge"), boards=boards(A10G, all_boards=False))
    assert (row["gpu"]["count"], row["provenance"]["gpu.count"]["source"]) == (4, "allocatable")
    assert row["driver"]["version"] == "580.159.03"


def test_of_different_boards_the_weakest_counts_and_the_check_says_so():
    mixed = boards(f"{A10G}\n580.159.03, NVIDIA L4, 23034, 8.9")
    row = facts(node(), boards=mixed)
    assert (row["gpu"]["mixed"], row["gpu"]["compute_capability"], row["gpu"]["memory_mib"]) == (["NVIDIA-A10G", "NVIDIA-L4"], "8.6", 23028)
    found = _capacity.run(
        build(Request([model()], "2026-11"), Objects(nodes=[node(capacity={GPU: "2"})], pods=[], node_pools=[], node_classes=[], boards=mixed))
    )
    assert [(r["check"], r["severity"], r["found"]) for r in found] == [("gpu_mixed", "warning", "NVIDIA-A10G and NVIDIA-L4 in one node")]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (A10G, 1),
        ("580.159.03, NVIDIA B200, [N/A], [N/A]", 1),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 0),
        ("", 0),
    ],
)
def test_output_of_nvidia_smi(text, rows):
    found = _gpu_nodes_smi.parse(text, True)
    assert len(found.rows if found else ()) == rows


def running(name, labels, *containers, node_name="node-1"):
    item = pod(name, node_name, {}, labels, "gpu-operator")
    item["spec"]["containers"] = [{"name": container} for container in containers]
    return item


def test_the_best_pod_of_each_node_is_asked():
    pods = [
        running("vllm-0", {"app.kubernetes.io/name": "vllm"}, "vllm"),
        running("exporter", {"app": "nvidia-dcgm-exporter"}, "nvidia-dcgm-exporter"),
        running("plugin", {"app": "nvidia-device-plugin-daemonset"}, "config-manager", "nvidia-device-plugin"),
        running("other", {"app": "web"}, "web"),
        running("vllm-1", {"app.kubernetes.io/name": "vllm"}, "vllm", node_name="node-2"),
        running("vllm-2", {"app.kubernetes.io/name": "vllm"}, "vllm", node_name="node-3"),
    ]
    assert _gpu_nodes_smi.where(pods, ["node-1", "node-2"]) == [
        _gpu_nodes_smi.Where("node-1", "gpu-operator", "plugin", "nvidia-device-plugin", True),
        _gpu_nodes_smi.Where("node-2", "gpu-operator", "vllm-1", "vllm", False),
    ]


def test_a_pod_that_gives_nothing_is_a_row():
    objects = Objects(nodes=[node()], pods=[], node_pools=[], node_classes=[], silent=("pods/exec in a/b: Forbidden",))
    found = _capacity.run(build(Request([model()], "2026-11"), objects))
    assert [(r["check"], r["subject"], r["found"]) for r in found] == [
        ("driver_unknown", "node node-1", "no driver version"),
        ("exec", "pods/exec in a/b", "Forbidden"),
    ]


def device(name, product="NVIDIA L4", kind="gpu", **more):
    attributes = {
        "type": {"string": kind}, "productName": {"string": product}, "architecture": {"string": "Ada Lovelace"},
        "cudaComputeCapability": {"version": "8.9.0"}, "driverVersion": {"version": "580.159.3"}, "cudaDriverVersion": {"version": "13.0.0"},
    }  # fmt: skip
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": "23034Mi"}}, **more}


def resource_slice(*devices, node_name="node-1", generation=1, driver="gpu.nvidia.com"):
    return {"spec": {"driver": driver, "nodeName": node_name, "pool": {"name": node_name, "generation": generation}, "devices": list(devices)}}


CLAIM = {"status": {"allocation": {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-0"}]}}}}
EXTENDED = {"metadata": {"name": "gpu.nvidia.com"}, "spec": {"extendedResourceName": GPU}}
TAINTED = {"taints": [{"key": "gpu.nvidia.com/unhealthy", "effect": "NoSchedule"}]}


def bare():
    """A node of a DRA driver: no nvidia.com/gpu."""
    return node(instance_type="g6.xlarge", capacity={})


def test_resource_slices_tell_driver_and_gpus():
    row = facts(bare(), slices=[resource_slice(device("gpu-0"), device("gpu-1", **TAINTED))], claims=[CLAIM])
    assert row["gpus"] == {"resource": "gpu.nvidia.com", "capacity": 2, "allocatable": 1, "requested": 1, "free": 0, "unhealthy": 1}
    assert (row["gpu"]["name"], row["gpu"]["count"], row["gpu"]["memory_mib"], row["gpu"]["family"]) == ("l4", 2, 23034, "ada-lovelace")
    assert (row["driver"], row["state"]) == ({"version": "580.159.3", "branch": 580, "max_cuda": "13.0"}, "ready")
    assert row["provenance"]["driver"] == {"source": "resource-slice", "confidence": "measured"}


def test_pods_get_gpus_of_a_dra_driver_by_the_extended_resource():
    row = facts(bare(), slices=[resource_slice(device("gpu-0"))], device_classes=[EXTENDED])
    assert (row["gpus"]["resource"], row["gpus"]["free"]) == (GPU, 1)


def test_slices_of_others_and_of_an_older_generation_are_left_out():
    slices = [resource_slice(device("old")), resource_slice(device("a"), device("b"), generation=2), resource_slice(device("net"), driver="dra.net")]
    assert [item.name for item in _gpu_nodes_dra.by_node(slices)["node-1"].items] == ["a", "b"]


def test_mig_devices_of_a_dra_driver_are_no_whole_gpus():
    row = facts(bare(), slices=[resource_slice(device("mig-0", kind="mig"))])
    assert (row["mig"]["strategy"], row["gpus"]["capacity"]) == ("mixed", 0)


@pytest.mark.parametrize(("classes", "expected"), [((), [("gpu_dra", "warning", "node node-1")]), ((EXTENDED,), [])])
def test_gpus_by_claims_only_are_no_capacity(classes, expected):
    objects = Objects(
        nodes=[bare()], pods=[], node_pools=[node_pool(types=("g6.xlarge",))] if not classes else [], node_classes=[],
        slices=[resource_slice(device("gpu-0"))], device_classes=classes,
    )  # fmt: skip
    found = _capacity.run(build(Request([model(instance_types=("g6.xlarge",))], "2026-11"), objects))
    assert [(row["check"], row["severity"], row["subject"]) for row in found] == expected


def test_ec2s_description_gives_the_rows_of_the_table():
    """The formula for allocatable CPU and memory, and Karpenter's name of the GPU: equal for every type that both know."""
    compared = 0
    for name, known in _gpu_nodes_types.table().items():
        if known["gpu_count"]:
            made = _gpu_nodes_types.row(INSTANCE_TYPES[name])
            shared = {key for key in made if key in known}
            assert {key: made[key] for key in shared} == {key: known[key] for key in shared}
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", ["m7i.large", "inf2.xlarge"])
def test_types_without_nvidia_gpus_have_no_row(name):
    assert _gpu_nodes_types.row(INSTANCE_TYPES[name]) is None


def test_a_type_that_only_ec2_knows():
    types = {**_gpu_nodes_types.table(), "g9.xlarge": {**_gpu_nodes_types.row(INSTANCE_TYPES["g6.xlarge"]), "instance_type": "g9.xlarge"}}
    item = node(capacity={})
    item["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "g9.xlarge"
    (row,) = Objects(nodes=[item], pods=[]).facts(types=types)
    assert (row["gpu"]["name"], row["provenance"]["gpu.count"]) == ("l4", {"source": "ec2", "confidence": "inferred"})
    assert Objects(nodes=[item], pods=[]).facts() == []


def test_login_options_are_those_of_amazon_aws():
    from ansible_collections.amazon.aws.plugins.module_utils.modules import aws_argument_spec

    theirs = aws_argument_spec()
    theirs.pop("validate_certs")  # shared with kubernetes.core's option of that name
    assert theirs == _aws.AUTH_ARG_SPEC


def test_login_without_credentials_or_region_says_what_is_missing(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert "no credentials" in _aws.login({})
    assert "no region" in _aws.login({"access_key": "a" * 20, "secret_key": "b" * 40})
    with pytest.raises(_aws.AwsError, match="not both"):
        _aws.login({"access_key": "a" * 20, "secret_key": "b" * 40, "profile": "p", "region": "us-east-1"})
    with pytest.raises(_aws.AwsError, match="profile"):
        _aws.login({"profile": "nobody", "region": "us-east-1"})
    assert _aws.login({"access_key": "a" * 20, "secret_key": "b" * 40, "region": "eu-west-1"}).region == "eu-west-1"
