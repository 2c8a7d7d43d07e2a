# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' configuration in the sandbox, with two folders in which the stand-ins for the Prometheus operator write.

    <directory>/prometheus.yaml     this module's
    <directory>/rules/*.yaml        rule files, one a PrometheusRule
    <directory>/scrape/*.yaml       scrape configurations (``scrape_configs: [...]``); `vllm-pods.yaml` is written at the start

After a change: POST <Prometheus>/-/reload.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

INTERVAL = "2s"  # a cluster's is 15 s to 30 s


def write_configuration(directory: Path, kubeconfig: Path, standins: str, static: dict[str, str]) -> Path:
    """Write everything and return the path of prometheus.yaml.

    `standins`: host:port that serves a pod's metrics at /pods/<namespace>/<pod>/metrics. `static`: host:port by job name.
    """
    for folder in ("rules", "scrape", "data"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(directory / "rules" / "*.yaml")],
        "scrape_config_files": [str(directory / "scrape" / "*.yaml")],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [address]}]} for job, address in static.items()],
    }
    path = directory / "prometheus.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    (directory / "scrape" / "vllm-pods.yaml").write_text(yaml.safe_dump({"scrape_configs": [vllm_pods(kubeconfig, standins)]}, sort_keys=False))
    return path


def vllm_pods(kubeconfig: Path, standins: str) -> dict[str, Any]:
    """A scrape configuration for every pod that the stand-ins serve, which cannot be reached at its own address."""
    pod = "__meta_kubernetes_pod"
    return {
        "job_name": "vllm-pods",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": [
            {"source_labels": [f"{pod}_container_image"], "regex": ".*vllm.*", "action": "keep"},
            {"source_labels": [f"{pod}_container_init"], "regex": "true", "action": "drop"},
            {"source_labels": [f"{pod}_phase"], "regex": "Pending|Running", "action": "keep"},
            {
                "source_labels": ["__meta_kubernetes_namespace", f"{pod}_name"],
                "separator": "/",
                "regex": "(.+)",
                "target_label": "__metrics_path__",
                "replacement": "/pods/$1/metrics",
            },
            {"target_label": "__address__", "replacement": standins},
            {"source_labels": [f"{pod}_name"], "target_label": "instance"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": [f"{pod}_name"], "target_label": "pod"},
            {"source_labels": [f"{pod}_container_name"], "target_label": "container"},
        ],
    }
