# SPDX-License-Identifier: GPL-3.0-or-later
"""Pod statuses, environment and paths of the stand-ins' kubelet."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from sandbox.processes import MARK
from sandbox.standins import pod_status
from sandbox.standins.environment import ConfigError, translate
from sandbox.standins.local_pods import LocalPod, base_environment, command_of
from sandbox.standins.pod_status import Container
from sandbox.standins.settings import BadRequestError, Settings
from sandbox.standins.vllm_pods import is_local, is_vllm

POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3},
    "spec": {"containers": []},
    "status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]},
}


def conditions(patch: dict) -> dict[str, str]:
    return {c["type"]: c["status"] for c in patch["status"]["conditions"]}


def one(state: dict, **more: object) -> Container:
    return Container("vllm", "vllm:1", state, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("container", "phase", "ready"),
    [
        (one(pod_status.waiting("ContainerCreating")), "Pending", "False"),
        (one(pod_status.running()), "Running", "False"),
        (one(pod_status.running(), ready=True, started=True), "Running", "True"),
        (one(pod_status.waiting("CrashLoopBackOff"), last=pod_status.terminated(1, "")), "Running", "False"),
        (one(pod_status.terminated(0, "")), "Succeeded", "False"),
        (one(pod_status.terminated(1, "")), "Failed", "False"),
    ],
)
def test_phase_and_readiness_follow_the_container(container: Container, phase: str, ready: str) -> None:
    patch = pod_status.pod_patch(POD, [container], "10.245.0.2")
    assert patch["status"]["phase"] == phase
    assert conditions(patch)["Ready"] == conditions(patch)["ContainersReady"] == ready
    assert "PodScheduled" not in conditions(patch)
    assert patch["status"]["startTime"] == "2026-01-01T00:00:00Z"


def test_transition_time_stays_while_the_condition_does() -> None:
    same = pod_status.pod_patch(POD, [one(pod_status.running(), ready=True)], "10.245.0.2")
    other = pod_status.pod_patch(POD, [one(pod_status.running())], "10.245.0.2")
    times = [next(c["lastTransitionTime"] for c in p["status"]["conditions"] if c["type"] == "Ready") for p in (same, other)]
    assert times[0] == "2026-01-01T00:00:05Z"
    assert times[1] != times[0]


def test_back_off_doubles_up_to_five_minutes() -> None:
    assert [pod_status.back_off(n) for n in (0, 1, 2, 9)] == [10, 20, 40, 300]
    held = pod_status.crash_loop(one(pod_status.running(), ready=True, restarts=4), POD, pod_status.terminated(2, ""))
    assert held.state["waiting"]["reason"] == "CrashLoopBackOff"
    assert "back-off 2m40s restarting failed container=vllm pod=p_n(u)" in held.state["waiting"]["message"]
    assert (held.ready, held.restarts, held.last["terminated"]["exitCode"]) == (False, 4, 2)


@pytest.mark.parametrize(
    ("container", "budget"),
    [
        ({}, None),
        ({"livenessProbe": {"initialDelaySeconds": 60, "periodSeconds": 10}}, ("liveness", 90)),
        ({"startupProbe": {"failureThreshold": 60, "periodSeconds": 10}, "livenessProbe": {}}, ("startup", 600)),
    ],
)
def test_probe_budget(container: dict, budget: tuple[str, float] | None) -> None:
    assert pod_status.probe_budget(container) == budget


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/models/llama", "/data/v/models/llama"),
        ("--target=/models/a", "--target=/data/v/models/a"),
        ("/models", "/data/v/models"),
        ("/models-old/a", "/models-old/a"),
        ("s3://bucket/models/a", "s3://bucket/models/a"),
        ("/models/deep/x:/tmp", "/data/v/deep/x:/data/v/tmp"),
        ("/opt/models/a", "/opt/models/a"),
    ],
)
def test_mount_paths_are_translated_only_where_they_begin(text: str, wanted: str) -> None:
    mounts = {"/models/deep": Path("/data/v/deep"), "/models": Path("/data/v/models"), "/tmp": Path("/data/v/tmp")}
    assert translate(text, mounts) == wanted


def test_a_path_from_a_variable_is_translated_once() -> None:
    container = {"name": "c", "command": ["cp", "$(FROM)"]}
    assert command_of(container, {"/tmp": Path("/tmp/state/tmp")}, {"FROM": "/tmp/a"}) == ["cp", "/tmp/state/tmp/a"]


def test_a_job_without_command_is_refused() -> None:
    with pytest.raises(ConfigError, match="container c: found no command"):
        command_of({"name": "c", "args": ["x"]}, {}, {})


def test_a_command_lives_in_our_session_so_that_down_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Log:
        lines: ClassVar[list[str]] = []

        def write(self, line: str) -> None:
            self.lines.append(line)

    monkeypatch.setenv(MARK, "/the/stand-ins.log")
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    local = LocalPod(None, Settings(), None, pod, "10.245.0.2", tmp_path)  # type: ignore[arg-type]
    code = f"import os; print(os.getsid(0), os.getpgid(0) == os.getpid(), os.environ[{MARK!r}])"
    assert local._execute([sys.executable, "-c", code], base_environment(tmp_path, False), tmp_path, Log()) == 0  # type: ignore[arg-type]
    assert Log.lines == [f"{os.getsid(0)} True /the/stand-ins.log\n"]


def test_whose_pod_it_is() -> None:
    def pod(image: str, **labels: str) -> dict:
        return {"metadata": {"labels": labels}, "spec": {"containers": [{"image": image}]}}

    weights = {"app.kubernetes.io/component": "weights"}
    assert [is_vllm(p) for p in (pod("vllm/vllm-openai:v1"), pod("nginx"), pod("vllm/vllm-openai:v1", **weights))] == [True, False, False]
    assert is_local(pod("vllm/vllm-openai:v1", **weights))


def test_settings_refuse_what_they_do_not_know() -> None:
    settings = Settings()
    with pytest.raises(BadRequestError, match="found unknown color; needed: load_seconds"):
        settings.set_model("m", color="red")
    with pytest.raises(BadRequestError, match="load_seconds: found 'long'"):
        settings.set_model("m", load_seconds="long")
    with pytest.raises(BadRequestError, match="kv_cache_usage: found 90"):
        settings.set_load("m", 1, 90)
    assert settings.models == {}
    assert settings.image_fails("x/vllm:does-not-exist")
