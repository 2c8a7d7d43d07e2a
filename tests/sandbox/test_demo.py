# SPDX-License-Identifier: GPL-3.0-or-later
import subprocess

from sandbox.demo import lines


def test_lines_come_at_once_and_silence_is_filled():
    seen: list[str] = []
    script = "echo first; sleep 1; echo second"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        for line in lines(process.stdout, 0.3, lambda: seen.append("pulse")):
            seen.append(line)
    assert seen[0] == "first\n"
    assert seen[-1] == "second\n"
    assert 2 <= seen.count("pulse") <= 3
