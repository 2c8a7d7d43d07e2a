# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan as playbooks/templates/plan.html.j2 shows it: every figure as text, every text escaped for HTML. Pure, and the same plan gives the same page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from . import _data
from ._plan_memory import LABELS, part_of, parts
from ._plan_summary import bounded, notes, parallel, present, span, summary, total, total_label
from ._problems import sentence

NONE = "\N{EN DASH}"
TERMS = {
    "weights": "weights",
    "mtp_weights": "weights of the prediction layers",
    "draft_weights": "weights of the draft model",
    "activation": "activations",
    "moe_workspace": "expert workspace",
    "penalty_state": "penalty state",
    "input_embeddings": "input embeddings",
    "deepstack": "image features",
    "non_torch": "CUDA libraries",
    "cuda_graphs": "CUDA graphs",
    "lora_slots": "LoRA slots",
}


def page(models: Iterable[Mapping[str, Any]], problems: Iterable[Mapping[str, str]] = (), cluster: str = "", region: str = "") -> dict[str, Any]:
    """Everything the template needs, all text escaped. `problems` are the plan's rows; cluster and region are named when given."""
    models, problems = list(models), list(problems)
    served, rows = present(models), summary(models)
    return _escaped(
        {
            "title": f"Plan for {len(served)} model{'s' if len(served) != 1 else ''}",
            "place": ", ".join(text for text in (f"cluster {cluster}" if cluster else "", region) if text),
            "rows": [_row(row) for row in rows],
            "total": span(total(rows), "min", "max", NONE),
            "total_label": total_label(rows),
            "notes": notes(served),
            "leaving": [model["name"] for model in models if model["state"] != "present"],
            "problems": [{"severity": row["severity"], "text": sentence(row)} for row in problems],
            "models": [_model(model, row) for model, row in zip(served, rows, strict=True)],
        }
    )


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return html.escape(value) if isinstance(value, str) else value


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": row["name"],
        "instance": row["instance_type"],
        "parallel": parallel(row),
        "kv_tokens": _number(row["kv_tokens"]),
        "requests": _number(row["concurrent_requests"]),
        "hour": span(row["usd_per_hour"], "min", "max", NONE),
        "million": span(row["usd_per_million_tokens"], "low", "high", NONE),
        "start": _duration(row["startup_seconds"]),
        "verdict": row["verdict"],
        "margin": _number(row["margin_gib"], 1),
    }


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.4f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes and rest else f"{minutes} min" if minutes else f"{rest} s"


def _model(model: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    fit, choice = model.get("fit"), model.get("choice")
    return {
        **_row(row),
        "lede": _lede(model, choice),
        "tiles": _tiles(model, row, fit, choice) if choice else [],
        "memory": _memory(model, fit, choice) if fit else None,
        "ranking": _ranking([choice, *model["alternatives"]]) if choice else [],
        "rejected": [{"types": ", ".join(entry["instance_types"]), "reason": entry["reason"]} for entry in model.get("rejected") or []],
        "explain": [{"name": name, "lines": list(lines)} for name, lines in sorted(model["explain"].items())],
    }


def _lede(model: Mapping[str, Any], choice: Mapping[str, Any] | None) -> str:
    low, high = model["replicas"]["min"], model["replicas"]["max"]
    replicas = f"{low} to {high} replicas" if high > low else f"{low} replica{'s' if low != 1 else ''}"
    gpus = f"{model['gpus']} \N{MULTIPLICATION SIGN} {choice['gpu_name'] if choice else 'GPU'}"
    return f"{replicas} of {gpus} each, weights from {model['source']}, image {model['image']}"


def _tiles(model: Mapping[str, Any], row: Mapping[str, Any], fit: Mapping[str, Any] | None, choice: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures in large type: label, value, and under it what it is of."""
    rate = choice["tokens_per_second"]
    length = f"at once, of {_number(fit['expected_tokens'])} tokens" if fit and fit["expected_tokens"] else "at once"
    tiles = [
        ("Concurrent requests", _number(row["concurrent_requests"]), f"{length}, a replica"),
        ("KV cache", _number(row["kv_tokens"]), "tokens, a replica"),
        ("Output", _number(rate["expected"]) if rate else NONE, f"tokens/s a replica, {_number(rate['low'])}{NONE}{_number(rate['high'])}" if rate else ""),
        ("$ an hour", span(row["usd_per_hour"], "min", "max", NONE), _kinds(model, choice)),
        ("$ a million tokens", span(row["usd_per_million_tokens"], "low", "high", NONE), _utilisation(choice)),
        ("Start", _duration(row["startup_seconds"]), "until it answers, once the node is there"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _kinds(model: Mapping[str, Any], choice: Mapping[str, Any]) -> str:
    """What a node costs of each capacity type that is allowed."""
    if bounded(model, choice):
        return f"on-demand {choice['usd_per_hour']['on_demand']:,.2f} a node: spot costs at most that"
    prices = {kind: choice["usd_per_hour"].get(kind.replace("-", "_")) for kind in model["capacity_types"]}
    return ", ".join(f"{kind} {hour:,.2f} a node" for kind, hour in prices.items() if hour is not None)


def _utilisation(choice: Mapping[str, Any]) -> str:
    costs = choice["usd_per_million_tokens"]
    return " to ".join(f"{share:.0%}" for share in costs["utilisation"]) + " used" if costs else ""


def _memory(model: Mapping[str, Any], fit: Mapping[str, Any], choice: Mapping[str, Any] | None) -> dict[str, Any]:
    pictured = parts(fit)
    width = sum(part["gib"] for part in pictured)
    node = choice["gpus_on_node"] if choice else model["gpus"]
    kv = fit["kv_gib"]
    return {
        "gpu": fit["gpu"],
        "parts": [{**part, "gib": f"{part['gib']:.2f}", "percent": _percent(part["share"])} for part in pictured],
        "budget_percent": _percent(fit["budget_gib"] / width),
        "scale": _scale(width),
        "used": model["gpus"],
        "unused": node - model["gpus"],
        # One cell of the KV cache is one request of full length; cells too narrow to be seen are not drawn.
        "cell_percent": _percent(fit["needed_gib"] / kv) if 0 < fit["needed_gib"] < kv and fit["needed_gib"] / width > 0.006 else "",
        "caption": _caption(model, fit, node),
        "sum": _sum(fit),
        "fix": fit["fix"]["text"] if fit["fix"] else "",
        "source": fit["source"],
    }


def _caption(model: Mapping[str, Any], fit: Mapping[str, Any], node: int) -> str:
    share = fit["budget_gib"] / fit["visible_gib"]
    said = [f"GiB of {fit['visible_gib']:.2f} visible. The line at {fit['budget_gib']:.2f} is gpu_memory_utilization {share:.2f}."]
    if fit["kv_gib"] > fit["needed_gib"]:
        said.append(f"Each cell of the KV cache is one request of {_number(fit['max_model_len'])} tokens.")
    if fit["pipeline_parallel_size"] > 1:
        said.append("Shown is the pipeline stage with the least KV cache.")
    if model["gpus"] > 1:
        said.append(f"The {model['gpus']} GPUs of a replica hold the same.")
    if node > model["gpus"]:
        said.append(f"The node has {node} GPUs; what a replica leaves is for others.")
    return " ".join(said)


def _scale(width: float) -> list[dict[str, str]]:
    """Marks of the axis at round GiB, at most 6."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if width / step <= 6)
    return [{"gib": str(mark), "percent": _percent(mark / width)} for mark in range(0, int(width) + 1, step)]


def _sum(fit: Mapping[str, Any]) -> list[dict[str, str]]:
    """The sum as a bill: {kind: start, minus or result, part: of the picture, name, gib, why}."""
    share = fit["budget_gib"] / fit["visible_gib"]
    length = _number(fit["max_model_len"])
    tokens = f"{_number(fit['kv_tokens'])} tokens in {_number(fit['kv_blocks'])} blocks"
    fits_from = _data.load("fit_constants")["verdict"]["fits_margin_gib"]
    rows = [
        ("start", "", "visible memory", fit["visible_gib"], f"what CUDA reports on {fit['gpu']}"),
        ("minus", "outside", LABELS["outside"], fit["visible_gib"] - fit["budget_gib"], f"gpu_memory_utilization {share:.2f} leaves it alone"),
        ("result", "", "budget", fit["budget_gib"], f"{share:.2f} of the visible memory"),
        *(("minus", part_of(term["name"]), TERMS.get(term["name"], term["name"]), term["gib"], term["why"]) for term in fit["terms"]),
        ("result", "kv", LABELS["kv"], fit["kv_gib"], tokens),
        ("minus", "", "one request of full length", fit["needed_gib"], f"{length} tokens, of which {fit['concurrency']:.2f} fit at once"),
        ("result", "", "to spare", fit["margin_gib"], f"{fit['verdict']}; FITS needs {fits_from:g} GiB"),
    ]
    return [{"kind": kind, "part": part, "name": name, "gib": f"{gib:,.2f}", "why": why} for kind, part, name, gib, why in rows]


def _ranking(candidates: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The choice first. `left` and `width` place the bar of $ per million tokens, in percent of the dearest."""
    costs = [candidate["usd_per_million_tokens"] for candidate in candidates]
    most = max((cost["high"] for cost in costs if cost), default=0)
    rows = []
    for candidate, cost in zip(candidates, costs, strict=True):
        rate, price = candidate["tokens_per_second"], candidate["usd_per_hour"]
        rows.append(
            {
                "instance": candidate["instance_type"],
                "parallel": parallel(candidate),
                "gpus": f"{candidate['gpus_on_node']} \N{MULTIPLICATION SIGN} {candidate['gpu_name']}",
                "verdict": candidate["verdict"],
                "margin": _number(candidate["margin_gib"], 1),
                "requests": _number(candidate["concurrent_requests"]),
                "rate": _number(rate["expected"]) if rate else NONE,
                "rate_range": f"{_number(rate['low'])}{NONE}{_number(rate['high'])}" if rate else "",
                "hour": _number(price["on_demand"], 2),
                "spot": _number(price["spot"], 2) if price["spot"] is not None else "",
                "million": span(cost, "low", "high", NONE),
                "left": _percent(cost["low"] / most) if cost else "",
                "width": _percent((cost["high"] - cost["low"]) / most) if cost else "",
                "start": _duration(candidate["startup_seconds"]),
                "why": candidate["why"],
            }
        )
    return rows
