# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's objects, and promtool to judge them with."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rendering import DATA, REPO, template


@pytest.fixture
def objects():
    """objects(**variables) -> everything the role would apply."""
    return lambda **variables: template("__gpu_monitoring_objects", **variables)


@pytest.fixture
def rule_groups(objects):
    """rule_groups(**variables) -> the groups of all PrometheusRule objects."""
    return lambda **variables: [g for o in objects(**variables) if o["kind"] == "PrometheusRule" for g in o["spec"]["groups"]]


@pytest.fixture(scope="session")
def promtool():
    """promtool(*arguments) -> output; fails the test when promtool does. The sandbox's own build, else the one on PATH."""
    sys.path.insert(0, str(REPO))
    from sandbox import build

    built = build.home() / "bin" / "promtool"
    program = str(built) if built.exists() else shutil.which("promtool")
    if not program:
        pytest.skip(f"no promtool: neither {built} (made by `make sandbox-up`) nor on PATH")

    def call(*arguments: str | Path) -> str:
        done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"promtool {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return call


@pytest.fixture
def allowed_metrics(objects, rule_groups) -> set[str]:
    """Series of vLLM 0.33, the DCGM exporter (the role's CSV and the new names), kube-state-metrics, KEDA, Karpenter, and our own records."""
    lists = yaml.safe_load((DATA / "metrics.yml").read_text())
    names = {name for exporter in lists.values() for name in exporter["names"]}
    names |= {h + part for h in lists["vllm"]["histograms"] for part in ("_bucket", "_count", "_sum")}
    counters = (REPO / "roles" / "gpu_operator" / "templates" / "dcgm-metrics.csv.j2").read_text()
    names |= {line.split(",")[0] for line in counters.splitlines() if not line.startswith(("#", "{%"))}
    return names | {rule["record"] for group in rule_groups() for rule in group["rules"] if "record" in rule}
