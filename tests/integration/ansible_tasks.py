# SPDX-License-Identifier: GPL-3.0-or-later
"""Run tasks of AWS modules with the real ansible-playbook against the AWS double."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sandbox.aws.running import RunningAws

ROOT = Path(__file__).resolve().parent.parent.parent
# Keys of a result that Ansible adds or that hold a traceback.
NOISE = ("invocation", "exception")


def task(module: str, check: bool = False, **args: Any) -> dict[str, Any]:
    """A task of llmops.eks.<module>."""
    return {f"llmops.eks.{module}": args, "check_mode": check, "ignore_errors": True}


def control(command: str, **body: Any) -> dict[str, Any]:
    """Between tasks: steer the double."""
    return {"ansible.builtin.uri": {"url": f"{{{{ control }}}}{command}", "method": "POST", "body": body, "body_format": "json"}}


def run(aws: RunningAws, folder: Path, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """Results of the tasks made by `task`, each with `operations`: the writes that the double saw of it, refused ones with their HTTP status."""
    steps, seen = [], len(aws.control.calls(1000))
    for number, step in enumerate(tasks):
        steps.append({**step, "name": f"Task {number}", "register": f"r{number}"})
        calls = "{{ (lookup('ansible.builtin.url', control ~ 'calls?last=1000', split_lines=false) | from_json).calls }}"
        steps.append({"name": f"Writes {number}", "ansible.builtin.set_fact": {f"w{number}": calls}})
    pairs = ", ".join(f"{{'task': r{n}, 'calls': w{n}}}" for n in range(len(tasks)))
    answer = folder / "results.json"
    steps.append({"name": "Results", "ansible.builtin.copy": {"dest": str(answer), "content": f"{{{{ [{pairs}] | to_json }}}}"}})
    play = folder / "play.yml"
    play.write_text(
        json.dumps(
            [
                {
                    "name": "Tasks",
                    "hosts": "localhost",
                    "connection": "local",
                    "gather_facts": False,
                    "tasks": steps,
                    "vars": {"control": f"{aws.url}/sandbox/", "ansible_python_interpreter": sys.executable},
                }
            ]
        )
    )
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "--diff", str(play)]
    environment = {
        **os.environ,
        **aws.env,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    results = []
    for step, row in zip(tasks, json.loads(answer.read_text()), strict=True):
        calls, seen = row["calls"][seen:], len(row["calls"])
        if "ansible.builtin.uri" not in step:
            operations = [c["operation"] if c["status"] < 400 else f"{c['operation']} {c['status']}" for c in calls]
            results.append({**{k: v for k, v in row["task"].items() if k not in NOISE}, "operations": operations})
    return results
