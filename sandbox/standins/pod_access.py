# SPDX-License-Identifier: GPL-3.0-or-later
"""Make `kubectl logs` and `kubectl port-forward` work for the stand-ins' pods: KWOK serves both through the API server.

KWOK follows the objects ClusterLogs and ClusterPortForward; each of our pods gets one of each, named `<namespace>.<pod>`.
"""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime
from pathlib import Path

from .kube import LOG, Kube, KubeError, Object, path_of

GROUP = "kwok.x-k8s.io/v1alpha1"
KINDS = {"clusterlogs": "ClusterLogs", "clusterportforwards": "ClusterPortForward"}


class PodLog:
    """The log file of one container in the kubelet's format, with the previous run's file beside it."""

    def __init__(self, folder: Path, container: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{container}.log"
        self.previous = folder / f"{container}.previous.log"
        self._lock = threading.Lock()
        for path in (self.path, self.previous):
            path.touch()

    def write(self, text: str, stream: str = "stdout") -> None:
        """Append lines, each with time stamp and stream."""
        with self._lock, self.path.open("a") as out:
            for line in text.splitlines():
                out.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z {stream} F {line}\n")

    def rotate(self) -> None:
        """A new run begins."""
        with self._lock:
            self.path.replace(self.previous)
            self.path.touch()

    def tail(self, lines: int = 80, characters: int = 2048) -> str:
        """The end of the text without time stamps, as terminationMessagePolicy FallbackToLogsOnError takes it."""
        rows = [row.split(" ", 3)[3] for row in self.path.read_text(errors="replace").splitlines() if row.count(" ") >= 3]
        return "\n".join(rows[-lines:])[-characters:]


class PodAccess:
    """Tells KWOK where the logs and ports of pods are. `state_dir`/logs holds the files."""

    def __init__(self, kube: Kube, state_dir: Path) -> None:
        self.kube = kube
        self.folder = Path(state_dir).resolve() / "logs"

    def log(self, pod: Object, container: str) -> PodLog:
        """The log of one container."""
        meta = pod["metadata"]
        return PodLog(self.folder / f"{meta['namespace']}_{meta['name']}_{meta['uid']}", container)

    def publish(self, pod: Object, forwards: dict[int, int] | None = None) -> None:
        """Serve the pod's logs; `forwards` maps container ports to ports of 127.0.0.1."""
        meta = pod["metadata"]
        containers = [c["name"] for c in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]]
        logs = {name: self.log(pod, name) for name in containers}
        self._write(
            "clusterlogs",
            meta,
            {"logs": [{"containers": [name], "logsFile": str(log.path), "previousLogsFile": str(log.previous), "follow": True} for name, log in logs.items()]},
        )
        if forwards:
            self._write(
                "clusterportforwards",
                meta,
                {"forwards": [{"ports": [port], "target": {"address": "127.0.0.1", "port": local}} for port, local in forwards.items()]},
            )

    def _write(self, plural: str, meta: Object, spec: Object) -> None:
        name = f"{meta['namespace']}.{meta['name']}"
        selector = {"matchNamespaces": [meta["namespace"]], "matchNames": [meta["name"]]}
        body = {"apiVersion": GROUP, "kind": KINDS[plural], "metadata": {"name": name}, "spec": {"selector": selector, **spec}}
        try:
            self.kube.apply(path_of(GROUP, plural, name=name), body)
        except KubeError as error:
            if error.code != 404:  # without KWOK's CRDs there is nobody to serve them either
                LOG.warning("%s %s: %s", plural, name, error)

    def withdraw(self, namespace: str, name: str) -> None:
        """The pod is gone."""
        for plural in KINDS:
            with contextlib.suppress(KubeError, OSError):
                self.kube.delete(path_of(GROUP, plural, name=f"{namespace}.{name}"))
