# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate says at its end about a step that failed."""

from __future__ import annotations

import pytest

from tools import gate

MOLECULE = """\
  \x1b[2m│\x1b[0m TASK [Try what is refused]
  \x1b[2m│\x1b[0m   ******************************
  \x1b[2m│\x1b[0m fatal: [localhost]: FAILED! => {"msg": "found 0"}
  \x1b[2m│\x1b[0m TASK [It was refused]
  \x1b[2m│\x1b[0m   ******************************
  \x1b[2m│\x1b[0m ok: [localhost]
  \x1b[2m│\x1b[0m TASK [The second time changed nothing]
  \x1b[2m│\x1b[0m   ******************************
  \x1b[2m│\x1b[0m fatal: [localhost]: FAILED! => {"assertion": "job.changed == 0",
  \x1b[2m│\x1b[0m   "msg": "successful {'changed': 1}"}
  \x1b[2m│\x1b[0m PLAY RECAP
  \x1b[2m│\x1b[0m localhost : ok=1 failed=1
ERROR    site ➜ cleanup: Executed: Failed
"""
PYTEST = """\
E       assert 2 == 3
SKIPPED [1] tests/unit/test_a.py:3: the folder is not there
FAILED tests/unit/test_a.py::test_one - assert 2 == 3
ERROR tests/unit/test_b.py::test_two - OSError: no port
1 failed, 2 passed, 1 skipped, 1 error in 0.10s
"""


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            MOLECULE,
            'TASK [The second time changed nothing] fatal: [localhost]: FAILED! => {"assertion": "job.changed == 0", "msg": "successful {\'changed\': 1}"}',
        ),
        (PYTEST, "FAILED tests/unit/test_a.py::test_one - assert 2 == 3\nERROR tests/unit/test_b.py::test_two - OSError: no port"),
        ("a rule\nplaybooks/site.yml:3 is broken\n", "a rule\nplaybooks/site.yml:3 is broken"),
    ],
    ids=["molecule", "pytest", "lint"],
)
def test_a_failed_step_is_told_by_what_ended_it(printed, expected):
    assert gate.reason(printed) == expected


def test_a_long_reason_keeps_its_beginning_and_its_end():
    told = gate.reason("first " + "x" * 5000 + " last")
    assert told.startswith("first ")
    assert told.endswith(" last")
    assert len(told) < gate.REASON_LENGTH + 10
