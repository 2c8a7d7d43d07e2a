# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/plan.yml and the plan's part of site.yml, run by ansible-playbook. Neither a cluster nor AWS is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ansible_runner
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = {"all": {"hosts": {"localhost": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}}}
MODELS = [
    {"name": "llama-3-1-8b", "source": "hf://meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 16384, "replicas": {"max": 4}},
    {"name": "old", "state": "absent"},
]
HEADER = re.compile(r'^ {8}"?(model +instance .* spare GiB)"?,?$', re.MULTILINE)
PLANNING = ["Validating arguments against arg spec", "Plan the models", "Hand the plan to the roles"]
SHOWING = ["Show the plan", "Write the plan as a page", "Tell the plan to what runs next"]


@pytest.fixture
def play(tmp_path):
    """play(playbook, *arguments, form=json|yaml, **variables) -> the finished process, run in an empty folder. `page` is the file to write."""
    inventory, variables = tmp_path / "hosts.yml", tmp_path / "variables.yml"
    inventory.write_text(yaml.safe_dump(HOST))

    def call(playbook, *arguments, form="json", **more):
        known = {"llm_models": MODELS, "llm_plan_live": False, "llm_cluster_name": "prod", "llm_region": "us-east-1", **more}
        variables.write_text(yaml.safe_dump(known))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), "-e", f"@{variables}", playbook, *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": form,
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "temp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False)

    return call


def tasks(output: str) -> list[str]:
    return [re.sub(r" spec \w+$", " spec", name) for name in re.findall(r"^TASK \[(?:\S+ : )?(.+?)\] \*", output, re.MULTILINE)]


def changed(output: str) -> int:
    return int(re.search(r"changed=(\d+) .*failed=0", output)[1])


def readable(output: str) -> bool:
    """Whether the table stands there line by line, within 120 columns."""
    row = next(line for line in output.splitlines() if line.lstrip(' "').startswith("llama-3-1-8b "))
    return bool(HEADER.search(output)) and row.strip(' ",').split()[1:3] == ["g6.2xlarge", "tp1"] and max(map(len, output.splitlines())) <= 120


def test_table_in_both_result_formats_and_page_once(play, tmp_path):
    page = tmp_path / "plan.html"
    # A relative path is one from where ansible-playbook was called.
    check = play("llmops.eks.plan", "--check", form="yaml", llm_plan_html="plan.html")
    assert readable(check.stdout), check.stdout + check.stderr
    assert (changed(check.stdout), page.exists()) == (1, False)
    first = play("llmops.eks.plan", form="json", llm_plan_html="plan.html")
    assert readable(first.stdout), first.stdout + first.stderr
    text = page.read_text(encoding="utf-8")
    second = play("llmops.eks.plan", llm_plan_html="plan.html")
    assert (changed(first.stdout), changed(second.stdout)) == (1, 0)
    assert page.read_text(encoding="utf-8") == text
    assert text.startswith("<!doctype html>")
    assert "cluster prod, us-east-1" in text
    assert page.stat().st_mode & 0o777 == 0o644


def test_a_wrong_model_list_shows_no_table(play):
    done = play("llmops.eks.plan", llm_models=[*MODELS, {**MODELS[0], "replicas": {"min": 3, "max": 2}}])
    assert done.returncode == 2
    assert "The model list has 2 problem(s); nothing was written." in done.stdout
    assert tasks(done.stdout)[-1] == "Plan the models"


def test_site_with_the_tag_plan_runs_the_plan_alone(play):
    done = play("llmops.eks.site", "--tags", "plan", llm_plan_html="plan.html")
    assert done.returncode == 0, done.stdout + done.stderr
    assert tasks(done.stdout) == PLANNING + SHOWING


def test_site_shows_the_plan_before_it_checks_and_writes(play):
    done = play("llmops.eks.site", "--list-tasks")
    listed = [re.sub(r"\s+TAGS:.*", "", line).strip() for line in done.stdout.splitlines() if "TAGS: [" in line and "play #" not in line]
    assert listed[:5] == [*PLANNING[1:], *SHOWING]
    assert listed[5].startswith("Check ")


def test_check_tag_runs_no_table_and_no_write(play):
    done = play("llmops.eks.site", "--list-tasks", "--tags", "check")
    listed = [line.split("TAGS:")[0].strip() for line in done.stdout.splitlines() if "TAGS: [" in line and "play #" not in line]
    assert listed[:2] == PLANNING[1:]
    assert len(listed) > 5
    assert all(name.startswith("Check ") for name in listed[2:])


def test_awx_gets_the_summary_as_an_artifact(tmp_path):
    """As AWX runs it: ansible-runner, variables as extra vars, the artifacts of its last event."""
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "hosts.json").write_text(json.dumps(HOST))
    run = ansible_runner.run(
        private_data_dir=str(tmp_path),
        playbook="llmops.eks.plan",
        quiet=True,
        extravars={"llm_models": MODELS, "llm_plan_live": "false"},
        envvars={"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    printed = run.stdout.read()
    assert run.status == "successful", printed
    artifacts = [event["event_data"]["artifact_data"] for event in run.events if event["event"] == "playbook_on_stats"]
    assert [(row["name"], row["verdict"], row["instance_type"]) for row in artifacts[0]["llm_plan_summary"]] == [("llama-3-1-8b", "FITS", "g6.2xlarge")]
    assert HEADER.search(re.sub(r"\x1b\[[\d;]*m", "", printed)), printed
