# SPDX-License-Identifier: GPL-3.0-or-later
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.processes import Process, ProcessError, spawn, stop, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper(tmp_path):
    process = spawn("sleeper", SLEEP, tmp_path / "sleeper.log")
    yield process
    stop([process])


def test_running_until_stopped(sleeper):
    assert sleeper.running()
    assert sleeper.rss_mib() > 0
    assert stop([sleeper]) == []
    assert not sleeper.running()
    assert sleeper.rss_mib() == 0


def test_state_file_gives_the_same_process_back(sleeper):
    assert Process.from_dict(sleeper.to_dict()) == sleeper


@pytest.mark.parametrize("change", [{"start_time": 1}, {"argv": ("other", "program")}])
def test_pid_that_belongs_to_another_program_is_not_signalled(sleeper, change):
    stranger = replace(sleeper, **change)
    assert not stranger.running()
    stop([stranger])
    assert sleeper.running()


def test_process_that_ignores_sigterm_is_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    process = spawn("stubborn", [sys.executable, "-c", code], tmp_path / "log")
    wait_until("its handler", lambda: "ready" in process.log.read_text(), [process], 20)
    assert stop([process], grace=0.2) == ["stubborn"]
    assert not process.running()


def test_what_a_process_has_started_ends_with_it(tmp_path):
    code = f"import subprocess, time; print(subprocess.Popen({SLEEP!r}, process_group=0).pid, flush=True); time.sleep(60)"
    process = spawn("parent", [sys.executable, "-c", code], tmp_path / "log")
    wait_until("its child", lambda: process.log.read_text().endswith("\n"), [process], 20)
    child = int(process.log.read_text())
    stop([process])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()


def crashed_parent(tmp_path):
    """A process that was killed, and the pid of its child, which lives in its session."""
    code = f"import subprocess, time; print(subprocess.Popen({SLEEP!r}, process_group=0).pid, flush=True); time.sleep(60)"
    process = spawn("parent", [sys.executable, "-c", code], tmp_path / "log")
    wait_until("its child", lambda: process.log.read_text().endswith("\n"), [process], 20)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while process.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.running()
    return process, int(process.log.read_text())


def alive(pid):
    """Not a zombie either: in a container nobody may collect what lost its parent."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_a_process_that_crashed_has_left_is_ended(tmp_path):
    process, child = crashed_parent(tmp_path)
    assert alive(child)
    assert stop([process]) == []
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_session_whose_number_went_to_somebody_else_is_left_alone(tmp_path):
    """After a restart of the machine the state file's numbers belong to others."""
    process, child = crashed_parent(tmp_path)
    stop([replace(process, log=tmp_path / "of another sandbox")])
    time.sleep(0.2)
    assert alive(child)
    stop([process])


def test_script_is_recognised_and_stopped(tmp_path):
    """The kernel shows the interpreter in front of a script's own command line."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    process = spawn("script", [str(script)], tmp_path / "log")
    assert process.running()
    stop([process])
    assert not process.running()


def test_process_that_ended_before_it_was_looked_at_is_not_running(tmp_path):
    assert not Process("gone", 2**22 + 1, (), 0, tmp_path / "log").running()


def test_end_while_waiting_is_reported_with_the_log(tmp_path):
    process = spawn("broken", [sys.executable, "-c", "print('cannot bind'); raise SystemExit(3)"], tmp_path / "broken.log")
    with pytest.raises(ProcessError, match=r"(?s)broken ended while waiting for its answer.*broken\.log:.*cannot bind"):
        wait_until("its answer", lambda: False, [process], 20)


def test_timeout_names_what_was_awaited(sleeper):
    with pytest.raises(ProcessError, match=r"(?s)readiness: not so after 0 s.*its log is empty"):
        wait_until("readiness", lambda: False, [sleeper], 0.2)


def test_missing_program_is_named(tmp_path):
    with pytest.raises(ProcessError, match=r"kwok cannot be started: .*No such file"):
        spawn("kwok", [str(tmp_path / "kwok")], tmp_path / "log")


def test_environment_is_added_to_ours(tmp_path):
    process = spawn("env", [sys.executable, "-c", "import os; print(os.environ['ADDED'], 'PATH' in os.environ)"], tmp_path / "log", {"ADDED": "yes"})
    with pytest.raises(ProcessError):
        wait_until("its end", lambda: False, [process], 20)
    assert process.log.read_text() == f"yes {'PATH' in os.environ}\n"
