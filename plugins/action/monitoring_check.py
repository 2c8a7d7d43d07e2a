# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.monitoring_check, documented in plugins/modules/monitoring_check.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _kube
from ansible_collections.llmops.eks.plugins.module_utils._problems import problem
from ansible_collections.llmops.eks.plugins.module_utils._prometheus import Prometheus, PrometheusError
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action, judged

ARGUMENTS = {
    "prometheus_url": {"type": "str", "required": True},
    "prometheus_headers": {"type": "dict", "default": {}, "no_log": True},
    "prometheus_validate_certs": {"type": "bool", "default": True},
    "release": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "rule_groups": {"type": "list", "elements": "str", "default": []},
    "scrape_pools": {"type": "list", "elements": "str", "default": []},
    "jobs": {"type": "list", "elements": "str", "default": []},
    "inputs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"series": {"type": "str", "required": True}, "without": {"type": "str", "required": True}},
    },
    "timeout": {"type": "int", "default": 180},
    **_kube.AUTH_ARG_SPEC,
}
# A Prometheus that is being restarted answers again within this; one at a wrong address never does.
SILENCE_SECONDS = 20


class ActionModule(Action):
    """Waits until Prometheus has loaded the rules and scraped the monitors."""

    ARGUMENTS = ARGUMENTS
    EXPECTED = (*Action.EXPECTED, PrometheusError)
    NOT_IN_CHECK_MODE = ("nothing was written that could be loaded", {"notes": [], "problems": []})

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        headers = {key: str(value) for key, value in params["prometheus_headers"].items()}
        prometheus = Prometheus(params["prometheus_url"], _kube.connect(params), headers, params["prometheus_validate_certs"])
        rows = await_loaded(prometheus, params)
        told = [] if rows else notes(prometheus, params["inputs"], params["jobs"])
        return judged(rows, "{n} problem(s) with Prometheus:", notes=told)


def await_loaded(prometheus: Prometheus, params: dict[str, Any]) -> list[dict[str, str]]:
    """Wait until every rule group is loaded and every pool scraped; the problems that are left."""
    answered = 0.0
    for gone in _kube.poll(params["timeout"], first=0.5, longest=5.0):
        try:
            groups = prometheus.get("rules")["groups"] if params["rule_groups"] else []
            pools = prometheus.get("scrape_pools")["scrapePools"] if params["scrape_pools"] else []
        except PrometheusError:
            if gone - answered >= min(SILENCE_SECONDS, params["timeout"]):
                raise
            continue
        answered = gone
        no_groups = [name for name in params["rule_groups"] if name not in {group["name"] for group in groups}]
        no_pools = [name for name in params["scrape_pools"] if name not in pools]
        if not no_groups and not no_pools:
            break
    return [
        *_missing("rule group", no_groups, "rule", params),
        *_missing("scrape pool", no_pools, "podMonitor", params),
        *(
            problem("rule_error", rule["name"], rule.get("lastError", "an error"), "a rule without error", "look for a second source of the same series")
            for group in groups
            if group["name"] in params["rule_groups"]
            for rule in group["rules"]
            if rule["health"] == "err"
        ),
    ]


def _missing(what: str, names: list[str], field: str, params: dict[str, Any]) -> list[dict[str, str]]:
    if not names:
        return []
    found = f"no {what} {', '.join(names)} after {params['timeout']} s"
    needed = f"release={params['release']} selected by its {field}Selector, and namespace {params['namespace']} by its {field}NamespaceSelector"
    shows = f"kubectl get prometheus -A -o jsonpath='{{.items[*].spec.{field}Selector}}'"
    fix = f"set gpu_monitoring_release (llm_monitoring_release) to the release that this prints: {shows}"
    return [problem(f"{what.replace(' ', '_')}_missing", params["prometheus_url"], found, needed, fix)]


def notes(prometheus: Prometheus, inputs: list[dict[str, str]], jobs: list[str]) -> list[str]:
    """What is missing or down without being an error: a model that loads is down, and not every cluster has every exporter."""
    told = [row["without"] for row in inputs if not prometheus.query(f"count({row['series']})")]
    down = prometheus.query(f'up{{job=~"{"|".join(jobs)}"}} == 0') if jobs else []
    if down:
        names = sorted(row["metric"].get("pod") or row["metric"].get("instance", "") for row in down)
        told.append(f"targets down (a server that still loads its model is): {', '.join(names)}")
    return told
