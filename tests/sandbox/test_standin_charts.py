# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in charts take the real charts' values and nothing else. Needs the sandbox's helm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from sandbox import build

CHARTS = Path(__file__).resolve().parents[2] / "sandbox" / "charts"
SHARED = CHARTS.parents[2] / "shared" / "charts"


def template(chart: str, *flags: str) -> subprocess.CompletedProcess[str]:
    helm = build.home() / "bin" / "helm"
    if not helm.exists():
        pytest.skip(f"no {helm}: run `python -m sandbox build`")
    return subprocess.run([str(helm), "template", chart, str(CHARTS / chart), *flags], capture_output=True, text=True, timeout=30, check=False)


def objects(chart: str, *flags: str) -> dict[tuple[str, str], dict]:
    done = template(chart, *flags)
    assert done.returncode == 0, done.stderr
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout) if d}


@pytest.mark.parametrize(
    ("chart", "flag", "message"),
    [
        ("gpu-operator", "dcgmExporter.servicMonitor.enabled=true", "'servicMonitor' not allowed"),
        ("gpu-operator", "drivers.enabled=false", "'drivers' not allowed"),
        ("gpu-operator", "driver.enabled=perhaps", "got string, want"),
        ("gpu-operator", "gpuCluster.deployCR=true", "found both true"),
        ("gpu-operator", "devicePlugin.config.create=true", "found true without name or data"),
        ("keda", "operator.replicas=2", "'replicas' not allowed"),
    ],
)
def test_wrong_values_are_refused(chart: str, flag: str, message: str) -> None:
    done = template(chart, "--set", flag)
    assert done.returncode != 0
    assert message in done.stderr


def test_cluster_policy_says_what_the_values_say() -> None:
    found = objects("gpu-operator", "--set", "driver.enabled=false,toolkit.enabled=false,dcgmExporter.config.name=counters,operator.runtimeClass=other")
    spec = found["ClusterPolicy", "cluster-policy"]["spec"]
    assert (spec["driver"]["enabled"], spec["toolkit"]["enabled"], spec["dcgmExporter"]["config"]) == (False, False, {"name": "counters"})
    assert spec["operator"]["runtimeClass"] == "other"
    assert found["DaemonSet", "nvidia-dcgm-exporter"]["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.deploy.dcgm-exporter": "true"}


def test_service_monitor_needs_its_kind_and_takes_labels() -> None:
    assert ("ServiceMonitor", "nvidia-dcgm-exporter") not in objects("gpu-operator")
    found = objects(
        "gpu-operator", "--api-versions", "monitoring.coreos.com/v1/ServiceMonitor", "--set", "dcgmExporter.serviceMonitor.additionalLabels.release=monitoring"
    )
    assert found["ServiceMonitor", "nvidia-dcgm-exporter"]["metadata"]["labels"]["release"] == "monitoring"


def test_keda_renders_the_real_names() -> None:
    names = {name for kind, name in objects("keda") if kind == "Deployment"}
    assert {"keda-operator", "keda-operator-metrics-apiserver"} <= names


@pytest.mark.parametrize("chart", ["gpu-operator", "keda"])
def test_defaults_are_the_real_charts(chart: str) -> None:
    if not (SHARED / f"{chart}.values.json").exists():
        pytest.skip(f"no {SHARED}/{chart}.values.json, the key list that the chart was made from")
    values = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    wrong = []
    for path, default in json.loads((SHARED / f"{chart}.values.json").read_text())["defaults"].items():
        found, rest = values, path
        while rest and isinstance(found, dict):  # a key may hold dots itself, as openshift.io/scc
            key = next((k for k in found if rest == k or rest.startswith(k + ".")), None)
            found, rest = (found[key], rest[len(key) + 1 :]) if key else (None, "missing")
        if rest or found != default:
            wrong.append(path)
    assert wrong == []
