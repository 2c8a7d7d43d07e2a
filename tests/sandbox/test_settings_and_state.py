# SPDX-License-Identifier: GPL-3.0-or-later
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox import lifecycle, processes, settings, state
from sandbox.__main__ import main
from sandbox.processes import Process

DOCUMENTED = {
    "KUBECONFIG", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_PRICING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION",
    "PATH", "LLM_CLUSTER_NAME", "LLM_PROMETHEUS_URL", "LLM_CHARTS", "LLM_SANDBOX_CONTROL",
}  # fmt: skip


@pytest.fixture
def example(tmp_path):
    return settings.Settings(tmp_path, Path("/opt/built"), dict(settings.DEFAULT_PORTS, aws=25000))


def test_environment_has_what_the_architecture_page_promises(example):
    variables = example.environment()
    page = (settings.ROOT / "docs" / "architecture.md").read_text()
    assert set(variables) == DOCUMENTED
    assert [name for name in variables if f"`{name}`" not in page] == []
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:25000"
    assert variables["PATH"].split(":")[0] == str(example.directory / "bin")


def test_karpenter_and_people_have_different_access_keys():
    assert settings.KARPENTER_KEY["AWS_ACCESS_KEY_ID"] != settings.PEOPLE_KEY["AWS_ACCESS_KEY_ID"]


def test_env_file_survives_a_shell(tmp_path):
    values = {"PLAIN": "/a/b:c", "SPACES": "/home/Some Body/.sandbox", "QUOTE": "it's $HOME"}
    file = tmp_path / "env"
    file.write_text(settings.env_file(values))
    script = f'. {shlex.quote(str(file))}; printf "%s\\n" "$PLAIN" "$SPACES" "$QUOTE"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines() == list(values.values())
    assert file.read_text().startswith("PLAIN=/a/b:c\n")


def test_state_directory_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOPS_SANDBOX_DIR", str(tmp_path / "x"))
    assert settings.state_directory() == tmp_path / "x"
    monkeypatch.delenv("LLMOPS_SANDBOX_DIR")
    assert settings.state_directory() == settings.ROOT / ".sandbox"


def test_state_is_read_back_as_written(example):
    written = state.State(example, [Process("kwok", 7, ("/x/kwok", "--a"), 99, Path("/l"))], {"kwok": "http://h"}, complete=True)
    written.save()
    assert state.load(example.directory) == written


def test_no_state_is_none(tmp_path):
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"home": "/x", "ports": {}}'])
def test_broken_state_is_refused_by_name(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(state.StateError, match=r"state\.json: found something that is not a sandbox's state"):
        state.load(tmp_path)


def test_two_commands_at_once_are_refused(tmp_path):
    with state.locked(tmp_path), pytest.raises(state.StateError, match="found another `up` or `down` at work"), state.locked(tmp_path):
        pass
    with state.locked(tmp_path):
        pass


@pytest.fixture
def crashed(example):
    """A sandbox with one part that works and one that ended with a word in its log."""
    log = example.directory / "log" / "keda.log"
    broken = processes.spawn("keda", [sys.executable, "-c", "print('cannot reach the API server')"], log)
    works = processes.spawn("aws", [sys.executable, "-c", "import time; time.sleep(60)"], example.directory / "log" / "aws.log")
    # Both at a port where nobody listens: only the log tells them apart here.
    state.State(example, [broken, works], {"keda": "http://127.0.0.1:9", "aws": "http://127.0.0.1:9"}, complete=True).save()
    deadline = time.monotonic() + 20
    while broken.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    yield example.directory
    processes.stop([broken, works])


def test_up_on_a_part_that_crashed_shows_its_last_words(crashed):
    with pytest.raises(lifecycle.SandboxError, match=r"(?s)found keda has ended; needed.*keda\.log:\n    cannot reach the API server"):
        lifecycle.up(crashed, print)


def test_status_of_a_part_that_crashed_shows_its_last_words(crashed, monkeypatch, capsys):
    monkeypatch.setenv("LLMOPS_SANDBOX_DIR", str(crashed))
    assert main(["status"]) == 1
    assert "keda: last lines of its log:\n    cannot reach the API server\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", [lifecycle.up, lifecycle.down])
def test_folder_of_somebody_else_is_not_touched(tmp_path, command):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(state.StateError, match=r"files that are not a sandbox's \(thesis\.tex\); needed: a new, an empty, .*; set LLMOPS_SANDBOX_DIR"):
        command(tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
