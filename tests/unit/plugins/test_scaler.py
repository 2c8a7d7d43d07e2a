# SPDX-License-Identifier: GPL-3.0-or-later
import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _scaler

QUERY = 'sum(vllm:num_requests_running{namespace="llm",model_name="m"}) + 8'


def vector(*values):
    return [{"metric": {"pod": f"p{index}"}, "value": [0, str(value)]} for index, value in enumerate(values)]


def test_one_number_is_right():
    assert _scaler.check_result("m", QUERY, vector(38), "") == (38.0, [])


@pytest.mark.parametrize(
    ("result", "check", "found"),
    [([], "query_empty", "because"), (vector(1, 2), "query_many", "2 results, differing in pod"), (vector("NaN"), "query_nan", "nan")],
)
def test_anything_else_is_refused(result, check, found):
    value, rows = _scaler.check_result("m", QUERY, result, "because")
    assert value is None
    assert [row["check"] for row in rows] == [check]
    assert found in rows[0]["found"]


@pytest.mark.parametrize(
    ("exists", "why"),
    [
        ({}, "no series vllm:num_requests_running at all"),
        ({"vllm:num_requests_running": 2, 'vllm:num_requests_running{namespace="llm"}': 2}, 'none has model_name="m"'),
        (
            {"vllm:num_requests_running": 2, 'vllm:num_requests_running{namespace="llm"}': 1, 'vllm:num_requests_running{model_name="m"}': 1},
            'no series has all of namespace="llm", model_name="m"',
        ),
    ],
)
def test_an_empty_result_names_what_is_missing(exists, why):
    assert why in _scaler.explain_empty(QUERY, exists)
    assert set(exists) <= set(_scaler.probes(QUERY))


# The table of facts about the guide's trigger (threshold 5, at most 5 replicas): absolute, with a tolerance of 10 %.
@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [(5, 1, 1), (6, 1, 2), (16, 1, 4), (16, 3, 3), (21, 4, 4), (21, 1, 5), (25, 5, 5), (0, 3, 1)],
)
def test_replicas_follow_the_hpa_formula(value, current, wanted):
    assert _scaler.replicas(value, 5, current, 1, 5) == wanted
