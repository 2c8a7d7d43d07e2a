# SPDX-License-Identifier: GPL-3.0-or-later
"""Scrape configurations that the Prometheus operator's stand-in writes."""

from __future__ import annotations

from pathlib import Path

from sandbox.standins.monitoring import is_selected, keep_selected, relabelings, scrape_config

META = {"name": "m", "namespace": "llm", "labels": {"release": "monitoring"}}


def configuration(kind: str, spec: dict, endpoint: dict) -> dict:
    return scrape_config({"kind": kind, "metadata": META, "spec": spec}, 0, endpoint, Path("/k"), "127.0.0.1:1")


def test_only_the_release_label_selects() -> None:
    assert is_selected({"metadata": META})
    assert not is_selected({"metadata": {"labels": {"release": "other"}}})
    assert not is_selected({"metadata": {}})


def test_pod_monitor() -> None:
    spec = {"selector": {"matchLabels": {"app.kubernetes.io/name": "vllm"}}, "namespaceSelector": {"matchNames": ["a", "b"]}, "podTargetLabels": ["team"]}
    config = configuration("PodMonitor", spec, {"port": "http", "metricRelabelings": [{"sourceLabels": ["__name__"], "regex": "x", "action": "Drop"}]})
    assert config["job_name"] == "podMonitor/llm/m/0"
    assert config["kubernetes_sd_configs"] == [{"role": "pod", "kubeconfig_file": "/k", "namespaces": {"names": ["a", "b"]}}]
    rows = config["relabel_configs"]
    label = "app_kubernetes_io_name"
    assert {
        "action": "keep",
        "regex": "(vllm);true",
        "source_labels": [f"__meta_kubernetes_pod_label_{label}", f"__meta_kubernetes_pod_labelpresent_{label}"],
    } in rows
    assert {"source_labels": ["__meta_kubernetes_pod_label_team"], "target_label": "team", "regex": "(.+)"} in rows
    assert {"target_label": "job", "replacement": "llm/m"} in rows
    assert rows[-2] == {"target_label": "__address__", "replacement": "127.0.0.1:1"}
    assert config["metric_relabel_configs"] == [{"source_labels": ["__name__"], "regex": "x", "action": "drop"}]


def test_service_monitor_of_any_namespace() -> None:
    spec = {"selector": {}, "namespaceSelector": {"any": True}, "jobLabel": "app"}
    config = configuration("ServiceMonitor", spec, {"port": "gpu-metrics", "honorLabels": True})
    assert config["kubernetes_sd_configs"] == [{"role": "endpointslice", "kubeconfig_file": "/k"}]
    assert config["honor_labels"] is True
    assert {"action": "keep", "source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": "gpu-metrics"} in config["relabel_configs"]
    assert {"source_labels": ["__meta_kubernetes_service_label_app"], "target_label": "job", "regex": "(.+)"} in config["relabel_configs"]


def test_expressions_and_relabelings() -> None:
    rows = keep_selected("pod", {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x", "y"]}, {"key": "b", "operator": "Exists"}]})
    assert [(r["action"], r["regex"]) for r in rows] == [("drop", "(x|y);true"), ("keep", "true")]
    assert relabelings([{"sourceLabels": ["a"], "targetLabel": "b", "action": "Replace"}]) == [
        {"source_labels": ["a"], "target_label": "b", "action": "replace"}
    ]
    assert relabelings(None) == []
