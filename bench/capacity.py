# SPDX-License-Identifier: GPL-3.0-or-later
"""CPU seconds of gpu_capacity_check with 100 GPU nodes and 300 pods on a real API server and the AWS double (sandbox/), part by part.

    python bench/capacity.py        # needs the built sandbox: python -m sandbox build

The target is below 2 s for the whole, with AWS and the import of both clients included. A playbook pays for the imports once, in its parent process (the
Kubernetes client) and in the task (boto3).
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import conftest  # noqa: E402, F401  makes llmops.eks importable
from gpu_objects import GPU, gfd, model, node, node_class, node_pool, pod  # noqa: E402

from sandbox.aws.running import running_aws  # noqa: E402
from sandbox.cluster import ControlPlane  # noqa: E402

NODES, PODS, MODELS = 100, 300, 20
TARGET = 2.0


def fleet() -> tuple[list[dict], list[dict]]:
    nodes = [node(f"gpu-{i:03}", "g5.12xlarge", labels=gfd("g5.12xlarge")) for i in range(NODES)]
    pods = [
        pod(f"pod-{i:03}", f"gpu-{i % NODES:03}", {"cpu": "2", "memory": "8Gi", **({GPU: "1"} if i % 3 == 0 else {})}, namespace="default") for i in range(PODS)
    ]
    return nodes, pods


def write(cluster: Any, nodes: list[dict], pods: list[dict]) -> None:
    for item in nodes:
        cluster.request("POST", "/api/v1/nodes", body=item)
    for item in pods:
        container = item["spec"]["containers"][0]["resources"]
        container["limits"] = {name: value for name, value in container["requests"].items() if name == GPU}
        item["spec"]["tolerations"] = [{"operator": "Exists"}]
        cluster.request("POST", "/api/v1/namespaces/default/pods", body={**item, "status": {}})


def measured(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """(answer, CPU seconds, wall seconds)."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = function()
    return answer, time.process_time() - cpu, time.perf_counter() - wall


def imports() -> dict[str, Any]:
    names = ("_aws", "_capacity", "_capacity_aws", "_capacity_cluster", "_capacity_context", "_capacity_wants", "_kube")
    return {name: importlib.import_module(f"ansible_collections.llmops.eks.plugins.module_utils.{name}") for name in names}


def main() -> None:
    known, imported, _wall = measured(imports)
    kube, context = known["_kube"], known["_capacity_context"]
    models = [model(f"m{i}", gpus=2, instance_types=("g5.12xlarge",), replicas={"min": 2, "max": 6}) for i in range(MODELS)]
    planned = [{**node_pool(types=("g5.12xlarge",), limit="64"), "kind": "NodePool"}, {**node_class(), "kind": "EC2NodeClass"}]
    request = context.Request(models, "2026-11", planned=planned, cluster_name="demo")
    with tempfile.TemporaryDirectory() as folder, running_aws(Path(folder)) as aws, ControlPlane(Path(folder) / "cluster") as plane:
        os.environ.update(aws.env)
        params = {"kubeconfig": str(plane.kubeconfig), "region": aws.region}
        write(kube.connect(params), *fleet())
        objects, read, wall_read = measured(lambda: known["_capacity_cluster"].read(kube.connect(params)))
        (rows, alone, _wall) = measured(lambda: known["_capacity"].run(context.build(request, objects)))
        session, login, _wall = measured(lambda: known["_aws"].login(params))
        wants = known["_capacity_wants"].wants(context.build(request, objects))
        account, asked, wall_asked = measured(lambda: known["_capacity_aws"].read(session, wants))
        again, _cpu, wall_again = measured(lambda: known["_capacity_aws"].read(session, wants))
        (rows, judged, _wall) = measured(lambda: known["_capacity"].run(context.build(request, objects, account)))
    assert len(objects.nodes) == NODES, len(objects.nodes)
    assert len(objects.pods) == PODS, len(objects.pods)
    assert not account.missed, account.missed
    assert again.quotas == account.quotas
    without, total = imported + read + alone, imported + read + login + asked + judged
    print(f"{NODES} nodes, {PODS} pods, {MODELS} models, {len(rows)} rows")
    print(f"CPU s without AWS: import {imported:.2f}, read {read:.2f} (wall {wall_read:.2f}), check {alone:.2f}, total {without:.2f}")
    print(f"CPU s with AWS: login {login:.2f}, calls {asked:.2f} (wall {wall_asked:.2f}, again {wall_again:.2f}), check {judged:.2f}, total {total:.2f}")
    if total > TARGET:
        sys.exit(f"found {total:.2f} s; needed at most {TARGET} s")


if __name__ == "__main__":
    main()
