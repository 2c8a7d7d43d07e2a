# SPDX-License-Identifier: GPL-3.0-or-later
"""gpu_node_info and gpu_capacity_check against a real API server. The nodes are fake: Node objects without a kubelet, status as on EKS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from action_runner import Runner
from ansible_collections.llmops.eks.plugins.module_utils import _capacity_cluster, _kube
from gpu_objects import GPU, gfd, model, node, node_pool, pod

from sandbox import build

NAMESPACE = "gpu-check"
GFD_NODE, BARE_NODE, OLD_NODE = "gpu-check-a", "gpu-check-b", "gpu-check-old"


@pytest.fixture(scope="module")
def cluster(control_plane):
    """Three GPU nodes and one pod that holds a GPU, gone afterwards."""
    client = _kube.connect({"kubeconfig": str(control_plane.kubeconfig)})
    client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    items = [
        node(GFD_NODE, "g5.12xlarge", labels=gfd("g5.12xlarge")),
        node(BARE_NODE, "g6.xlarge", os_image="Bottlerocket OS 1.66.0 (aws-k8s-1.36-nvidia)"),
        node(OLD_NODE, "g5.xlarge", os_image="Amazon Linux 2", kubelet="v1.32.9-eks-1"),
    ]
    for item in items:
        client.request("POST", "/api/v1/nodes", body=item)
        # A kubelet would write the status; a patch does not collide with the taints that controllers set meanwhile.
        status = {"status": item["status"]}
        client.request("PATCH", f"/api/v1/nodes/{item['metadata']['name']}/status", body=status, content_type="application/merge-patch+json")
    busy = pod("busy", GFD_NODE, {"cpu": "2"}, namespace=NAMESPACE, tolerations=[{"operator": "Exists"}], automountServiceAccountToken=False)
    busy["spec"]["containers"][0]["resources"]["limits"] = {GPU: "1"}
    busy.pop("status")
    _wait_for_service_account(client)
    client.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body=busy)
    yield client
    client.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/busy", body={"gracePeriodSeconds": 0})
    for item in items:
        client.request("DELETE", f"/api/v1/nodes/{item['metadata']['name']}")
    client.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def _wait_for_service_account(client):
    for _gone in _kube.poll(30):
        if client.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"):
            return
    pytest.fail("the default ServiceAccount did not come within 30 s")


@pytest.fixture
def run(control_plane, cluster, monkeypatch):
    """Without AWS: test_gpu_capacity_aws.py is about that."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Runner(control_plane.kubeconfig, control_plane.audit_log)


def test_facts_of_a_mixed_fleet(run):
    result = run("gpu_node_info")
    facts = {row["name"]: row for row in result["nodes"] if row["name"].startswith("gpu-check")}
    assert result["changed"] is False
    assert facts[GFD_NODE]["gpus"] == {"resource": GPU, "capacity": 4, "allocatable": 4, "requested": 1, "free": 3, "unhealthy": 0}
    assert facts[GFD_NODE]["cpu_m"]["requested"] == 2000
    assert (facts[BARE_NODE]["ami_kind"], facts[BARE_NODE]["driver"]["version"]) == ("bottlerocket", "580.178.04")
    assert facts[BARE_NODE]["provenance"]["driver"] == {"source": "ami-table", "confidence": "inferred"}
    assert facts[OLD_NODE]["driver"]["branch"] == 570


@pytest.mark.parametrize("check", [False, True])
def test_check_writes_nothing_and_finds_the_old_driver(run, cluster, check):
    # Only a cluster that was given to the tests has Karpenter.
    expected = ["aws_login"] if cluster.find("karpenter.sh/v1", "NodePool", fresh=True) else ["aws_login", "karpenter_missing"]
    result = run("gpu_capacity_check", check=check, models=[model(instance_types=("g5.xlarge", "g6.xlarge", "g5.12xlarge"))])
    assert not result.get("failed")
    assert result["changed"] is False
    assert [(row["check"], row["subject"]) for row in result["problems"] if row["severity"] == "error"] == [("driver_cuda_major", f"node {OLD_NODE}")]
    assert [row["check"] for row in result["problems"] if row["severity"] == "info"] == expected
    if run.audit_log:
        assert run.requests() == []
        assert sorted(r.split()[1] for r in run.requests({"list"})) == ["ec2nodeclasses", "nodepools", "nodes", "pods", "resourceslices"]


def test_too_large_a_model_fails_the_task_when_asked_to(run):
    """16 GPUs in one pod: no instance type has them, whatever nodes and node pools the cluster has."""
    result = run("gpu_capacity_check", models=[model(gpus=16, instance_types=("g5.48xlarge",))], fail_on_errors=True)
    assert result["failed"] is True
    assert "model m: found 0 free GPU(s)" in result["msg"]
    assert "needed room for 1 more of 1 replica(s)" in result["msg"]


def test_models_that_are_not_planned_are_refused_before_the_cluster_is_asked(run):
    result = run("gpu_capacity_check", models=[{"name": "m", "gpus": "many"}])
    assert result["failed"] is True
    assert {row["check"] for row in result["problems"]} == {"model"}
    if run.audit_log:
        assert run.requests({"list", "get"}) == []


def test_image_cuda_without_a_minor_is_refused(run):
    assert "needed major.minor" in run("gpu_capacity_check", models=[], image_cuda="13")["msg"]


def test_no_permission_is_a_row_with_verb_and_resource(run):
    result = run("gpu_capacity_check", models=[model()], impersonate_user="gpu-check-nobody")
    assert not result.get("failed")
    rows = {row["subject"]: row for row in result["problems"] if row["check"] == "permission"}
    assert {"RBAC list nodes", "RBAC list pods"} <= set(rows)
    assert 'verb list on resource nodes in API group ""' in rows["RBAC list nodes"]["needed"]
    assert "gpu-check-nobody" in rows["RBAC list nodes"]["found"]
    assert [row for row in result["problems"] if row["check"] == "capacity"] == []


def test_facts_without_permission_fail_with_the_rule(run):
    result = run("gpu_node_info", impersonate_user="gpu-check-nobody")
    assert result["failed"] is True
    assert "needed verb list on resource nodes" in result["msg"]


def test_lists_longer_than_a_page_are_read_whole(cluster, monkeypatch):
    """The API server pages when it answers from etcd; from its cache it may send all at once. Both must give every node."""
    monkeypatch.setattr(_kube, "PAGE", 1)
    names = {item["metadata"]["name"] for item in _capacity_cluster.read(cluster).nodes}
    before = cluster.calls["GET"]
    paged = {item["metadata"]["name"] for item in cluster.items("/api/v1/nodes")}
    assert {GFD_NODE, BARE_NODE, OLD_NODE} <= names
    assert paged == names
    assert cluster.calls["GET"] - before == len(names), "one page a node"


def test_gpus_of_a_dra_driver(run, cluster):
    """A ResourceSlice as NVIDIA's driver writes it, accepted by the real API; the node itself has no nvidia.com/gpu."""
    name = "gpu-check-dra"
    attributes = {
        "type": {"string": "gpu"}, "productName": {"string": "NVIDIA L4"}, "architecture": {"string": "Ada Lovelace"},
        "driverVersion": {"version": "580.159.3"}, "cudaDriverVersion": {"version": "13.0.0"}, "cudaComputeCapability": {"version": "8.9.0"},
    }  # fmt: skip
    devices = [{"name": "gpu-0", "attributes": attributes, "capacity": {"memory": {"value": "23034Mi"}}}]
    spec = {"driver": "gpu.nvidia.com", "nodeName": name, "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}, "devices": devices}
    cluster.request("POST", "/apis/resource.k8s.io/v1/resourceslices", body={"metadata": {"name": name}, "spec": spec})
    try:
        cluster.request("POST", "/api/v1/nodes", body=node(name, "g6.xlarge", capacity={}))
        status = {"status": node(name, "g6.xlarge", capacity={})["status"]}
        cluster.request("PATCH", f"/api/v1/nodes/{name}/status", body=status, content_type="application/merge-patch+json")
        facts = next(row for row in run("gpu_node_info")["nodes"] if row["name"] == name)
        assert (facts["gpus"]["resource"], facts["gpus"]["free"], facts["driver"]["version"]) == ("gpu.nvidia.com", 1, "580.159.3")
        assert facts["provenance"]["driver"] == {"source": "resource-slice", "confidence": "measured"}
        problems = run("gpu_capacity_check", models=[model(instance_types=("g6.xlarge",))])["problems"]
        assert ("gpu_dra", "warning", f"node {name}") in [(row["check"], row["severity"], row["subject"]) for row in problems]
    finally:
        cluster.request("DELETE", f"/apis/resource.k8s.io/v1/resourceslices/{name}")
        cluster.request("DELETE", f"/api/v1/nodes/{name}")


def test_in_a_playbook(control_plane, cluster, tmp_path):
    """The whole way: ansible-playbook, kubeconfig from the task's environment, result in the next task."""
    root = Path(__file__).resolve().parents[2]
    free = f"gpu.nodes | selectattr('name', '==', '{GFD_NODE}') | map(attribute='gpus.free') | first == 3"
    play = [{"name": "Check", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [
        {"name": "Facts", "llmops.eks.gpu_node_info": {}, "environment": {"K8S_AUTH_KUBECONFIG": str(control_plane.kubeconfig)}, "register": "gpu"},
        {"name": "Found", "ansible.builtin.assert": {"that": [free]}},
    ]}]  # fmt: skip
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(tmp_path / "play.yml")]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_real_node_pools_bound_what_karpenter_may_add(run, cluster):
    """Karpenter's own CRD, no controller: the objects are read as the API server keeps them."""
    definition = build.home() / "share" / "crds" / "karpenter" / "karpenter.sh_nodepools.yaml"
    if not definition.exists():
        pytest.skip(f"no {definition}: run `python -m sandbox build`")
    if cluster.find("karpenter.sh/v1", "NodePool", fresh=True):
        pytest.skip("this cluster has Karpenter's CRDs, and this test would remove them")
    crd = yaml.safe_load(definition.read_text())
    cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=crd)
    try:
        for _gone in _kube.poll(30):
            if cluster.find("karpenter.sh/v1", "NodePool", fresh=True):
                break
        pool = node_pool("gpu-check", types=("g5.48xlarge",), limit="8")
        pool["spec"]["disruption"] = {"consolidateAfter": "5m"}
        pool.pop("status")
        for _gone in _kube.poll(30):  # the endpoint may answer 404 for a moment after discovery knows the kind
            if cluster.get("/apis/karpenter.sh/v1/nodepools"):
                break
        cluster.request("POST", "/apis/karpenter.sh/v1/nodepools", body=pool)
        big = model(gpus=8, instance_types=("g5.48xlarge",), replicas={"min": 1, "max": 2, "first": 1})
        result = run("gpu_capacity_check", models=[big])
        rows = [row for row in result["problems"] if row["check"] == "capacity"]
        assert [(row["severity"], row["subject"]) for row in rows] == [("warning", "model m")]
        assert "NodePool gpu-check is at its limit (nvidia.com/gpu 8" in rows[0]["found"]
        assert [row["left"] for row in result["node_pools"]] == [{GPU: 8}]
        assert [row for row in result["problems"] if row["check"] == "karpenter_missing"] == []
    finally:
        cluster.request("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}")
