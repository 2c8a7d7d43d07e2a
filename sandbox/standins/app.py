# SPDX-License-Identifier: GPL-3.0-or-later
"""All stand-ins in one process: who watches what, and who answers which page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dcgm import exporter_page
from .gpu_operator import GpuOperator
from .http_api import HttpApi
from .kube import Cache, Kube, Object
from .kube_state_metrics import page as kube_state_page
from .local_pods import LocalAgent
from .monitoring import Monitoring
from .pod_access import PodAccess
from .pod_status import Addresses
from .settings import Settings
from .vllm_pods import VllmAgent
from .volumes import Volumes

LIST_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """Command line of the process. `load_seconds` from start to ready; `time_scale` shortens a kubelet's waits."""

    kubeconfig: Path
    control_port: int
    state_dir: Path
    prometheus_dir: Path
    prometheus_url: str = ""
    load_seconds: float = 3.0
    time_scale: float = 0.1


class StandIns:
    """Start with `start`, end with `stop`; `url` is the control API."""

    def __init__(self, options: Options) -> None:
        options.state_dir.mkdir(parents=True, exist_ok=True)
        self.kube = Kube(options.kubeconfig)
        self.settings = Settings(options.load_seconds, options.time_scale)
        state_dir = options.state_dir.resolve()
        access, addresses = PodAccess(self.kube, state_dir), Addresses()
        self.vllm = VllmAgent(self.kube, self.settings, access, addresses, state_dir)
        self.local = LocalAgent(self.kube, self.settings, access, addresses, state_dir)
        self.volumes = Volumes(self.kube, state_dir)
        self.api = HttpApi(options.control_port, self._actions(), self.state, self.page)
        self.nodes = Cache(self.kube, "v1", "nodes", lambda key, item: self.operator.wake())
        self.pods = Cache(self.kube, "v1", "pods", self._on_pod)
        self.claims = Cache(self.kube, "v1", "persistentvolumeclaims", self.volumes.on_claim)
        self.policies = Cache(self.kube, "nvidia.com/v1", "clusterpolicies", lambda key, item: self.operator.wake())
        self.operator = GpuOperator(self.kube, self.settings, self.nodes, self.policies)
        self.monitoring = Monitoring(self.kube, options.prometheus_dir, options.prometheus_url, f"127.0.0.1:{self.api.port}")
        self._threads: list[threading.Thread] = [self.nodes, self.pods, self.claims, self.policies, self.operator, self.monitoring, *self.monitoring.caches]

    @property
    def url(self) -> str:
        """The control API's address."""
        return f"http://127.0.0.1:{self.api.port}"

    def start(self) -> None:
        """Begin to watch and answer; returns when every watch has seen the present state. Raises RuntimeError when one does not come to see it."""
        self.volumes.create_class()
        for thread in self._threads:
            thread.start()
        for cache in (self.nodes, self.pods, self.claims, self.policies, *self.monitoring.caches):
            if not cache.listed.wait(LIST_SECONDS):
                raise RuntimeError(f"found no answer to {cache.path} in {LIST_SECONDS:.0f} s; needed: an API server; look at kubeall.log beside this log")
        self.monitoring.write_static()
        self.api.start()

    def stop(self) -> None:
        """End every server, process and watch."""
        self.kube.closing.set()
        with self.settings.changed:
            self.settings.changed.notify_all()
        self.local.stop()
        self.api.stop()

    def _on_pod(self, key: tuple[str, str], pod: Object | None) -> None:
        self.vllm.on_pod(key, pod)
        self.local.on_pod(key, pod)

    def _actions(self) -> dict[str, Any]:
        settings = self.settings

        def load(model: str, concurrency: float, kv_cache_usage: float | None = None) -> None:
            settings.set_load(model, concurrency, kv_cache_usage)
            self.vllm.spread()

        def node(name: str, **faults: Any) -> None:
            settings.set_node(name, **faults)
            self.operator.wake()

        def operator(reason: str = "", message: str = "") -> None:
            settings.set_operator(reason, message)
            self.operator.wake()

        return {"/load": load, "/model": settings.set_model, "/image": settings.set_image, "/node": node, "/operator": operator}

    def state(self) -> dict[str, Any]:
        """For GET /state."""
        return {
            "settings": self.settings.to_dict(),
            "vllm_pods": self.vllm.state(),
            "local_pods": self.local.state(),
            "monitoring": self.monitoring.state(),
            "volumes": str(self.volumes.folder),
        }

    def page(self, path: str) -> str | None:
        """Metrics pages: /kube-state-metrics/metrics and /pods/<namespace>/<pod>/metrics."""
        if path == "/kube-state-metrics/metrics":
            return kube_state_page(self.nodes.all())
        parts = path.strip("/").split("/")
        if len(parts) != 4 or (parts[0], parts[3]) != ("pods", "metrics"):
            return None
        key = (parts[1], parts[2])
        if server := self.vllm.servers().get(key):
            return server.engine.metrics()
        pod = self.pods.get(*key)
        return exporter_page(pod, self.nodes, self.pods, self.settings) if pod else None
