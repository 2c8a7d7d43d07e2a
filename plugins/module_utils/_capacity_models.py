# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse models that are not planned ones and objects that are no node pools, before anything is asked of the cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ._gpu_nodes_resources import quantity
from ._problems import problem


def check_models(models: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each key of a present model that is missing or cannot be read."""
    rows = []
    for index, model in enumerate(models):
        if model.get("state", "present") != "present":
            continue
        subject = f"model {model.get('name') or f'number {index + 1}'}"
        for key in ("name", "image"):
            if not isinstance(model.get(key), str) or not model[key]:
                rows.append(_row(subject, key, model.get(key), "text"))
        if not _whole(model.get("gpus")):
            rows.append(_row(subject, "gpus", model.get("gpus"), "a number of at least 1"))
        for key in ("cpu", "memory"):
            value = (model.get("resources") or {}).get(key)
            if value is not None and not _readable(value):
                rows.append(_row(subject, f"resources.{key}", value, "a Kubernetes quantity such as 3500m or 12Gi"))
        for key, value in (model.get("replicas") or {}).items():
            if not str(value).isdigit():
                rows.append(_row(subject, f"replicas.{key}", value, "a whole number"))
    return rows


def check_node_pools(objects: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each object that is neither a NodePool nor an EC2NodeClass, or lacks its name or specification."""
    rows = []
    for index, item in enumerate(objects):
        name, kind = (item.get("metadata") or {}).get("name"), item.get("kind")
        if kind not in ("NodePool", "EC2NodeClass") or not name or not isinstance(item.get("spec"), Mapping):
            rows.append(
                problem("node_pools", f"node_pools[{index}]", f"kind {kind!r}, name {name!r}", "a NodePool or EC2NodeClass object with metadata.name and spec",
                        "pass the fact karpenter_gpu_objects, which the checks of the role karpenter_gpu set")
            )  # fmt: skip
    return rows


def _whole(value: object) -> bool:
    return str(value).isdigit() and int(str(value)) > 0


def _readable(value: object) -> bool:
    try:
        return quantity(value) >= 0
    except ValueError:
        return False


def _row(subject: str, key: str, found: object, needed: str) -> dict[str, str]:
    return problem("model", subject, f"{key} {found!r}", f"{key}: {needed}", "pass the models that llmops.eks.llm_plan returns")
