# SPDX-License-Identifier: GPL-3.0-or-later
"""The other objects of the role, and what its check refuses."""

import pytest
from rendering import template

SELECTOR = {"matchLabels": {"release": "prom"}}
PROMETHEUS = {"spec": {"podMonitorSelector": SELECTOR, "ruleSelector": SELECTOR}}


def by_name(objects, kind: str) -> dict[str, dict]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def problems(found: dict | None = None, **variables) -> list[dict]:
    """Rows of the check for what object_info found."""
    variables["__gpu_monitoring_prometheus"] = found or {"api_found": True, "resources": []}
    variables.setdefault("__gpu_monitoring_monitors", {"api_found": False})
    variables.setdefault("__gpu_monitoring_namespaces", {"results": []})
    return template("lookup('ansible.builtin.template', 'problems.yaml.j2') | from_yaml", **variables)


def test_every_object_is_labelled_and_what_the_operator_selects_carries_the_release(objects):
    for o in objects(gpu_monitoring_release="prom"):
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == labels["app.kubernetes.io/part-of"] == "llmops.eks"
        assert labels.get("release") == ("prom" if o["apiVersion"].startswith("monitoring.coreos.com") else None)


def test_the_namespace_equals_the_one_of_the_role_vllm(objects):
    """Two roles apply it under one field manager: a difference would be undone and redone for ever."""
    assert objects()[0] == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "llm-serving", "labels": {"app.kubernetes.io/part-of": "llmops.eks", "app.kubernetes.io/managed-by": "llmops.eks"}},
    }
    assert by_name(objects(gpu_monitoring_create_namespace=False), "Namespace") == {}


def test_vllm_monitor_keeps_the_servers_labels_and_adds_the_node(objects):
    spec = by_name(objects(gpu_monitoring_model_namespaces=["a", "b"]), "PodMonitor")["llm-vllm"]["spec"]
    endpoint = spec["podMetricsEndpoints"][0]
    assert spec["namespaceSelector"] == {"matchNames": ["a", "b"]}
    assert spec["selector"] == {"matchLabels": {"app.kubernetes.io/name": "vllm"}}
    assert endpoint["port"] == "http"
    assert {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"} in endpoint["relabelings"]
    assert all(r["action"] == "drop" and r["sourceLabels"] == ["__name__"] for r in endpoint["metricRelabelings"])


def test_dcgm_monitor_does_not_let_workload_labels_pose_as_the_exporters(objects):
    endpoint = by_name(objects(), "PodMonitor")["llm-dcgm-exporter"]["spec"]["podMetricsEndpoints"][0]
    assert endpoint["honorLabels"] is False
    assert {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"} in endpoint["relabelings"]
    assert {"regex": "pod|container|endpoint|service", "action": "labeldrop"} in endpoint["relabelings"]
    # What rules and dashboards read: Prometheus itself renames only labels that the target has, too, and these were dropped from it.
    assert endpoint["metricRelabelings"] == [
        {"sourceLabels": ["pod"], "targetLabel": "exported_pod"},
        {"sourceLabels": ["container"], "targetLabel": "exported_container"},
        {"regex": "pod|container", "action": "labeldrop"},
    ]
    assert list(by_name(objects(gpu_monitoring_dcgm_monitor="false"), "PodMonitor")) == ["llm-vllm"]


def test_optional_objects_can_be_left_out(objects):
    kinds = [o["kind"] for o in objects(gpu_monitoring_dashboards=False, gpu_monitoring_dcgm_monitor=False)]
    assert kinds == ["Namespace", "PodMonitor", "PrometheusRule", "PrometheusRule", "PrometheusRule"]


def test_an_object_whose_option_was_switched_off_is_found_again(objects):
    wanted = {(row["kind"], row["namespace"]) for row in template("__gpu_monitoring_prune")}
    own = dict(pair.split("=") for pair in template("__gpu_monitoring_own").split(","))
    for o in objects()[1:]:
        assert (o["kind"], o["metadata"]["namespace"]) in wanted
        assert own.items() <= o["metadata"]["labels"].items()


def test_defaults_pass_the_check():
    assert problems() == []
    assert problems({"api_found": True, "resources": [PROMETHEUS]}, gpu_monitoring_release="prom") == []


@pytest.mark.parametrize("selector", [{}, {"matchLabels": {}}])
def test_a_prometheus_that_selects_everything_takes_any_release(selector):
    everything = {"spec": {"podMonitorSelector": selector, "ruleSelector": selector}}
    assert problems({"api_found": True, "resources": [PROMETHEUS, everything]}) == []


def test_a_release_that_no_prometheus_selects_is_refused():
    rows = problems({"api_found": True, "resources": [PROMETHEUS]}, gpu_monitoring_release="kube-prometheus-stack")
    assert [row["check"] for row in rows] == ["release_label", "release_label"]
    assert 'podMonitorSelector [{"matchLabels": {"release": "prom"}}]' in rows[0]["found"]
    unset = problems({"api_found": True, "resources": [{"spec": {}}]})
    assert [row["check"] for row in unset] == ["release_label", "release_label"], "a Prometheus without a selector takes nothing"


def test_namespaces_of_others_are_looked_for_and_a_missing_one_is_refused():
    foreign = "__gpu_monitoring_foreign_namespaces"
    assert template(foreign) == []
    assert template(foreign, gpu_monitoring_dashboard_namespace="grafana") == ["grafana"]
    assert template(foreign, gpu_monitoring_dashboard_namespace="grafana", gpu_monitoring_dashboards="no") == []
    assert template(foreign, gpu_monitoring_create_namespace=False) == ["llm-serving"]
    looked = [{"__gpu_monitoring_namespace": name, "resources": found} for name, found in (("there", [{"kind": "Namespace"}]), ("grafana", []))]
    missing = {"__gpu_monitoring_namespaces": {"results": looked}}
    (row,) = problems(**missing)
    assert (row["check"], row["subject"], row["found"]) == ("namespace", "gpu_monitoring_dashboard_namespace", "no namespace grafana in the cluster")
    assert problems(**missing, gpu_monitoring_crds_planned=True, ansible_check_mode=True) == [], "the run that installs the stack makes it"


def test_missing_crds_are_refused_unless_this_run_installs_them():
    none = {"api_found": False}
    assert [row["check"] for row in problems(none)] == ["monitoring_crds"]
    assert [row["check"] for row in problems(none, gpu_monitoring_crds_planned=True)] == ["monitoring_crds"], "in a real run they have to be there"
    assert problems(none, gpu_monitoring_crds_planned="true", ansible_check_mode=True) == []
    assert problems(none, __gpu_monitoring_monitors={"api_found": True}) == [], "an agent that reads monitors without a Prometheus object"


@pytest.mark.parametrize(
    ("variables", "check", "found"),
    [
        ({"gpu_monitoring_ttft_seconds": 2}, "ttft_bucket", "2, no bucket"),
        ({"gpu_monitoring_ttft_objective": 0.9}, "ttft_objective", "0.9"),
        ({"gpu_monitoring_ttft_objective": 1}, "ttft_objective", "1"),
        ({"gpu_monitoring_kv_cache_ratio": 95}, "ratio", "95"),
        ({"gpu_monitoring_error_ratio": "0"}, "ratio", "0"),
        ({"gpu_monitoring_idle_for": "60"}, "duration", "60"),
        ({"gpu_monitoring_stalled_for": ""}, "duration", ""),
        ({"gpu_monitoring_start_budget_seconds": "0"}, "start_budget", "0"),
        ({"gpu_monitoring_model_namespaces": ["llm-.*"]}, "namespace", "llm-.*"),
        ({"gpu_monitoring_model_namespaces": []}, "namespace", "an empty list"),
        ({"gpu_monitoring_prometheus_url": "prometheus:9090"}, "prometheus_url", "prometheus:9090"),
        ({"gpu_monitoring_xids_restart_pod": [79]}, "xids", "XID 79"),
    ],
)
def test_the_check_names_what_was_found(variables, check, found):
    rows = problems(**variables)
    assert [row["check"] for row in rows] == [check]
    assert found in rows[0]["found"]
    assert all(isinstance(value, str) for value in rows[0].values())
    assert rows[0]["needed"]
    assert rows[0]["fix"]


def test_all_problems_come_at_once():
    assert len(problems({"api_found": False}, gpu_monitoring_ttft_seconds=3, gpu_monitoring_idle_for="1 hour", gpu_monitoring_ttft_objective=0.5)) == 4


def test_the_wait_looks_for_the_groups_that_were_applied():
    assert template("__gpu_monitoring_groups", gpu_monitoring_rules=["vllm", "scaling"]) == ["llm-vllm-records", "llm-vllm-alerts", "llm-scaling-alerts"]


def test_the_wait_looks_for_the_scrape_pools_as_the_operator_names_them():
    assert template("__gpu_monitoring_pools", gpu_monitoring_namespace="ns") == ["podMonitor/ns/llm-vllm/0", "podMonitor/ns/llm-dcgm-exporter/0"]
