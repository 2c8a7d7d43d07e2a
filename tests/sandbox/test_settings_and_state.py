# SPDX-License-Identifier: GPL-3.0-or-later
import shlex
import subprocess
from pathlib import Path

import pytest

from sandbox import settings, state
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
