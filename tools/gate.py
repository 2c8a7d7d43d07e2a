# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's checks and end with `N passed, N failed`.

`gate.py check` runs lint and unit tests; `gate.py all` builds the sandbox first, then runs the scenarios of molecule beside all the rest: each of the two waits
for its own cluster most of the time. A step counts its own tests where it has any (pytest), else it counts as one. Output of a step that passes is one line; of
one that fails, everything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"


@dataclass
class Step:
    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


def tool(name: str, *args: str) -> list[str]:
    return [str(BIN / name), *args]


def pytest(*args: str) -> list[str]:
    return [str(BIN / "python"), "-m", "pytest", "-rs", *args]


# The longest first, so that they end at about the same time.
LINT = [
    # Dependencies lie in .venv, which git ignores: antsibull-docs would copy nothing of them if it took them for files of this repository.
    Step(
        "docs",
        tool("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "--validate-collection-refs=dependent", "."),
        {"GIT_CEILING_DIRECTORIES": str(ROOT)},
    ),
    Step("yamllint", tool("yamllint", "--strict", ".")),
    Step("changelog", tool("antsibull-changelog", "lint")),
    Step("ruff", tool("ruff", "check", "--quiet", ".")),
    Step("ruff format", tool("ruff", "format", "--check", "--quiet", ".")),
]
UNIT = Step("unit", pytest("tests/unit"))
# It starts Ansible for every playbook it sees, so the quick run leaves the scenarios out.
ANSIBLE_LINT = tool("ansible-lint", "--offline", "-q")
PLAYBOOKS = sorted(p for p in ROOT.glob("playbooks/*.yml") if not p.name.endswith(".meta.yml"))
PRODUCT_LINT = Step("ansible-lint", [*ANSIBLE_LINT, "roles", *(f"playbooks/{p.name}" for p in PLAYBOOKS), "inventories", "meta", "galaxy.yml", "site.yml"])
WHOLE_LINT = Step("ansible-lint", ANSIBLE_LINT)


def sandbox(*args: str) -> list[str]:
    return [str(BIN / "python"), "-m", "sandbox", *args]


# These start a sandbox of their own: scenarios count the writes in theirs.
OWN = {"LLMOPS_SANDBOX_DIR": ""}


def scenarios() -> Step:
    """All scenarios in one run of molecule: `default` creates the sandbox (or sees that it runs) and destroys it at the end."""
    return Step("molecule", [*sandbox("exec", "--"), *tool("molecule", "-c", "molecule/config.yml", "test", "--all", "--continue-on-failure")])


def say(text: str) -> None:
    """One write, because two steps speak at a time."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(step: Step) -> tuple[int, int]:
    """Return (passed, failed) of one step and print its outcome."""
    started = time.monotonic()
    say(f"{step.name} ...")
    # ansible-lint and molecule call ansible by name.
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "MOLECULE_GLOB": "molecule/*/molecule.yml", **step.env}
    done = subprocess.run(step.argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", done.stdout)} if "pytest" in step.argv else {}
    passed, failed = counts.get("passed", 0), sum(counts.get(word, 0) for word in ("failed", "error", "errors"))
    if done.returncode and not failed:
        failed = 1
    if not counts and not done.returncode:
        passed = 1
    if failed:
        say(done.stdout)
    elif counts.get("skipped"):
        say("\n".join(line for line in done.stdout.splitlines() if line.startswith("SKIPPED")))
    say(f"{step.name}: {'FAILED' if failed else 'ok'} in {time.monotonic() - started:.0f} s" + (f" ({passed} tests)" if counts else ""))
    return passed, failed


def together(steps: list[Step]) -> tuple[int, int]:
    """Run two steps at a time, in this order; return (passed, failed) of all."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(run, steps))
    return sum(passed for passed, _failed in outcomes), sum(failed for _passed, failed in outcomes)


def everything() -> tuple[int, int]:
    # Outside the tree, which lint reads meanwhile.
    with tempfile.TemporaryDirectory(prefix="llmops-eks-") as directory:
        os.environ["LLMOPS_SANDBOX_DIR"] = directory
        # Progress of the long first build must be seen, so it does not go through run(). Some unit tests use its promtool.
        if subprocess.run(sandbox("up"), cwd=ROOT, check=False).returncode:
            passed, failed = together([WHOLE_LINT, *LINT, UNIT])
            return passed, failed + 1
        try:
            return together(
                [scenarios(), WHOLE_LINT, *LINT, UNIT, Step("sandbox", pytest("tests/sandbox"), OWN), Step("integration", pytest("tests/integration"), OWN)]
            )
        finally:
            subprocess.run(sandbox("down"), cwd=ROOT, check=False)


def main(which: str) -> int:
    if which not in ("check", "all"):
        sys.exit("usage: gate.py check | all")
    passed, failed = together([UNIT, PRODUCT_LINT, *LINT]) if which == "check" else everything()
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
