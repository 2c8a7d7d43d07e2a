# SPDX-License-Identifier: GPL-3.0-or-later
"""Play the Prometheus operator of kube-prometheus-stack with release name `monitoring`: objects that carry its label become
rule files and scrape configurations, all others are ignored without a word, as in reality.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from .kube import LOG, Cache, Kube, Object

GROUP = "monitoring.coreos.com/v1"
SELECTOR = ("release", "monitoring")
META = "__meta_kubernetes"
SNAKE = {
    "sourceLabels": "source_labels",
    "targetLabel": "target_label",
    "separator": "separator",
    "regex": "regex",
    "modulus": "modulus",
    "replacement": "replacement",
    "action": "action",
}


def is_selected(item: Object) -> bool:
    """True if the stack's Prometheus selects this object."""
    return (item["metadata"].get("labels") or {}).get(SELECTOR[0]) == SELECTOR[1]


def label_name(text: str) -> str:
    """A Kubernetes label as Prometheus' discovery names it."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in text)


def relabelings(rows: list[Object] | None) -> list[Object]:
    """Relabelings of a monitor in Prometheus' spelling."""
    return [{SNAKE[key]: value.lower() if key == "action" else value for key, value in row.items() if key in SNAKE} for row in rows or []]


def keep_selected(kind: str, selector: Object) -> list[Object]:
    """Keep targets whose `kind` (pod or service) matches a label selector."""
    rows: list[Object] = []
    prefix = f"{META}_{kind}_label"
    expressions = [{"key": k, "operator": "In", "values": [v]} for k, v in (selector.get("matchLabels") or {}).items()]
    for row in [*expressions, *(selector.get("matchExpressions") or [])]:
        label = label_name(row["key"])
        sources, regex = [f"{prefix}_{label}", f"{META}_{kind}_labelpresent_{label}"], f"({'|'.join(row.get('values', []))});true"
        action = {"In": "keep", "Exists": "keep", "NotIn": "drop", "DoesNotExist": "drop"}[row["operator"]]
        if row["operator"] in ("Exists", "DoesNotExist"):
            sources, regex = sources[1:], "true"
        rows.append({"action": action, "source_labels": sources, "regex": regex})
    return rows


def scrape_config(item: Object, number: int, endpoint: Object, kubeconfig: Path, standins: str) -> Object:
    """One scrape configuration from one endpoint of a PodMonitor or ServiceMonitor.

    Labels and their order are the real operator's; at the end the address is replaced by `standins` (host:port), where the pod's page is
    served as /pods/<namespace>/<pod>/metrics. The instance label keeps the pod's own address.
    """
    spec, meta = item["spec"], item["metadata"]
    pods = item["kind"] == "PodMonitor"
    kind, port_label = ("pod", f"{META}_pod_container_port_name") if pods else ("service", f"{META}_endpointslice_port_name")
    chosen: Object = spec.get("namespaceSelector") or {}
    discovery: Object = {"role": "pod" if pods else "endpointslice", "kubeconfig_file": str(kubeconfig)}
    if not chosen.get("any"):
        discovery["namespaces"] = {"names": chosen.get("matchNames") or [meta["namespace"]]}
    port = str(endpoint.get("port", endpoint.get("targetPort", "")))
    rows: list[Object] = [{"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}]
    if pods:
        rows.append({"action": "drop", "source_labels": [f"{META}_pod_phase"], "regex": "(Failed|Succeeded)"})
    rows += keep_selected(kind, spec.get("selector") or {})
    if port:
        by_number = port.isdigit()
        rows.append({"action": "keep", "source_labels": [f"{META}_pod_container_port_number" if by_number else port_label], "regex": port})
    rows += [
        {"source_labels": [f"{META}_namespace"], "target_label": "namespace"},
        {"source_labels": [f"{META}_pod_container_name"], "target_label": "container"},
        {"source_labels": [f"{META}_pod_name"], "target_label": "pod"},
    ]
    if not pods:
        rows.append({"source_labels": [f"{META}_service_name"], "target_label": "service"})
    for key, source in (("targetLabels", "service"), ("podTargetLabels", "pod")):
        for label in spec.get(key) or []:
            rows.append({"source_labels": [f"{META}_{source}_label_{label_name(label)}"], "target_label": label_name(label), "regex": "(.+)"})
    rows.append(
        {"target_label": "job", "replacement": f"{meta['namespace']}/{meta['name']}"}
        if pods
        else {"source_labels": [f"{META}_service_name"], "target_label": "job"}
    )
    if spec.get("jobLabel"):
        rows.append({"source_labels": [f"{META}_{kind}_label_{label_name(spec['jobLabel'])}"], "target_label": "job", "regex": "(.+)"})
    if port:
        rows.append({"target_label": "endpoint", "replacement": port})
    rows += [
        {"source_labels": ["__address__"], "target_label": "instance"},
        *relabelings(endpoint.get("relabelings")),
        {
            "source_labels": [f"{META}_namespace", f"{META}_pod_name"],
            "separator": "/",
            "regex": "(.+)",
            "target_label": "__metrics_path__",
            "replacement": "/pods/$1/metrics",
        },
        {"target_label": "__address__", "replacement": standins},
        {"target_label": "__scheme__", "replacement": "http"},
    ]
    return {
        "job_name": f"{'podMonitor' if pods else 'serviceMonitor'}/{meta['namespace']}/{meta['name']}/{number}",
        "honor_labels": bool(endpoint.get("honorLabels", False)),
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": rows,
        "metric_relabel_configs": relabelings(endpoint.get("metricRelabelings")),
    }


class Monitoring(threading.Thread):
    """Writes `directory`/rules and `directory`/scrape and tells Prometheus at `url` to reload. Start `caches` too."""

    def __init__(self, kube: Kube, directory: Path, url: str, standins: str) -> None:
        super().__init__(name="monitoring", daemon=True)
        self.kube, self.directory, self.url, self.standins = kube, Path(directory).resolve(), url.rstrip("/"), standins
        kinds = ("prometheusrules", "podmonitors", "servicemonitors")
        self.caches = [Cache(kube, GROUP, kind, lambda key, item: self._wake.set()) for kind in kinds]
        self._wake = threading.Event()
        self.problem = ""
        self._first = True
        for folder in ("rules", "scrape"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)

    def write_static(self) -> None:
        """The kube-state-metrics job."""
        config = {
            "job_name": "kube-state-metrics",
            "honor_labels": True,
            "metrics_path": "/kube-state-metrics/metrics",
            "static_configs": [{"targets": [self.standins]}],
        }
        self._replace(self.directory / "scrape" / "kube-state-metrics.yaml", {"scrape_configs": [config]})
        self._wake.set()

    def files(self) -> dict[Path, Object]:
        """{file: content} that the selected objects ask for."""
        wanted: dict[Path, Object] = {}
        for item in (i for cache in self.caches for i in cache.all() if is_selected(i)):
            meta, kind = item["metadata"], item["kind"]
            name = f"{kind.lower()}-{meta['namespace']}-{meta['name']}.yaml"
            if kind == "PrometheusRule":
                wanted[self.directory / "rules" / name] = item["spec"]
                continue
            endpoints = item["spec"].get("podMetricsEndpoints" if kind == "PodMonitor" else "endpoints") or []
            configs = [scrape_config(item, number, endpoint, self.kube.kubeconfig, self.standins) for number, endpoint in enumerate(endpoints)]
            wanted[self.directory / "scrape" / name] = {"scrape_configs": configs}
        return wanted

    def run(self) -> None:
        for cache in self.caches:
            cache.listed.wait()
        while not self.kube.closing.is_set():
            if self._wake.wait(1.0):
                self._wake.clear()
                if self.write():
                    self.problem = self._reload()
            elif self.problem:  # Prometheus was not there yet, or refused: try again
                self.problem = self._reload()

    def write(self) -> bool:
        """Bring the folders up to date; True if a file changed."""
        wanted = self.files()
        changed = [path for path, content in wanted.items() if self._replace(path, content)]
        mine = [
            p
            for folder in ("rules", "scrape")
            for kind in ("prometheusrule", "podmonitor", "servicemonitor")
            for p in (self.directory / folder).glob(f"{kind}-*.yaml")
        ]
        stale = [path for path in mine if path not in wanted]
        for path in stale:
            path.unlink()
        first, self._first = self._first, False  # kube-state-metrics.yaml is new
        return bool(changed or stale or first)

    @staticmethod
    def _replace(path: Path, content: Any) -> bool:
        text = yaml.safe_dump(content, sort_keys=False, width=1000)
        if path.exists() and path.read_text() == text:
            return False
        part = path.with_suffix(".part")
        part.write_text(text)
        part.replace(path)
        return True

    def _reload(self) -> str:
        """Why Prometheus did not take the files, or ""."""
        if not self.url:
            return ""
        try:
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10).close()
        except urllib.error.HTTPError as error:
            problem = f"Prometheus refused: {error.read().decode(errors='replace').strip()}"
        except OSError as error:
            problem = f"Prometheus does not answer: {error}"
        else:
            return ""
        if problem != self.problem:
            LOG.warning("%s", problem)
        return problem

    def state(self) -> dict[str, Any]:
        """Files written, objects ignored for want of the label, the last reload's problem; for GET /state."""
        items = [i for cache in self.caches for i in cache.all()]
        ignored = [f"{i['kind']} {i['metadata']['namespace']}/{i['metadata']['name']}" for i in items if not is_selected(i)]
        return {"files": sorted(str(p) for p in self.files()), "ignored": sorted(ignored), "problem": self.problem}
