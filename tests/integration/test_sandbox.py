# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox as a user runs it: the whole set of real programs, in a state directory of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sandbox import build
from sandbox.settings import DEFAULT_PORTS, ROOT

pytestmark = pytest.mark.skipif(not build.Builder().complete(), reason=f"no complete build in {build.home()}: run `python -m sandbox build`")

PARTS = {"aws", "kubeall", "kwok", "keda", "keda-adapter", "prometheus", "standins", "karpenter"}


def sandbox(directory: Path, *arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """``python -m sandbox <arguments>`` with its state in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=ROOT, env={**os.environ, "LLMOPS_SANDBOX_DIR": str(directory), **env}, input=stdin, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def own_processes(directory: Path) -> list[str]:
    """Command lines of living processes that mention `directory`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if str(directory) in line]


class Up:
    def __init__(self, directory: Path, output: str) -> None:
        self.directory, self.output = directory, output

    def run(self, *arguments: str, **kwargs: str) -> str:
        done = sandbox(self.directory, *arguments, **kwargs)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kubectl(self, *arguments: str, **kwargs: str) -> str:
        return self.run("exec", "--", "kubectl", *arguments, **kwargs)

    def apply(self, *manifests: dict) -> str:
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def writes(self) -> dict:
        return json.loads(self.run("writes", "--json"))

    def rows(self) -> dict[str, list[str]]:
        """{part: [pid, MiB, health ...]} as `status` prints it."""
        done = sandbox(self.directory, "status")
        table = done.stdout.partition("\nall ")[0]
        return {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A sandbox that was started while its usual AWS port was taken by somebody else."""
    directory = tmp_path_factory.mktemp("sandbox")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", DEFAULT_PORTS["aws"])) if _free(DEFAULT_PORTS["aws"]) else None
        squatter.listen()
        try:
            started = sandbox(directory, "up")
            assert started.returncode == 0, started.stdout + started.stderr
            yield Up(directory, started.stdout)
        finally:
            down = sandbox(directory, "down")
    assert down.returncode == 0, down.stderr
    assert own_processes(directory) == []


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(what: str, check, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"{what}: not so after {seconds} s"
        time.sleep(0.5)


def test_every_part_is_well(up):
    rows = up.rows()
    assert rows.keys() == PARTS
    assert {name: row[2:] for name, row in rows.items()} == {name: ["ok"] for name in PARTS}
    assert all(int(row[1]) > 0 for row in rows.values())


def test_taken_port_is_replaced_and_said(up):
    assert f"port {DEFAULT_PORTS['aws']} is taken: aws gets " in up.output
    variables = dict(line.split("=", 1) for line in up.run("env").splitlines())
    assert variables["AWS_ENDPOINT_URL"] != f"http://127.0.0.1:{DEFAULT_PORTS['aws']}"
    assert up.run("exec", "--", "python", "-c", "import boto3; print(boto3.client('eks').list_clusters()['clusters'])") == "['sandbox']\n"


def test_second_up_starts_nothing_and_says_so(up):
    before = up.rows()
    assert "is up already" in up.run("up")
    assert {name: row[0] for name, row in up.rows().items()} == {name: row[0] for name, row in before.items()}  # no process was started anew


def test_env_file_leads_a_shell_to_the_cluster(up):
    script = f"set -a; . {shlex.quote(str(up.directory / 'env'))}; kubectl version -o json"
    versions = json.loads(subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert versions["serverVersion"]["gitVersion"] == build.VERSIONS["kubernetes"]


def test_cluster_has_ready_nodes_and_all_kinds(up):
    nodes = json.loads(up.kubectl("get", "nodes", "-o", "json"))["items"]
    ready = {n["metadata"]["name"]: c["status"] for n in nodes for c in n["status"]["conditions"] if c["type"] == "Ready"}
    assert ready["system-1"] == ready["system-2"] == "True"
    kinds = up.kubectl("get", "crd", "-o", "name")
    for name in (
        "nodepools.karpenter.sh", "ec2nodeclasses.karpenter.k8s.aws", "scaledobjects.keda.sh", "interceptorroutes.http.keda.sh",
        "clusterpolicies.nvidia.com", "podmonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com",
    ):  # fmt: skip
        assert f"customresourcedefinition.apiextensions.k8s.io/{name}\n" in kinds
    assert up.kubectl("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1").startswith('{"kind":"APIResourceList"')


def test_writes_counts_people_only_and_no_dry_run(up):
    before = up.writes()
    up.kubectl("create", "namespace", "counted", "--dry-run=server")
    up.kubectl("get", "pods", "-A")
    assert up.writes() == before
    up.kubectl("create", "namespace", "counted")
    up.run("exec", "--", "python", "-c", "import boto3; boto3.client('s3').create_bucket(Bucket='counted')")
    after = up.writes()
    assert (after["kubernetes"] - before["kubernetes"], after["aws"] - before["aws"]) == (1, 1)
    assert after["calls"]["create namespaces"] == before["calls"].get("create namespaces", 0) + 1


def test_pods_run_and_jobs_complete_without_a_kubelet(up):
    up.kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
    up.kubectl("create", "job", "once", "--image=busybox")
    assert "condition met" in up.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    assert "condition met" in up.kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
    up.kubectl("delete", "deployment", "web", "--wait", "--timeout=60s")
    wait_for("the pods' end", lambda: "web-" not in up.kubectl("get", "pods", "-o", "name"))


def test_logs_exec_and_port_forward_reach_what_the_kwok_resources_name(up, tmp_path):
    log = tmp_path / "log"
    log.write_text("2026-11-24T04:18:00.000000000Z stdout F hello from the pod\n")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "debug"}, "spec": {"containers": [{"name": "main", "image": "busybox"}]}}
    with socket.create_server(("127.0.0.1", 0)) as server:
        up.apply(pod, *(
            {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": kind, "metadata": {"name": "default.debug"},
             "spec": {"selector": {"matchNamespaces": ["default"], "matchNames": ["debug"]}, field: [value]}}
            for kind, field, value in (
                ("ClusterLogs", "logs", {"logsFile": str(log)}),
                ("ClusterExec", "execs", {"local": {"workDir": str(tmp_path)}}),
                ("ClusterPortForward", "forwards", {"target": {"address": "127.0.0.1", "port": server.getsockname()[1]}}),
            )
        ))  # fmt: skip
        up.kubectl("wait", "--for=condition=Ready", "pod/debug", "--timeout=60s")
        wait_for("KWOK's view", lambda: sandbox(up.directory, "exec", "--", "kubectl", "logs", "debug").stdout == "hello from the pod\n", 20)
        assert up.kubectl("exec", "debug", "--", "pwd") == f"{tmp_path}\n"
        environment = {**os.environ, "LLMOPS_SANDBOX_DIR": str(up.directory)}
        command = [sys.executable, "-m", "sandbox", "exec", "--", "kubectl", "port-forward", "pod/debug", ":8000"]
        forward = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            port = int(forward.stdout.readline().split(" -> ")[0].rsplit(":", 1)[1])
            server.settimeout(20)
            with socket.create_connection(("127.0.0.1", port)) as client:
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"from the pod")
                    client.settimeout(20)
                    assert client.recv(100) == b"from the pod"
        finally:
            forward.terminate()
            forward.wait(20)
            forward.stdout.close()


def test_karpenter_chart_takes_the_definitions_over(up):
    out = up.run("exec", "--", "sh", "-c", 'helm install karpenter-crd "$LLM_CHARTS/karpenter-crd" --namespace kube-system')
    assert "STATUS: deployed" in out


def test_second_up_gives_removed_kinds_back(up):
    up.kubectl("delete", "customresourcedefinition", "nodepools.karpenter.sh", "podmonitors.monitoring.coreos.com")
    assert "2 kinds that had been removed are back" in up.run("up")
    assert up.kubectl("get", "nodepools,podmonitors") == ""
    assert "are back" not in up.run("up")


def test_prometheus_loads_what_is_put_into_its_folders(up):
    rule = {"groups": [{"name": "g", "rules": [{"record": "sandbox:one", "expr": "vector(1)"}]}]}
    (up.directory / "prometheus" / "rules" / "test.yaml").write_text(yaml.safe_dump(rule))
    query = 'import json,os,urllib.request as u; b=os.environ["LLM_PROMETHEUS_URL"]; u.urlopen(b+"/-/reload", data=b"") if {0} else 0; '
    query += 'print(json.load(u.urlopen(b+"/api/v1/query?query=sandbox:one"))["data"]["result"])'
    up.run("exec", "--", "python", "-c", query.format(1))
    wait_for("the rule's value", lambda: up.run("exec", "--", "python", "-c", query.format(0)) != "[]\n", 30)
    assert "'1'" in up.run("exec", "--", "python", "-c", query.format(0))


def test_ended_part_is_named_and_down_still_cleans_up(tmp_path):
    """Without the stand-ins one also sees that KWOK does not touch their pods."""
    started = sandbox(tmp_path, "up")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        instance = Up(tmp_path, started.stdout)
        os.kill(int(instance.rows()["standins"][0]), signal.SIGKILL)
        wait_for("the end of the stand-ins", lambda: instance.rows()["standins"][2] == "ended", 10)
        status = sandbox(tmp_path, "status")
        assert status.returncode == 1
        assert "standins: last lines of its log:\n    " in status.stdout
        again = sandbox(tmp_path, "up")
        assert again.returncode == 1
        assert "standins has ended" in again.stderr
        assert "standins.log:\n    " in again.stderr
        assert "run `python -m sandbox down`" in again.stderr
        theirs = {"server": ("registry.example/vllm-openai:v1", {}), "weights": ("busybox", {"app.kubernetes.io/component": "weights"}), "other": ("nginx", {})}
        instance.apply(*(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "main", "image": image}]}}
            for name, (image, labels) in theirs.items()
        ))  # fmt: skip
        instance.kubectl("wait", "--for=condition=Ready", "pod/other", "--timeout=60s")
        instance.kubectl("delete", "pod", "server", "weights", "--wait=false")
        time.sleep(2)  # ten times as long as KWOK takes for a pod of its own
        pods = {p["metadata"]["name"]: p["status"]["phase"] for p in json.loads(instance.kubectl("get", "pods", "-o", "json"))["items"]}
        assert pods == {"server": "Pending", "weights": "Pending", "other": "Running"}
    finally:
        down = sandbox(tmp_path, "down")
    assert down.returncode == 0, down.stderr
    assert own_processes(tmp_path) == []
    assert sandbox(tmp_path, "down").stdout == "The sandbox is down\n"
    assert (tmp_path / "log" / "standins.log").exists()


def test_part_that_crashes_at_the_start_is_reported_with_its_log(tmp_path):
    """A build whose Karpenter cannot start."""
    cache, directory = tmp_path / "cache", tmp_path / "state"
    broken = cache / build.home().name
    (broken / "bin").mkdir(parents=True)
    for program in (build.home() / "bin").iterdir():
        (broken / "bin" / program.name).symlink_to(program)
    (broken / "share").symlink_to(build.home() / "share")
    (broken / "complete").touch()
    (broken / "bin" / "karpenter").unlink()
    (broken / "bin" / "karpenter").write_text("#!/bin/sh\necho the provider is broken\nexit 7\n")
    (broken / "bin" / "karpenter").chmod(0o755)
    try:
        failed = sandbox(directory, "up", LLMOPS_EKS_CACHE=str(cache))
        left = own_processes(directory)
    finally:
        sandbox(directory, "down")  # nothing to end, unless this test fails
    assert failed.returncode == 1
    assert "karpenter ended while waiting for" in failed.stderr
    assert "the provider is broken" in failed.stderr
    assert left == []
    assert "is down" in sandbox(directory, "status").stdout
