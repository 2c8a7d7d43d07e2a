# SPDX-License-Identifier: GPL-3.0-or-later
"""Run nvidia-smi in pods through the API server, as `kubectl exec` does. Controller side only; starts a process in a pod and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ._gpu_nodes_smi import COMMAND, Boards, Where, parse
from ._kube import Cluster

AT_ONCE = 8
SECONDS = 20


def boards(cluster: Cluster, places: Iterable[Where]) -> tuple[dict[str, Boards], list[str]]:
    """({node: boards}, what went wrong, one clause a pod)."""
    places = list(places)
    if cluster.impersonates:
        return {}, [f"pods/exec in {place.namespace}/{place.pod}: not done as another user (impersonate_user)" for place in places]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = dict(zip((place.node for place in places), threads.map(lambda place: _run(cluster, place), places), strict=True))
    found = {node: answer for node, answer in answers.items() if isinstance(answer, Boards)}
    return found, sorted(answer for answer in answers.values() if isinstance(answer, str))


def _run(cluster: Cluster, place: Where) -> Boards | str:
    # Imported here: few runs want it, and it brings a websocket client.
    from kubernetes import client as kube
    from kubernetes.stream import stream
    from websocket import WebSocketException

    name = f"{place.namespace}/{place.pod}"
    # stream() swaps a method of its client while it connects: each thread needs one of its own.
    own = kube.ApiClient(cluster.client.configuration)
    own.default_headers.update(cluster.client.default_headers)
    try:
        running: Any = stream(
            kube.CoreV1Api(own).connect_get_namespaced_pod_exec, place.pod, place.namespace, container=place.container, command=list(COMMAND),
            stdout=True, stderr=True, stdin=False, tty=False, _preload_content=False, _request_timeout=SECONDS,
        )  # fmt: skip
    except kube.ApiException as error:
        return f"pods/exec in {name}: {(error.reason or str(error)).partition(' -+-+-')[0]}"
    try:
        running.run_forever(timeout=SECONDS)
        text, errors = running.read_stdout(timeout=1) or "", running.read_stderr(timeout=1) or ""
    except (WebSocketException, OSError) as error:
        return f"pods/exec in {name}: {error}"
    finally:
        running.close()
    return parse(text, place.all_boards) or f"nvidia-smi in {name}: {(errors or text).strip()[:200] or 'no output'}"
