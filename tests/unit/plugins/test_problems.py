# SPDX-License-Identifier: GPL-3.0-or-later
import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _problems


def test_message_has_one_line_a_problem():
    rows = [_problems.problem("tp", "m1", 3, "a divisor of 32", "set tensor_parallel_size: 4"), _problems.problem("x", "m2", "a", "b", "c", "warning")]
    assert _problems.message(rows, "2 problems") == (
        "2 problems\n  - m1: found 3; needed a divisor of 32; fix: set tensor_parallel_size: 4\n  - m2: found a; needed b; fix: c"
    )
    assert _problems.errors(rows) == rows[:1]


def test_unknown_severity_is_refused():
    with pytest.raises(ValueError, match="fatal"):
        _problems.problem("x", "s", 1, 2, "f", "fatal")
