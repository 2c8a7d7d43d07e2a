# SPDX-License-Identifier: GPL-3.0-or-later
"""What a scaler's query returned, and what the HPA would make of it. Pure: the caller asks Prometheus."""

from __future__ import annotations

import math
import re
from typing import Any

from ._problems import problem

# kube-controller-manager's --horizontal-pod-autoscaler-tolerance
TOLERANCE = 0.1


def replicas(value: float, threshold: float, current: int, minimum: int, maximum: int) -> int:
    """The HPA's answer for an AverageValue metric: absolute, not one more; unchanged within its tolerance."""
    within = current and abs(value / (threshold * current) - 1) <= TOLERANCE
    wanted = current if within else math.ceil(value / threshold)
    return max(max(1, minimum), min(maximum, wanted))


def selectors(query: str) -> list[tuple[str, dict[str, str]]]:
    """[(metric, {label: matcher text})] of all selectors in a query, e.g. ('up', {'job': 'job="x"'})."""
    found = []
    for metric, inner in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", query):
        matchers = re.findall(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")', inner)
        found.append((metric, {label: f"{label}{operator}{value}" for label, operator, value in matchers}))
    return found


def explain_empty(query: str, exists: dict[str, int]) -> str:
    """Why an expression has no result. `exists` maps each expression of `probes(query)` to its number of series."""
    for metric, labels in selectors(query):
        whole = f"{metric}{{{','.join(labels.values())}}}"
        if exists.get(whole):
            continue
        if not exists.get(metric):
            return f"no series {metric} at all: the pods are not scraped, or no replica is up"
        for matcher in labels.values():
            if not exists.get(f"{metric}{{{matcher}}}"):
                return f"{metric} exists, but none has {matcher}"
        return f"{metric} exists, but no series has all of {', '.join(labels.values())}"
    return "each series exists, but the expression joins them on labels that differ"


def probes(query: str) -> list[str]:
    """Expressions whose series counts explain_empty needs."""
    wanted: list[str] = []
    for metric, labels in selectors(query):
        wanted += [metric, f"{metric}{{{','.join(labels.values())}}}", *(f"{metric}{{{matcher}}}" for matcher in labels.values())]
    return list(dict.fromkeys(wanted))


def check_result(name: str, query: str, result: list[dict[str, Any]], why_empty: str) -> tuple[float | None, list[dict[str, str]]]:
    """(value, problems) of an instant query's vector: KEDA needs exactly one number."""
    if len(result) > 1:
        differing = sorted({label for row in result for label in row["metric"] if len({r["metric"].get(label) for r in result}) > 1})
        return None, [
            problem(
                "query_many",
                name,
                f"{len(result)} results, differing in {', '.join(differing) or 'nothing visible'}, for {query}",
                "exactly one number: KEDA fails on more",
                "aggregate with sum() or max()",
            )
        ]
    if not result:
        return None, [
            problem(
                "query_empty",
                name,
                f"no result for {query} ({why_empty})",
                "exactly one number: no result would keep the fallback, or read as no load",
                "correct the labels, or make Prometheus scrape the servers (role gpu_monitoring)",
            )
        ]
    value = float(result[0]["value"][1])
    if math.isnan(value) or math.isinf(value):
        return None, [problem("query_nan", name, f"{value} for {query}", "a finite number", "guard the division in the query against 0")]
    return value, []
