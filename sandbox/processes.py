# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, recognise and stop the sandbox's processes. Linux only: they are recognised through /proc.

A process is known by pid, start time and command line together, so that a pid that the system gave to somebody else is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE = 8.0  # seconds from SIGTERM to SIGKILL
# Every process of a part has it in its environment, with the part's log as its value: a descendant is known by it when the part itself has ended.
MARK = "LLMOPS_SANDBOX_PART"


class ProcessError(RuntimeError):
    """A process ended or did not become ready; the message names it and carries the last lines of its log."""


@dataclass(frozen=True)
class Process:
    """One running part: `name`, its `pid`, what it was started as (`argv`, kernel `start_time` in ticks, 0 if it ended at once) and its `log` file."""

    name: str
    pid: int
    argv: tuple[str, ...]
    start_time: int
    log: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON for the state file; `from_dict` reads it back."""
        return {"name": self.name, "pid": self.pid, "argv": list(self.argv), "start_time": self.start_time, "log": str(self.log)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Process:
        return cls(row["name"], row["pid"], tuple(row["argv"]), row["start_time"], Path(row["log"]))

    def running(self) -> bool:
        """True while the very process that was started is alive."""
        reap(self.pid)
        # The end of the command line: the kernel shows a script's interpreter in front.
        return 0 < self.start_time == _start_time(self.pid) and _command_line(self.pid)[-len(self.argv) :] == self.argv

    def rss_mib(self) -> int:
        """Resident memory in MiB, 0 when it is gone."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of its log, indented for an error message."""
        text = self.log.read_text(errors="replace").strip() if self.log.exists() else ""
        return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:]) or "    (its log is empty)"


def spawn(name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Process:
    """Start `argv` in a session of its own with output to `log`. `env` is added to ours. Raises ProcessError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as out:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {}), MARK: str(log)}, start_new_session=True
            )
    except OSError as error:
        raise ProcessError(f"{name} cannot be started: {error}") from error
    child.returncode = 0  # we reap it ourselves: it may outlive this program, and Popen would warn
    process = Process(name, child.pid, tuple(argv), _start_time(child.pid), log)
    # The kernel shows the new command line a moment after Popen returns; until then it would count as somebody else's.
    deadline = time.monotonic() + 1
    while _start_time(child.pid) and not process.running() and time.monotonic() < deadline:
        time.sleep(0.005)
    return process


def wait_until(what: str, check: Callable[[], bool], processes: Sequence[Process], timeout: float, interval: float = 0.1) -> None:
    """Poll `check` until it is true. Raises ProcessError as soon as one of `processes` ends, or after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not check():
        for process in processes:
            if not process.running():
                raise ProcessError(f"{process.name} ended while waiting for {what}. Last lines of {process.log}:\n{process.log_tail()}")
        if time.monotonic() > deadline:
            tails = "\n".join(f"  last lines of {p.log}:\n{p.log_tail()}" for p in processes)
            raise ProcessError(f"{what}: not so after {timeout:.0f} s\n{tails}")
        time.sleep(interval)


def stop(processes: Sequence[Process], grace: float = GRACE) -> list[str]:
    """SIGTERM to all, SIGKILL after `grace` seconds to those that stay and to what they, or one that had ended before, have started.

    Returns the names of those that had to be killed. Processes that are not the ones once started are left alone.
    """
    ended = [p for p in processes if not p.running()]
    processes = [p for p in processes if p not in ended]
    for process in processes:
        _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := [p for p in processes if p.running()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    # Each part was started as the leader of a session, which its descendants share; the number is not given away while one lives.
    for pid in _session_members({p.pid for p in processes}):
        _signal(pid, signal.SIGKILL)
    # The session of one that has ended may be another program's by now: after a restart of the machine, say.
    ended = [p for p in ended if not _start_time(p.pid)]
    logs = {str(p.log) for p in ended}
    for pid in _session_members({p.pid for p in ended}):
        if _marked(pid) in logs:
            _signal(pid, signal.SIGKILL)
    while any(p.running() for p in left):
        time.sleep(0.05)
    return [p.name for p in left]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.kill(pid, number)


def _session_members(leaders: set[int]) -> list[int]:
    """Pids of all processes, the leaders included, in the sessions of `leaders`."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if (fields := _stat(pid)) and fields[0] != "Z" and int(fields[3]) in leaders]


def _marked(pid: int) -> str:
    """The log of the part that it belongs to, empty when it is of none."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return next((value for name, _, value in (variable.partition("=") for variable in variables) if name == MARK), "")


def reap(pid: int) -> None:
    """Collect the exit status if `pid` is an ended child of ours, so that it does not stay as a zombie."""
    with contextlib.suppress(ChildProcessError):  # another program's child, as after `up` has returned
        os.waitpid(pid, os.WNOHANG)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on, empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return stat.rpartition(")")[2].split()  # the name before it may hold spaces


def _start_time(pid: int) -> int:
    """Kernel start time in clock ticks (field 22), 0 when there is no such process or it has ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else 0


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(raw.rstrip(b"\0").decode(errors="replace").split("\0"))
