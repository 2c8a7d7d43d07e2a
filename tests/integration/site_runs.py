# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the playbooks with the real ansible-playbook against a whole sandbox, and count what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import lifecycle, state
from sandbox.settings import ROOT, Settings

BIN = Path(sys.executable).parent
# Streamed from the bucket that the sandbox's inventory names, on one small GPU.
MODEL: dict[str, Any] = {"name": "m", "source": "s3://llm-weights/llama-3.1-8b/", "weights": {"size_gib": 15}, "max_model_len": 16384}


@dataclass(frozen=True)
class Run:
    """One run of a playbook. `results`: (task, result) of each task that ran or was skipped, in order; `text`: what came beside the JSON."""

    code: int
    results: list[tuple[str, dict[str, Any]]]
    stats: dict[str, int]
    text: str

    def of(self, task: str) -> dict[str, Any]:
        """The result of the first task of this name."""
        return next(result for name, result in self.results if name.split(" : ")[-1] == task)

    @property
    def failure(self) -> str:
        """The message of the task that ended the run, empty when none did. A loop's own message says only that an item failed; items of an
        assertion do not say even that."""
        for _task, result in self.results:
            if result.get("failed"):
                rows = [row for row in result.get("results", ()) if row.get("failed") or row.get("evaluated_to") is False]
                return "\n".join(row["msg"] for row in rows or [result])
        return ""


@dataclass(frozen=True)
class Site:
    """The playbooks against the sandbox in `settings.directory`."""

    settings: Settings

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, **self.settings.environment(), "ANSIBLE_NOCOLOR": "1"}

    def run(self, *arguments: str, playbook: str = "site.yml", cwd: Path = ROOT, collections: Path | None = None, **variables: Any) -> Run:
        """``ansible-playbook <playbook> <arguments> -e <variables>``, in the clone, whose ansible.cfg names the sandbox's inventory, or in `cwd`
        with the collections in `collections`."""
        argv = [str(BIN / "ansible-playbook"), playbook, *arguments, "-e", json.dumps(variables)]
        env = {**self.env, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", **({"ANSIBLE_COLLECTIONS_PATH": str(collections)} if collections else {})}
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)
        start = done.stdout.index("{\n") if "{\n" in done.stdout else len(done.stdout)
        told = json.loads(done.stdout[start:] or '{"plays": [], "stats": {}}')
        results = [(task["task"]["name"], result) for play in told["plays"] for task in play["tasks"] for result in task["hosts"].values()]
        return Run(done.returncode, results, told["stats"].get("localhost", {}), done.stdout[:start] + done.stderr)

    def writes(self) -> dict[str, Any]:
        """``python -m sandbox writes --json``."""
        done = subprocess.run(
            [sys.executable, "-m", "sandbox", "writes", "--json"],
            cwd=ROOT, env={**os.environ, "LLMOPS_SANDBOX_DIR": str(self.settings.directory)}, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    @contextmanager
    def nothing_written(self) -> Iterator[None]:
        before = self.writes()
        yield
        assert self.writes() == before


def running_site(directory: Path) -> Site | None:
    """The sandbox that is up in `directory`, None when none is."""
    present = state.load(directory)
    return Site(present.settings) if present and present.complete and all(p.running() for p in present.processes) else None


@contextmanager
def own_site(directory: Path) -> Iterator[Site]:
    """A sandbox of our own, gone afterwards."""
    lines: list[str] = []
    try:
        yield Site(lifecycle.up(directory, lines.append))
    finally:
        lifecycle.down(directory, lines.append)
