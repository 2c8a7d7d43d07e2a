# SPDX-License-Identifier: GPL-3.0-or-later
"""The same objects by llmops.eks.apply, Helm, kubectl and kubernetes.core.k8s: seconds and writes, first run and unchanged runs, in one session.

    python bench/apply.py [--objects 50] [--runs 3]        # needs the built sandbox: python -m sandbox build

Each tool runs as a whole process, as a person would start it, against one real API server (sandbox/), in turn, so that a noisy machine is noisy for all.
Printed: minimum over the runs of wall and CPU seconds (the tool and its children), the ratio to Helm, and the writes the API server's audit log shows.
Every tool has a namespace of its own; the objects are ConfigMaps and Services with some labels, because the API server has no part in what pods do.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sandbox import build, writes  # noqa: E402
from sandbox.cluster import ControlPlane  # noqa: E402

BIN = Path(sys.executable).parent


@dataclass
class Tool:
    name: str
    argv: list[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)


def objects(namespace: str, count: int) -> list[dict[str, Any]]:
    labels = {"app.kubernetes.io/part-of": "bench", "app.kubernetes.io/managed-by": "bench"}
    made = []
    for number in range(count):
        metadata = {"name": f"bench-{number:03}", "namespace": namespace, "labels": labels}
        if number % 2:
            made.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {f"key-{i}": "value " * 8 for i in range(8)}})
        else:
            port = {"name": "http", "port": 8000, "targetPort": "http", "protocol": "TCP"}
            made.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": {"app": f"bench-{number}"}, "ports": [port]}})
    return made


def play(folder: Path, name: str, module: str, arguments: dict[str, Any]) -> list[str]:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump([{"name": name, "hosts": "localhost", "gather_facts": False, "tasks": [{"name": name, module: arguments}]}]))
    return [str(BIN / "ansible-playbook"), "-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", str(path)]


def tools(folder: Path, count: int) -> list[Tool]:
    chart = folder / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: bench\nversion: 1.0.0\n")
    (chart / "templates" / "objects.yaml").write_text(yaml.safe_dump_all(objects("by-helm", count)))
    manifest = folder / "objects.yaml"
    manifest.write_text(yaml.safe_dump_all(objects("by-kubectl", count)))
    return [
        Tool("helm upgrade --install", ["helm", "upgrade", "--install", "bench", str(chart), "-n", "by-helm"]),
        Tool("kubectl apply --server-side", [str(build.home() / "bin" / "kubeall"), "kubectl", "apply", "--server-side", "-f", str(manifest)]),
        Tool("llmops.eks.apply, one task", play(folder, "ours", "llmops.eks.apply", {"definitions": objects("by-ours", count)})),
        Tool("kubernetes.core.k8s, one task", play(folder, "core", "kubernetes.core.k8s", {"definition": objects("by-core", count), "apply": True})),
    ]


def written(log: Path) -> int:
    with log.open() as lines:
        return writes.of_kubernetes(lines).total()


def measure(tool: Tool, env: dict[str, str], log: Path) -> None:
    before, usage, started = written(log), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(tool.argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{tool.name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    tool.wall.append(wall)
    tool.cpu.append(after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime)
    tool.writes.append(written(log) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3, help="unchanged runs of each tool")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ControlPlane(Path(name) / "cluster") as plane:
        env = {
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig),
            "PATH": f"{build.home() / 'bin'}:{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        }
        racing = tools(Path(name), options.objects)
        for namespace in ("by-helm", "by-kubectl", "by-ours", "by-core"):
            subprocess.run([str(plane.binary), "kubectl", "create", "namespace", namespace], env=env, check=True, capture_output=True)
        for _run in range(1 + options.runs):
            for tool in racing:
                measure(tool, env, plane.audit_log)
    print(f"{options.objects} objects; the first run creates them, {options.runs} more change nothing (minimum shown)")
    print(f"{'':32} {'create s':>9} {'writes':>7} {'unchanged s':>12} {'CPU s':>6} {'writes':>7} {'x Helm':>7}")
    helm = min(racing[0].wall[1:])
    for tool in racing:
        wall, cpu = min(tool.wall[1:]), min(tool.cpu[1:])
        print(f"{tool.name:32} {tool.wall[0]:9.2f} {tool.writes[0]:7d} {wall:12.2f} {cpu:6.2f} {max(tool.writes[1:]):7d} {wall / helm:7.2f}")


if __name__ == "__main__":
    main()
