# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' configuration in the sandbox, with two folders in which the stand-in for the Prometheus operator writes.

    <directory>/prometheus.yaml     this module's
    <directory>/rules/*.yaml        rule files, one a PrometheusRule
    <directory>/scrape/*.yaml       scrape configurations (``scrape_configs: [...]``), one a PodMonitor or ServiceMonitor

After a change: POST <Prometheus>/-/reload. Nothing scrapes a pod that no monitor selects, as on a cluster with the Prometheus operator.
"""

from __future__ import annotations

from pathlib import Path

import yaml

INTERVAL = "2s"  # a cluster's is 15 s to 30 s
# Karpenter tells five figures of each of AWS' 1400 instance types: 8 MB an answer, which every 2 s took half a processor.
PARTS_INTERVAL = "30s"


def write_configuration(directory: Path, static: dict[str, str]) -> Path:
    """Make the folders, write prometheus.yaml and return its path. `static`: host:port of the sandbox's own parts to scrape, by job name."""
    for folder in ("rules", "scrape", "data"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    configuration = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(directory / "rules" / "*.yaml")],
        "scrape_config_files": [str(directory / "scrape" / "*.yaml")],
        "scrape_configs": [
            {"job_name": job, "scrape_interval": PARTS_INTERVAL, "scrape_timeout": "10s", "static_configs": [{"targets": [address]}]}
            for job, address in static.items()
        ],
    }
    path = directory / "prometheus.yaml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return path
