# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's checks and end with what failed and why, in short, and `N passed, N failed`, and behind it how many tests were skipped, if any.

`gate.py check` runs lint and unit tests; `gate.py all` builds the sandbox first, then runs the scenarios of molecule beside all the rest: each of the two waits
for its own cluster most of the time. A step counts its own tests where it has any (pytest), else it counts as one. Output of a step that passes is one line; of
one that fails, everything. Told to end (SIGTERM, Ctrl-C), it ends its steps as Ctrl-C does, so that they clean up, and takes its sandbox down.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
END_SECONDS = 60  # for a step that is told to end: the fixtures of a test run take sandboxes down
REASON_LENGTH = 600  # characters of a step's output that are repeated at the end


@dataclass
class Outcome:
    """How many tests of one step, or of all, ended how; `reasons`: of each failed step, in short."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)


@dataclass
class Step:
    """`fresh`: a sandbox that this one leaves in disorder is replaced by a new one, so that the next step does not fail for it."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    fresh: bool = False


def tool(name: str, *args: str) -> list[str]:
    return [str(BIN / name), *args]


def pytest(*args: str) -> list[str]:
    return [str(BIN / "python"), "-m", "pytest", "-rsfE", *args]


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
# In two, so that both processors have work to the end.
UNIT = [
    Step("unit, roles", pytest("tests/unit/roles")),
    Step("unit, the rest", pytest("tests/unit", "--ignore=tests/unit/roles")),
]
# It starts Ansible for every playbook it sees, so the quick run leaves the scenarios out.
ANSIBLE_LINT = tool("ansible-lint", "--offline", "-q")
PLAYBOOKS = sorted(p for p in ROOT.glob("playbooks/*.yml") if not p.name.endswith(".meta.yml"))
PRODUCT_LINT = Step("ansible-lint", [*ANSIBLE_LINT, "roles", *(f"playbooks/{p.name}" for p in PLAYBOOKS), "inventories", "meta", "galaxy.yml", "site.yml"])
WHOLE_LINT = Step("ansible-lint", ANSIBLE_LINT)


def sandbox(*args: str) -> list[str]:
    return [str(BIN / "python"), "-m", "sandbox", *args]


# These start a sandbox of their own: scenarios count the writes in theirs.
OWN = {"LLMOPS_SANDBOX_DIR": ""}


def scenarios() -> list[Step]:
    """One run of molecule each, because a run ends with the first scenario that fails. `default`, the last, takes the sandbox down, and with it
    molecule's own note that one has been created."""
    names = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    last = "default"
    return [
        Step(f"molecule {name}", [*sandbox("exec", "--"), *molecule(name, "always" if name == last else "never")], fresh=name != last)
        for name in sorted(names, key=lambda name: name == last)
    ]


def molecule(scenario: str, destroy: str) -> list[str]:
    return tool("molecule", "-c", "molecule/config.yml", "test", "--scenario-name", scenario, f"--destroy={destroy}")


class Children:
    """The processes that run now, each in a group of its own, to be ended together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._ending = False

    def run(self, argv: list[str], env: Mapping[str, str] | None = None, output: int | None = None) -> tuple[int, str]:
        """(exit code, what it printed if `output` is PIPE)."""
        with self._lock:
            if self._ending:
                return 1, ""
            process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=output, stderr=output and subprocess.STDOUT, text=True, process_group=0)
            self._running.add(process)
        try:
            printed = process.communicate()[0]
        except BaseException:
            self.end()
            raise
        finally:
            with self._lock:
                self._running.discard(process)
        return process.returncode, printed or ""

    def end(self) -> None:
        """End all, and start no other. By SIGINT, because pytest forgets its fixtures at SIGTERM."""
        with self._lock:
            self._ending, running = True, list(self._running)
        for number, seconds in ((signal.SIGINT, END_SECONDS), (signal.SIGKILL, None)):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + END_SECONDS
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds and max(0.0, deadline - time.monotonic()))


CHILDREN = Children()


def say(text: str) -> None:
    """One write, because two steps speak at a time."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def reason(printed: str) -> str:
    """The part of a failed step's output that says why: the failed tests of pytest, the last failed task of Ansible (others were rescued), else the end."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    plain = re.sub(r"^ *│ ?", "", plain, flags=re.MULTILINE)  # molecule's margin
    if tests := re.findall(r"^(?:FAILED|ERROR) .+::.+", plain, re.MULTILINE):
        return shortened("\n".join(tests))
    before, fatal, after = plain.rpartition("\nfatal: [")
    if fatal:
        task = re.findall(r"^TASK \[[^\]]*\]", before, re.MULTILINE)[-1:]
        message = re.split(r"^\s*(?:TASK|PLAY) ", after, maxsplit=1, flags=re.MULTILINE)[0]
        return shortened(" ".join([*task, *(fatal + message).split()]))
    return shortened("\n".join(plain.split("\n")[-12:]))


def shortened(text: str) -> str:
    """With a message of Ansible the reason stands at the beginning, with the output of a job in it at the end."""
    text, half = text.strip(), REASON_LENGTH // 2
    return text if len(text) <= REASON_LENGTH else f"{text[:half]} ... {text[-half:]}"


def run(step: Step) -> Outcome:
    """Print the outcome of one step."""
    started = time.monotonic()
    say(f"{step.name} ...")
    # ansible-lint and molecule call ansible by name.
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "MOLECULE_GLOB": "molecule/*/molecule.yml", **step.env}
    code, printed = CHILDREN.run(step.argv, env, subprocess.PIPE)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", printed)} if "pytest" in step.argv else {}
    passed, failed = counts.get("passed", 0), sum(counts.get(word, 0) for word in ("failed", "error", "errors"))
    skipped = counts.get("skipped", 0)
    if code and not failed:
        failed = 1
    if not counts and not code:
        passed = 1
    if failed:
        say(printed)
    elif skipped:
        say("\n".join(line for line in printed.splitlines() if line.startswith("SKIPPED")))
    say(f"{step.name}: {'FAILED' if failed else 'ok'} in {time.monotonic() - started:.0f} s" + (f" ({passed} tests)" if counts else ""))
    if failed and step.fresh:
        for command in ("down", "up"):
            CHILDREN.run(sandbox(command), output=subprocess.PIPE)
    return Outcome(passed, failed, skipped, [f"{step.name}: {reason(printed)}"] if failed else [])


def in_turn(steps: list[Step]) -> Outcome:
    return total([run(step) for step in steps])


def total(outcomes: list[Outcome]) -> Outcome:
    return Outcome(
        sum(one.passed for one in outcomes),
        sum(one.failed for one in outcomes),
        sum(one.skipped for one in outcomes),
        [text for one in outcomes for text in one.reasons],
    )


def together(steps: list[Step | list[Step]]) -> Outcome:
    """Run two at a time, in this order; the steps of a list run one after another."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        try:
            return total(list(pool.map(lambda step: in_turn(step) if isinstance(step, list) else run(step), steps)))
        except BaseException:
            CHILDREN.end()  # leaving the pool waits for them
            raise


def everything() -> Outcome:
    # Outside the tree, which lint reads meanwhile.
    with tempfile.TemporaryDirectory(prefix="llmops-eks-") as directory:
        os.environ["LLMOPS_SANDBOX_DIR"] = directory
        try:
            # Progress of the long first build must be seen, so it does not go through run(). Some unit tests use its promtool.
            if CHILDREN.run(sandbox("up"))[0]:
                return total([together([WHOLE_LINT, *LINT, *UNIT]), Outcome(failed=1, reasons=["sandbox: it did not start, see above"])])
            return together(
                [scenarios(), WHOLE_LINT, *LINT, *UNIT, Step("sandbox", pytest("tests/sandbox"), OWN), Step("integration", pytest("tests/integration"), OWN)]
            )
        finally:
            subprocess.run(sandbox("down"), cwd=ROOT, check=False)


def terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # cleaning up must come to its end
    sys.exit(128 + signal.SIGTERM)


def main(which: str) -> int:
    if which not in ("check", "all"):
        sys.exit("usage: gate.py check | all")
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would what we start
    whole = together([*UNIT, PRODUCT_LINT, *LINT]) if which == "check" else everything()
    for text in whole.reasons:
        print(f"\nFAILED {text}")
    print(f"\n{whole.passed} passed, {whole.failed} failed" + (f" ({whole.skipped} skipped)" if whole.skipped else ""))
    return 1 if whole.failed or not whole.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
