# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan in a few figures a model, and as a table of text. Pure; planned models are those of docs/architecture.md, "The model list"."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from ._problems import sentence

WIDTH = 109  # of 120 columns, Ansible takes 8 for its indentation and 3 for quotes and comma when it prints JSON
GAP = "  "
HEADER = ("model", "instance", "KV tokens", "requests", "$/hour", "$/1M tokens", "start s", "verdict", "spare GiB")
TEXT_COLUMNS = (0, 1, 7)


def present(models: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [model for model in models if model["state"] == "present"]


def summary(models: Iterable[Mapping[str, Any]], problems: Iterable[Mapping[str, str]] = ()) -> list[dict[str, Any]]:
    """One small dict a present model: {name, verdict, margin_gib, instance_type, tensor_parallel_size, pipeline_parallel_size, gpus, replicas: {min, max},
    kv_tokens, concurrent_requests, usd_per_hour: {min, max}, usd_per_million_tokens: {low, high}, startup_seconds, warnings: [sentence]}.

    What is not known is None. usd_per_hour is what all nodes of the model cost at the fewest and at the most replicas.
    """
    rows = list(problems)
    return [_figures(model, [sentence(row) for row in rows if row["subject"] == model["name"]]) for model in present(models)]


def _figures(model: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    fit, choice = model.get("fit") or {}, model.get("choice") or {}
    return {
        "name": str(model["name"]),
        "verdict": str(choice.get("verdict") or fit.get("verdict") or "UNKNOWN"),
        "margin_gib": _rounded(choice.get("margin_gib"), 2),
        "instance_type": str(choice.get("instance_type") or model["instance_types"][0]),
        "tensor_parallel_size": model["tensor_parallel_size"],
        "pipeline_parallel_size": model["pipeline_parallel_size"],
        "gpus": model["gpus"],
        "replicas": {"min": model["replicas"]["min"], "max": model["replicas"]["max"]},
        "kv_tokens": choice.get("kv_tokens"),
        "concurrent_requests": _rounded(choice.get("concurrent_requests"), 1),
        "usd_per_hour": _hourly(model, choice),
        "usd_per_million_tokens": _money(choice.get("usd_per_million_tokens")),
        "startup_seconds": choice.get("startup_seconds"),
        "warnings": warnings,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _money(tokens: Mapping[str, Any] | None) -> dict[str, float] | None:
    return {"low": round(tokens["low"], 2), "high": round(tokens["high"], 2)} if tokens else None


def nodes(model: Mapping[str, Any], choice: Mapping[str, Any], replicas: int) -> int:
    """Nodes of the chosen type that hold so many replicas, when nothing else runs on them."""
    return -(-replicas // max(1, choice["gpus_on_node"] // model["gpus"]))


def price(model: Mapping[str, Any], candidate: Mapping[str, Any]) -> float | None:
    """USD an hour of one node: the lowest of the capacity types that the model may run on; as the ranking, on demand where no spot price is known."""
    prices = candidate.get("usd_per_hour") or {}
    known = [prices.get(kind.replace("-", "_")) for kind in model["capacity_types"]]
    return min((value for value in known if value is not None), default=prices.get("on_demand") if bounded(model, candidate) else None)


def bounded(model: Mapping[str, Any], candidate: Mapping[str, Any]) -> bool:
    """Whether the figures in USD are those on demand, as an upper bound: only spot is allowed, and nobody knows its prices (_prices.Prices.best)."""
    return bool(candidate.get("usd_per_million_tokens")) and list(model["capacity_types"]) == ["spot"] and candidate["usd_per_hour"]["spot"] is None


def _hourly(model: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, float] | None:
    hour = price(model, choice)
    return None if hour is None else {end: round(hour * nodes(model, choice, model["replicas"][end]), 4) for end in ("min", "max")}


def table(models: Iterable[Mapping[str, Any]], problems: Iterable[Mapping[str, str]] = (), width: int = WIDTH) -> list[str]:
    """Lines of at most `width` characters: the header with units, one row a present model, the sum of the prices, what the figures mean, warnings."""
    models, problems = list(models), list(problems)
    rows = summary(models)
    cells = [HEADER, *(_cells(row) for row in rows)]
    if len(rows) > 1:
        cells.append((total_label(rows), "", "", "", span(total(rows), "min", "max"), "", "", "", ""))
    lines = _aligned(cells, width) if rows else ["No model is to be served."]
    leaving = [str(model["name"]) for model in models if model["state"] != "present"]
    if leaving:
        lines += ["", *_wrapped(f"removed: {', '.join(leaving)}", width)]
    if rows:
        lines += ["", *(line for note in notes(present(models)) for line in _wrapped(note, width))]
    if problems:
        lines += ["", *(line for row in problems for line in _wrapped(f"{row['severity']}: {sentence(row)}", width))]
    return lines


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        f"{row['instance_type']} {parallel(row)}",
        _or_dash(row["kv_tokens"], "{:,}"),
        _or_dash(row["concurrent_requests"], "{:.0f}"),
        span(row["usd_per_hour"], "min", "max"),
        span(row["usd_per_million_tokens"], "low", "high"),
        _or_dash(row["startup_seconds"], "{:.0f}"),
        row["verdict"],
        _or_dash(row["margin_gib"], "{:.1f}"),
    )


def parallel(row: Mapping[str, Any]) -> str:
    """`tp4`, or `tp4 pp2`."""
    stages = row["pipeline_parallel_size"]
    return f"tp{row['tensor_parallel_size']}" + (f" pp{stages}" if stages > 1 else "")


def span(values: Mapping[str, float] | None, low: str, high: str, dash: str = "-") -> str:
    """`0.80-3.22`, one figure when both are alike, a dash when they are not known."""
    if not values:
        return dash
    first, last = f"{values[low]:,.2f}", f"{values[high]:,.2f}"
    return first if first == last else f"{first}{dash}{last}"


def _or_dash(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def notes(models: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the columns mean, and where the prices come from. `models` are present."""
    models = list(models)
    choices = [model["choice"] for model in models if model.get("choice")]
    lengths = sorted({model["fit"]["expected_tokens"] for model in models if model.get("fit") and model["fit"]["expected_tokens"]})
    prices = sorted({choice["price_source"] for choice in choices})
    found = ["KV tokens, requests, start: of one replica. spare: what one request of max_model_len leaves of a GPU's KV cache."]
    if lengths:
        found.append(f"requests: at once, of the expected {' or '.join(f'{length:,}' for length in lengths)} tokens, prompt and answer together.")
    if prices:
        kinds = sorted({kind for model in models for kind in (["on-demand"] if bounded(model, model.get("choice") or {}) else model["capacity_types"])})
        found.append(f"$/hour: nodes at the {' or '.join(kinds)} price, at the fewest and at the most replicas; {'; '.join(prices)}.")
    if any(bounded(model, model.get("choice") or {}) for model in models):
        found.append("No spot price is known: all $ of models on spot are those on demand, an upper bound.")
    shares = next((choice["usd_per_million_tokens"]["utilisation"] for choice in choices if choice["usd_per_million_tokens"]), None)
    if shares:
        found.append(f"$/1M tokens: output tokens, from {shares[0]:.0%} to {shares[1]:.0%} use of the replica.")
    return found


def total(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The sum of the usd_per_hour that are known."""
    prices = [row["usd_per_hour"] for row in rows if row["usd_per_hour"]]
    return {end: round(sum(price[end] for price in prices), 4) for end in ("min", "max")}


def total_label(rows: Iterable[Mapping[str, Any]]) -> str:
    """`total`, or that it is the sum of some only."""
    return "total" if all(row["usd_per_hour"] for row in rows) else "total of known"


def _aligned(cells: list[tuple[str, ...]], width: int) -> list[str]:
    """Columns as wide as their widest cell. Names that would make a line too long get a line of their own."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    room = width - sum(widths[1:]) - len(GAP) * (len(HEADER) - 1)
    widths[0] = min(widths[0], max(len(HEADER[0]), room))
    lines = []
    for row in cells:
        name = row[0]
        if len(name) > widths[0]:
            lines.append(name)
            name = ""
        padded = [
            text.ljust(size) if column in TEXT_COLUMNS else text.rjust(size) for column, (text, size) in enumerate(zip((name, *row[1:]), widths, strict=True))
        ]
        lines.append(GAP.join(padded).rstrip())
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
