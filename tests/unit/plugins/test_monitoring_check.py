# SPDX-License-Identifier: GPL-3.0-or-later
"""What monitoring_check makes of Prometheus' answers, which are played here; and that a .svc address goes through the API server."""

import io
import json
from urllib.error import HTTPError

import pytest
from ansible_collections.llmops.eks.plugins.action import monitoring_check
from ansible_collections.llmops.eks.plugins.module_utils import _prometheus
from ansible_collections.llmops.eks.plugins.module_utils._kube import ApiError
from ansible_collections.llmops.eks.plugins.module_utils._prometheus import Prometheus, PrometheusError

WANTED = {"prometheus_url": "http://p", "release": "prom", "namespace": "ns", "rule_groups": ["a", "b"], "scrape_pools": ["podMonitor/ns/m/0"], "timeout": 0}


class Played:
    """`answers`: for each round (groups, pools), or None for no answer; the last one stays."""

    def __init__(self, *answers, series=()):
        self.answers, self.rounds, self.series = list(answers), 0, series

    def get(self, what):
        groups_and_pools = self.answers[min(self.rounds, len(self.answers) - 1)]
        if groups_and_pools is None:
            self.rounds += 1
            raise PrometheusError("found nobody")
        if what == "rules":
            return {"groups": [{"name": name, "rules": rules} for name, rules in groups_and_pools[0].items()]}
        self.rounds += 1
        return {"scrapePools": groups_and_pools[1]}

    def query(self, expression):
        return [row for text, row in self.series if text in expression]


FINE = {"name": "R", "health": "ok"}
LOADED = ({"a": [FINE], "b": [], "other": [{"name": "X", "health": "err", "lastError": "not ours"}]}, ["podMonitor/ns/m/0", "other"])
HALF = ({"a": [FINE]}, ["other"])


def test_everything_loaded_is_no_problem():
    assert monitoring_check.await_loaded(Played(LOADED), WANTED) == []


def test_what_comes_later_is_waited_for():
    prometheus = Played(HALF, None, LOADED)
    assert monitoring_check.await_loaded(prometheus, {**WANTED, "timeout": 5}) == []
    assert prometheus.rounds == 3


def test_what_is_missing_is_named_with_the_label_that_selects_it():
    rules, pools = monitoring_check.await_loaded(Played(HALF), WANTED)
    assert (rules["check"], rules["found"]) == ("rule_group_missing", "no rule group b after 0 s")
    assert rules["needed"] == "release=prom selected by its ruleSelector, and namespace ns by its ruleNamespaceSelector"
    assert "spec.ruleSelector" in rules["fix"]
    assert (pools["check"], pools["found"]) == ("scrape_pool_missing", "no scrape pool podMonitor/ns/m/0 after 0 s")
    assert "spec.podMonitorSelector" in pools["fix"]


def test_a_rule_of_ours_that_cannot_be_evaluated_is_a_problem():
    broken = {"name": "R", "health": "err", "lastError": "many-to-many matching"}
    (row,) = monitoring_check.await_loaded(Played(({"a": [broken], "b": []}, LOADED[1])), WANTED)
    assert (row["check"], row["subject"], row["found"]) == ("rule_error", "R", "many-to-many matching")


def test_a_prometheus_that_never_answers_is_given_up():
    with pytest.raises(PrometheusError, match="found nobody"):
        monitoring_check.await_loaded(Played(None), WANTED)


def test_pools_are_not_asked_for_where_there_is_no_such_api():
    assert monitoring_check.await_loaded(Played(({"a": [], "b": []}, None)), {**WANTED, "scrape_pools": []}) == []


def test_notes_tell_missing_inputs_and_targets_that_are_down():
    inputs = [{"series": "there", "without": "no there"}, {"series": "missing", "without": "no missing"}]
    down = {"metric": {"job": "vllm", "pod": "llama-1", "instance": "10.0.0.1:8000"}}
    prometheus = Played(LOADED, series=[("count(there)", {}), ('up{job=~"vllm|dcgm-exporter"} == 0', down)])
    told = monitoring_check.notes(prometheus, inputs, ["vllm", "dcgm-exporter"])
    assert told == ["no missing", "targets down (a server that still loads its model is): llama-1"]
    assert monitoring_check.notes(prometheus, inputs[:1], []) == []


class Cluster:
    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def request(self, method, path, query=None):
        self.asked.append((method, path, query))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("http://prometheus-operated.monitoring.svc:9090", "prometheus-operated:9090"),
        ("https://prom.monitoring.svc.cluster.local:443/", "https:prom:443"),
        ("https://prom.monitoring.svc", "https:prom:443"),
        ("http://prom.monitoring.svc", "prom:80"),
    ],
)
def test_an_address_inside_the_cluster_is_asked_through_the_api_server(url, service):
    cluster = Cluster({"status": "success", "data": {"groups": []}})
    assert Prometheus(url, cluster).get("rules") == {"groups": []}
    assert cluster.asked == [("GET", f"/api/v1/namespaces/monitoring/services/{service}/proxy/api/v1/rules", None)]


def test_a_refusal_says_where_it_was_asked():
    with pytest.raises(PrometheusError, match=r"no endpoints.*at http://p\.m\.svc through the API server"):
        Prometheus("http://p.m.svc", Cluster(ApiError("GET", "/x", 503, {"message": "no endpoints available"}))).get("rules")
    with pytest.raises(PrometheusError, match=r"found parse error for up\{; needed valid PromQL"):
        Prometheus("http://p.m.svc", Cluster({"status": "error", "error": "parse error"})).query("up{")


PARSE_ERROR = {"status": "error", "errorType": "bad_data", "error": "parse error"}


def test_prometheus_own_words_come_through_the_api_server():
    with pytest.raises(PrometheusError, match=r"found parse error for up\{; needed valid PromQL"):
        Prometheus("http://p.m.svc", Cluster(ApiError("GET", "/x", 400, PARSE_ERROR))).query("up{")
    with pytest.raises(PrometheusError, match=r"found query timed out at http://p\.m\.svc through the API server"):
        Prometheus("http://p.m.svc", Cluster(ApiError("GET", "/x", 503, {**PARSE_ERROR, "error": "query timed out"}))).query("up")
    with pytest.raises(PrometheusError, match=r"found Client sent an HTTP request to an HTTPS server at"):
        Prometheus("http://p.m.svc", Cluster(ApiError("GET", "/x", 400, {"message": "Client sent an HTTP request to an HTTPS server"}))).query("up")


@pytest.mark.parametrize(
    ("code", "says"), [(400, "found parse error for up; needed valid PromQL"), (401, "found parse error at http://p/api/v1/query; needed")]
)
def test_only_a_wrong_query_is_called_one(monkeypatch, code, says):
    def refused(*_args, **_kwargs):
        raise HTTPError("http://p", code, "no", {}, io.BytesIO(json.dumps(PARSE_ERROR).encode()))

    monkeypatch.setattr(_prometheus, "open_url", refused)
    with pytest.raises(PrometheusError, match=says):
        Prometheus("http://p", None).query("up")


@pytest.mark.parametrize("data", [{"resultType": "matrix", "result": [{"metric": {}, "values": []}]}, {"resultType": "string", "result": [0, "a"]}])
def test_a_query_must_give_numbers_of_one_time(data):
    with pytest.raises(PrometheusError, match=f"found a {data['resultType']} as result of up; needed a vector or a scalar; fix: "):
        Prometheus("http://p.m.svc", Cluster({"status": "success", "data": data})).query("up")
