# SPDX-License-Identifier: GPL-3.0-or-later
"""What scaler_check makes of the cluster's scalers and of Prometheus' answers. Both are played here."""

import pytest
from ansible_collections.llmops.eks.plugins.action import scaler_check
from ansible_collections.llmops.eks.plugins.module_utils._kube import Kind

QUERY = 'sum(vllm:num_requests_running{model_name="llama"})'
SCALED = {"name": "llama", "query": QUERY, "threshold": 8.0, "min": 1, "max": 4, "http_route": False}
FIXED = {**SCALED, "query": ""}


class Cluster:
    """`scalers`: objects by kind. `kinds`: those that the API server serves."""

    def __init__(self, kinds=("HorizontalPodAutoscaler", "ScaledObject"), **scalers):
        self.kinds, self.scalers = kinds, scalers

    def find(self, api_version, kind):
        return Kind(api_version, kind, kind, True) if kind in self.kinds else None

    def items(self, path):
        return self.scalers.get(path.rpartition("/")[2], [])


class Prometheus:
    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def query(self, expression):
        if expression != QUERY:
            return []
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def scaler(name, target, owner=None, kind="Deployment"):
    metadata = {"name": name} | ({"ownerReferences": [{"kind": owner}]} if owner else {})
    return {"metadata": metadata, "spec": {"scaleTargetRef": {"kind": kind, "name": target}}}


OURS = {"ScaledObject": [scaler("llama", "llama")], "HorizontalPodAutoscaler": [scaler("keda-hpa-llama", "llama", "ScaledObject")]}


def test_our_own_scaler_is_no_rival():
    assert scaler_check.rivals(Cluster(**OURS), "ns", [SCALED]) == []
    assert scaler_check.rivals(Cluster(kinds=(), **OURS), "ns", [SCALED]) == []


@pytest.mark.parametrize(
    "there",
    [
        {"ScaledObject": [scaler("other", "llama")]},
        {"HorizontalPodAutoscaler": [scaler("mine", "llama")]},
        {**OURS, "HorizontalPodAutoscaler": [*OURS["HorizontalPodAutoscaler"], scaler("mine", "llama")]},
    ],
)
def test_a_second_scaler_is_refused(there):
    (row,) = scaler_check.rivals(Cluster(**there), "ns", [SCALED])
    assert (row["check"], row["subject"], row["needed"]) == ("second_scaler", "llama", "one autoscaler a Deployment")
    (row,) = scaler_check.rivals(Cluster(**there), "ns", [FIXED])
    assert row["needed"] == "none, because the number of replicas is fixed"


def test_scalers_of_other_targets_do_not_matter():
    there = {"HorizontalPodAutoscaler": [scaler("a", "qwen"), scaler("b", "llama", kind="StatefulSet")]}
    assert scaler_check.rivals(Cluster(**there), "ns", [SCALED]) == []


def test_zero_needs_the_addon_in_the_cluster():
    zero = {**SCALED, "min": 0, "http_route": True}
    (row,) = scaler_check.routes(Cluster(), [SCALED, zero])
    assert (row["check"], row["severity"]) == ("http_addon", "error")
    assert "keda-add-ons-http" in row["fix"]
    assert scaler_check.routes(Cluster(kinds=("InterceptorRoute",)), [zero]) == []
    assert scaler_check.routes(Cluster(), [SCALED]) == []


def vector(*values):
    return [{"metric": {"pod": f"p{index}"}, "value": [0, str(value)]} for index, value in enumerate(values)]


def test_one_number_becomes_replicas():
    shown, rows = scaler_check.prove(Prometheus(vector(20)), SCALED, False, 0)
    assert (shown["value"], shown["replicas"], rows) == (20.0, 3, [])


def test_an_answer_that_comes_later_is_waited_for():
    prometheus = Prometheus([], [], vector(1))
    shown, rows = scaler_check.prove(prometheus, SCALED, False, 5)
    assert (shown["value"], rows, prometheus.asked) == (1.0, [], 3)


def test_none_is_refused_and_before_the_model_is_up_only_said():
    shown, rows = scaler_check.prove(Prometheus([]), SCALED, False, 0)
    assert (shown["value"], shown["replicas"]) == (None, None)
    assert [(row["check"], row["severity"]) for row in rows] == [("query_empty", "error")]
    assert "no series vllm:num_requests_running at all" in rows[0]["found"]
    assert [row["severity"] for row in scaler_check.prove(Prometheus([]), SCALED, True, 0)[1]] == ["info"]


def test_a_model_that_may_be_at_zero_is_not_waited_for():
    prometheus = Prometheus([])
    _shown, rows = scaler_check.prove(prometheus, {**SCALED, "min": 0}, False, 60)
    assert ([row["severity"] for row in rows], prometheus.asked) == (["info"], 1)


def test_several_numbers_are_refused_at_once_also_before_the_model_is_up():
    prometheus = Prometheus(vector(1, 2))
    _shown, rows = scaler_check.prove(prometheus, SCALED, True, 60)
    assert ([row["check"] for row in rows], [row["severity"] for row in rows], prometheus.asked) == (["query_many"], ["error"], 1)
