# SPDX-License-Identifier: GPL-3.0-or-later
"""What nvidia-smi says of a node's boards, and which pod of the node to ask. Pure; _gpu_nodes_exec runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _drivers

COMMAND = ("nvidia-smi", "--query-gpu=driver_version,name,memory.total,compute_cap", "--format=csv,noheader,nounits")

# Pods with nvidia-smi, best first: labels, part of the container's name, and whether they see all boards of the node or only their own.
_PODS = (
    ({"app": "nvidia-driver-daemonset"}, "driver", True),
    ({"app": "nvidia-device-plugin-daemonset"}, "device-plugin", True),
    ({"app.kubernetes.io/name": "nvidia-device-plugin"}, "device-plugin", True),
    ({"app": "nvidia-dcgm-exporter"}, "exporter", True),
    ({"app.kubernetes.io/name": "vllm"}, "vllm", False),
)


@dataclass(frozen=True)
class Where:
    """A container to run it in. `all_boards`: it sees every board of the node."""

    node: str
    namespace: str
    pod: str
    container: str
    all_boards: bool


@dataclass(frozen=True)
class Boards:
    """One row a board: (driver, product, memory in MiB, compute capability); what nvidia-smi could not tell is None."""

    rows: tuple[tuple[_drivers.Driver | None, str, int | None, str | None], ...]
    all_boards: bool


def where(pods: Iterable[Mapping[str, Any]], nodes: Iterable[str]) -> list[Where]:
    """The best running pod of each node that has one."""
    wanted, best = set(nodes), {}
    for pod in pods:
        node, labels = pod["spec"].get("nodeName"), pod["metadata"].get("labels") or {}
        if node not in wanted or (pod.get("status") or {}).get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
            continue
        for rank, (marks, part, everything) in enumerate(_PODS):
            if all(labels.get(key) == value for key, value in marks.items()) and rank < best.get(node, (len(_PODS),))[0]:
                names = [container["name"] for container in pod["spec"]["containers"]]
                container = next((name for name in names if part in name), names[0])
                best[node] = (rank, Where(node, pod["metadata"]["namespace"], pod["metadata"]["name"], container, everything))
    return [place for _rank, place in best.values()]


def parse(text: str, all_boards: bool) -> Boards | None:
    """From the output of COMMAND; None when no line of it can be read (an error message, no driver)."""
    rows = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and re.fullmatch(r"\d+(\.\d+)+", parts[0]):
            version, product, memory, capability = parts
            rows.append((
                _drivers.driver(version), product.replace(" ", "-"), int(memory) if memory.isdigit() else None,
                capability if re.fullmatch(r"\d+\.\d+", capability) else None,
            ))  # fmt: skip
    return Boards(tuple(rows), all_boards) if rows else None
