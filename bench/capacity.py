# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU seconds of gpu_capacity_check with 100 GPU nodes and 300 pods on a real API server (sandbox/), and of its pure half alone.

    python bench/capacity.py        # needs the built sandbox: python -m sandbox build

The target is below 2 s for the whole, the import of the Kubernetes client included.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "integration")]

import conftest  # noqa: E402, F401  makes llmops.eks importable
from gpu_objects import GPU, gfd, model, node, node_pool, pod  # noqa: E402

from sandbox.cluster import ControlPlane  # noqa: E402

NODES, PODS, MODELS = 100, 300, 20
TARGET = 2.0


def fleet() -> tuple[list[dict], list[dict]]:
    nodes = [node(f"gpu-{i:03}", "g5.12xlarge", labels=gfd("g5.12xlarge")) for i in range(NODES)]
    pods = [
        pod(f"pod-{i:03}", f"gpu-{i % NODES:03}", {"cpu": "2", "memory": "8Gi", **({GPU: "1"} if i % 3 == 0 else {})}, namespace="default") for i in range(PODS)
    ]
    return nodes, pods


def write(cluster, nodes: list[dict], pods: list[dict]) -> None:
    while not cluster.get("/api/v1/namespaces/default/serviceaccounts/default"):
        time.sleep(0.2)
    for item in nodes:
        cluster.request("POST", "/api/v1/nodes", body=item)
    for item in pods:
        container = item["spec"]["containers"][0]["resources"]
        container["limits"] = {name: value for name, value in container["requests"].items() if name == GPU}
        item["spec"]["tolerations"] = [{"operator": "Exists"}]
        cluster.request("POST", "/api/v1/namespaces/default/pods", body={**item, "status": {}})


def main() -> None:
    start = time.process_time()
    from ansible_collections.llmops.eks.plugins.module_utils import _capacity, _capacity_cluster, _capacity_context, _kube

    imported = time.process_time() - start
    models = [model(f"m{i}", gpus=2, instance_types=("g5.12xlarge",), replicas={"min": 2, "max": 6}) for i in range(MODELS)]
    nodes, pods = fleet()
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder)) as plane:
        params = {"kubeconfig": str(plane.kubeconfig)}
        write(_kube.connect(params), nodes, pods)
        start, wall = time.process_time(), time.perf_counter()
        objects = _capacity_cluster.read(_kube.connect(params))
        read, wall_read = time.process_time() - start, time.perf_counter() - wall
    objects = _capacity_context.Objects(objects.nodes, objects.pods, [node_pool(limit="64")], [])
    start = time.process_time()
    rows = _capacity.run(_capacity_context.build(models, objects, "2026-11"))
    judged = time.process_time() - start
    assert len(objects.nodes) == NODES, len(objects.nodes)
    assert len(objects.pods) == PODS, len(objects.pods)
    total = imported + read + judged
    print(f"{NODES} nodes, {PODS} pods, {MODELS} models, {len(rows)} rows")
    print(f"CPU s: import {imported:.2f}, read {read:.2f} (wall {wall_read:.2f}), check {judged:.2f}, total {total:.2f}")
    if total > TARGET:
        sys.exit(f"found {total:.2f} s; needed at most {TARGET} s")


if __name__ == "__main__":
    main()
