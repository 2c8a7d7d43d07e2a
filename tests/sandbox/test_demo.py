# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration's own words, with programs of the test's own in place of Ansible and kubectl."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import demo
from sandbox.settings import DEFAULT_PORTS, Settings

PLAYBOOK = """#!/bin/sh
echo 'TASK [llmops.eks.vllm : Apply the models] ****'
echo 'localhost                  : ok=9    changed=4    unreachable=0    failed=0'
cp "{seen}/served" "{seen}/deployments"
"""
KUBECTL = """#!/bin/sh
cat "{seen}/$2"
"""
ANSIBLE = """#!/bin/sh
printf 'localhost | SUCCESS => {{"endpoints": [{{"name": "llama-3-1-8b", "text": "yes", "completion_tokens": 1, "seconds": 0.1}}]}}'
"""
POD = {"spec": {"nodeName": "gpu-0"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


class Cluster:
    """What kubectl shows: a file for each word that is asked for, in `seen`."""

    def __init__(self, folder: Path) -> None:
        self.seen = folder / "seen"
        self.seen.mkdir()
        self.show("deployments", [])
        self.show("served", [{"metadata": {"name": "llama-3-1-8b"}, "status": {"readyReplicas": 1}}])
        self.show("pods", [POD])
        self.carry(0)
        (folder / "bin").mkdir()
        for name, text in (("ansible-playbook", PLAYBOOK), ("kubectl", KUBECTL), ("ansible", ANSIBLE)):
            program = folder / "bin" / name
            program.write_text(text.format(seen=self.seen))
            program.chmod(0o755)

    def show(self, what: str, items: list) -> None:
        (self.seen / what).write_text(json.dumps({"items": items}))

    def carry(self, load: float) -> None:
        replicas, nodes = (3, 2) if load else (1, 1)
        (self.seen / "deployment").write_text(json.dumps({"spec": {"replicas": replicas}, "status": {"readyReplicas": replicas}}))
        self.show("nodes", [{"metadata": {"name": f"gpu-{i}", "labels": {"node.kubernetes.io/instance-type": "g6.xlarge"}}} for i in range(nodes)])


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    made = Cluster(tmp_path)

    class Control:
        def __init__(self, url):
            pass

        def load(self, model, load):
            made.carry(load)

    counts = iter([0, 7, 7, 7])
    monkeypatch.setattr(demo, "Control", Control)
    monkeypatch.setattr(demo.lifecycle, "count_writes", lambda directory: {"kubernetes": next(counts), "aws": 0})
    return made


@pytest.fixture
def run(cluster, tmp_path):
    return demo.Demo(Settings(tmp_path, tmp_path, dict(DEFAULT_PORTS))).run


def test_what_is_written_of_it(run, cluster, tmp_path, capsys):
    with pytest.raises(demo.DemoError, match="the second run changed 4 and wrote 0; needed 0 and 0"):  # the playbook here always says changed=4
        run()
    written = json.loads((tmp_path / "demo.json").read_text())
    assert [{**r, "seconds": r["seconds"] >= 0} for r in written["runs"]] == [
        {"changed": 4, "failed": 0, "seconds": True, "api_writes": 7},
        {"changed": 4, "failed": 0, "seconds": True, "api_writes": 0},
    ]
    assert written["models"] == [{"name": "llama-3-1-8b", "ready": True, "replicas": 1, "instance_types": ["g6.xlarge"]}]
    assert [(r["load"], r["replicas"], r["nodes"]) for r in written["scaling"]] == [(demo.LOAD, 3, 2), (0, 1, 1)]
    assert [r["t"] for r in written["scaling"]] == sorted(r["t"] for r in written["scaling"])
    assert written.keys() == {"runs", "models", "scaling"}
    assert "vllm : Apply the models" in capsys.readouterr().out


def test_cluster_with_models_is_refused(run, cluster, capsys):
    cluster.show("deployments", [{"metadata": {"name": "mine"}}])
    with pytest.raises(demo.DemoError, match=r"found a cluster that serves mine already; needed: an empty one.*run: make sandbox-down, then make demo"):
        run()
    assert capsys.readouterr().out == ""


def test_only_the_sandbox_of_an_earlier_demo_starts_anew(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(demo.lifecycle, "up", lambda directory, say: done.append("up"))
    monkeypatch.setattr(demo.lifecycle, "down", lambda directory, say: done.append("down"))
    demo.empty_sandbox(tmp_path)
    assert done == ["up"]
    (tmp_path / demo.RESULT).touch()
    demo.empty_sandbox(tmp_path)
    assert done == ["up", "up", "down", "up"]


def test_playbook_does_not_outlive_a_failure(run, cluster, monkeypatch, tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "bin" / "ansible-playbook").write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 60\n")
    monkeypatch.setattr(demo, "QUIET_SECONDS", 0.1)
    looks = []

    def lost(_demo):
        looks.append(pid.exists() and pid.read_text())
        if looks[-1]:
            raise demo.DemoError("the cluster is gone")

    monkeypatch.setattr(demo.Demo, "progress", lost)
    with pytest.raises(demo.DemoError, match="the cluster is gone"):
        run()
    assert not Path(f"/proc/{int(looks[-1])}").exists()


def test_lines_come_at_once_and_silence_is_filled(tmp_path):
    """The writer waits for two pulses, so nobody measures time."""
    seen: list[str] = []
    go = tmp_path / "go"
    script = f"import pathlib, time; print('first', flush=True)\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\nprint('second')"

    def pulse() -> None:
        seen.append("pulse")
        if seen.count("pulse") == 2:
            go.touch()

    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        for line in demo.lines(process.stdout, 0.2, pulse):
            seen.append(line)
    assert [line for line in seen if line != "pulse"] == ["first\n", "second\n"]
    # Some may come before the first line, on a machine that is slow to start a program.
    assert seen.count("pulse") >= 2
