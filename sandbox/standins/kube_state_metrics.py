# SPDX-License-Identifier: GPL-3.0-or-later
"""The node series of kube-state-metrics that GPU alerts need; everything else that it exports is missing."""

from __future__ import annotations

import re

from .kube import Object

UNITS = {"cpu": "core", "memory": "byte", "ephemeral_storage": "byte", "pods": "integer"}
SCALES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", str(text))
    return float(match[1]) * SCALES.get(match[2], 1) if match else 0.0


def name_of(text: str) -> str:
    """A resource or label name as it stands in a series: every other character is an underscore."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def escaped(text: str) -> str:
    """A label value in Prometheus' text format."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def page(nodes: list[Object]) -> str:
    """kube_node_status_capacity, kube_node_status_allocatable and kube_node_labels (all labels, as with --metric-labels-allowlist=nodes=[*])."""
    lines: list[str] = []
    for field in ("capacity", "allocatable"):
        series = f"kube_node_status_{field}"
        lines += [f"# HELP {series} The {field} for different resources of a node.", f"# TYPE {series} gauge"]
        for node in nodes:
            for resource, amount in node.get("status", {}).get(field, {}).items():
                short = name_of(resource)
                unit = UNITS.get(short, "integer")
                lines.append(f'{series}{{node="{node["metadata"]["name"]}",resource="{short}",unit="{unit}"}} {quantity(amount)!r}')
    lines += ["# HELP kube_node_labels Kubernetes labels converted to Prometheus labels.", "# TYPE kube_node_labels gauge"]
    for node in nodes:
        labels = {"node": node["metadata"]["name"], **{f"label_{name_of(k)}": v for k, v in (node["metadata"].get("labels") or {}).items()}}
        lines.append("kube_node_labels{" + ",".join(f'{k}="{escaped(v)}"' for k, v in labels.items()) + "} 1")
    return "\n".join(lines) + "\n"
