# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.scaler_check, documented in plugins/modules/scaler_check.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _kube, _scaler
from ansible_collections.llmops.eks.plugins.module_utils._problems import problem
from ansible_collections.llmops.eks.plugins.module_utils._prometheus import Prometheus, PrometheusError
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action, judged

SCALER = {
    "name": {"type": "str", "required": True},
    "query": {"type": "str", "default": ""},
    "threshold": {"type": "float", "default": 1.0},
    "min": {"type": "int", "default": 1},
    "max": {"type": "int", "default": 1},
    "http_route": {"type": "bool", "default": False},
}
ARGUMENTS = {
    "scalers": {"type": "list", "elements": "dict", "options": SCALER, "required": True},
    "namespace": {"type": "str", "required": True},
    "prometheus_url": {"type": "str", "default": ""},
    "query": {"type": "bool", "default": True},
    "missing": {"type": "str", "choices": ["refused", "allowed"], "default": "refused"},
    "timeout": {"type": "int", "default": 0},
    **_kube.AUTH_ARG_SPEC,
}


class ActionModule(Action):
    """Runs each scaler's query and looks for what would fight over replicas."""

    ARGUMENTS = ARGUMENTS
    EXPECTED = (*Action.EXPECTED, PrometheusError)

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        cluster = _kube.connect(params)
        scalers, rows = [], rivals(cluster, params["namespace"], params["scalers"]) + routes(cluster, params["scalers"])
        if params["query"]:
            prometheus = Prometheus(params["prometheus_url"], cluster)
            for scaler in (s for s in params["scalers"] if s["query"]):
                shown, more = prove(prometheus, scaler, params["missing"] == "allowed", params["timeout"])
                scalers.append(shown)
                rows += more
        return judged(rows, "{n} scaler problem(s)", scalers=scalers)


def prove(prometheus: Prometheus, scaler: dict[str, Any], may_be_missing: bool, seconds: int) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Run one query until it returns one number or `seconds` are over; explain an empty result by what does exist."""
    name, query = scaler["name"], scaler["query"]
    # At zero replicas there is nothing that reports.
    may_be_missing, seconds = (True, 0) if scaler["min"] == 0 else (may_be_missing, seconds)
    value: float | None = None
    rows: list[dict[str, str]] = []
    for _gone in _kube.poll(seconds):
        result = prometheus.query(query)
        value, rows = _scaler.check_result(name, query, result, "")
        if value is not None or len(result) > 1:
            break
    if value is None and not result:
        exists = {probe: len(prometheus.query(probe)) for probe in _scaler.probes(query)}
        _value, rows = _scaler.check_result(name, query, result, _scaler.explain_empty(query, exists))
        if may_be_missing:
            rows = [{**row, "severity": "info"} for row in rows]
    shown = {"name": name, "query": query, "value": value, "threshold": scaler["threshold"]}
    shown["replicas"] = None if value is None else _scaler.replicas(value, scaler["threshold"], 0, scaler["min"], scaler["max"])
    return shown, rows


def routes(cluster: _kube.Cluster, scalers: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Problems of scalers that need the HTTP add-on where it is not installed: the role does not bring it."""
    needing = [s["name"] for s in scalers if s["http_route"]]
    if not needing or cluster.find("http.keda.sh/v1beta1", "InterceptorRoute"):
        return []
    found = "no kind InterceptorRoute of http.keda.sh/v1beta1 in the cluster"
    fix = "install the chart keda-add-ons-http (0.14 or newer) of https://kedacore.github.io/charts, or set autoscaling.mode: standard and replicas.min: 1"
    return [problem("http_addon", name, found, "the KEDA HTTP add-on, which holds and counts requests while no replica exists", fix) for name in needing]


def rivals(cluster: _kube.Cluster, namespace: str, scalers: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Problems for every other autoscaler whose target is one of the Deployments: two would fight over replicas."""
    scaled = {s["name"]: bool(s["query"]) for s in scalers}
    rows = []
    for api_version, kind in (("autoscaling/v2", "HorizontalPodAutoscaler"), ("keda.sh/v1alpha1", "ScaledObject")):
        served = cluster.find(api_version, kind)
        for item in cluster.items(served.path(namespace)) if served else []:
            target = item["spec"].get("scaleTargetRef", {})
            owner = (item["metadata"].get("ownerReferences") or [{}])[0]
            ours = item["metadata"]["name"] == target.get("name") if kind == "ScaledObject" else owner.get("kind") == "ScaledObject"
            if target.get("name") in scaled and target.get("kind", "Deployment") == "Deployment" and not ours:
                found = f"{kind} {namespace}/{item['metadata']['name']} already scales this Deployment"
                needed, fix = (
                    ("one autoscaler a Deployment", f"remove that {kind}, or leave the role keda_scaler out")
                    if scaled[target["name"]]
                    else (
                        "none, because the number of replicas is fixed",
                        f"remove that {kind}, or set replicas.max above replicas.min, so that the number is not fixed",
                    )
                )
                rows.append(problem("second_scaler", target["name"], found, needed, fix))
    return rows
