#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Score the fit arithmetic on start-ups that vLLM logged.

    tests/fit/score.py [--points FILE] [--configs FILE] [--json]

FILE holds a list of points; README.md says the fields. Without it the collected start-ups beside the clone are scored, else points.json.
A point whose model or GPU is not known, or that lacks a setting that the sum needs, is named and counted, not scored. `--configs` adds configs
(name -> config.json) to the built-in table. Standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.llmops.eks.plugins.module_utils import _data, _fit  # noqa: E402
from ansible_collections.llmops.eks.plugins.module_utils._fit_engine import resolve, version  # noqa: E402
from ansible_collections.llmops.eks.plugins.module_utils._fit_model import quantisation_of_name  # noqa: E402

NEW = (0, 10)
# What a variant's name adds without changing the shapes: tuning, a date, how it is quantised.
TUNING = r"instruct|it|hf|chat|base|thinking|preview|\d{4}"
BITS = r"fp8|fp8-dynamic|dynamic|nvfp4|mxfp4|bf16|awq|gptq|int4|int8|bnb-4bit|w\da\d+|quantized\.w\w+"
SUFFIXES = re.compile(f"-({TUNING}|{BITS})$", re.IGNORECASE)
QUANTISATIONS = {"gptq": "int4", "gptq-int4": "int4", "gptq-int8": "int8", "w4a16": "int4", "w8a8": "int8", "fp8-dynamic": "fp8", "awq-marlin": "awq"}
TYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "float": "float32", "fp8_e4m3fn": "fp8_e4m3"}
PLAIN = ("none", "bf16", "bfloat16", "fp16", "float16")


def default_points() -> Path:
    """The collected start-ups beside the clone, else the few that are part of it."""
    collected = ROOT.parent / "shared" / "facts" / "data" / "ground_truth.json"
    return collected if collected.exists() else Path(__file__).with_name("points.json")


class Unscorable(Exception):
    """The point cannot be scored; the message says why."""


def find_model(name: str, configs: dict[str, Any], point: dict[str, Any]) -> _fit.ModelDescription:
    """The model's description: its own config, else one of the same name without the suffix of a variant (same shapes).

    `quant` of the point says how it is quantised; a point without it means the checkpoint of that name.
    """
    candidates, short = [name], name
    while (shorter := SUFFIXES.sub("", short)) != short:
        candidates.append(short := shorter)
    candidates += [candidate.split("/")[0] + "/Meta-" + candidate.split("/")[-1] for candidate in candidates]
    by_last = {key.split("/")[-1].lower(): key for key in configs}
    for candidate in candidates:
        key = candidate if candidate in configs else by_last.get(candidate.split("/")[-1].lower())
        for suffix in ("", "-Instruct", "-it", "-FP8"):
            found = key or by_last.get((candidate + suffix).split("/")[-1].lower())
            if found:
                return _describe(name, found, configs[found], point)
    raise Unscorable(f"no config of {name}")


def _describe(name: str, found: str, config: dict[str, Any], point: dict[str, Any]) -> _fit.ModelDescription:
    plain = _plain(config)
    if "quant" not in point:
        shipped = config == _data.load("model_configs")["models"].get(name)
        own = _fit.ModelDescription.from_table(name) if shipped else None
        told = quantisation_of_name(name)
        return own or _fit.ModelDescription.from_config(plain if told else config, name=name, quantisation=told, source=found)
    return _fit.ModelDescription.from_config(plain, name=name, quantisation=_quantisation(point["quant"]), source=found)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what it says of quantisation, in its text part, too."""
    said = ("quant_method", "quant_fmt", "quantization_config", "compression_config", "quantisation")
    kept = {key: value for key, value in config.items() if key not in said}
    return {key: _plain(value) if key in ("text_config", "llm_config") and isinstance(value, dict) else value for key, value in kept.items()}


def _quantisation(given: Any) -> str | None:
    word = str(given or "none").lower().replace("_", "-")
    if word in PLAIN:
        return None
    known = QUANTISATIONS.get(word, word)
    if known not in _data.load("fit_constants")["quantisations"]:
        raise Unscorable(f"quantisation {given} is not in the table")
    return known


def _number(point: dict[str, Any], key: str, kind: type = int, default: Any = None) -> Any:
    """A field as a number; absent, null and empty are the default. Raises Unscorable for what is none."""
    value = point.get(key)
    if value is None or value == "":
        return default
    try:
        number = kind(float(value))
    except (TypeError, ValueError, OverflowError):
        raise Unscorable(f"{key} {value!r} is no number") from None
    if not math.isfinite(number):
        raise Unscorable(f"{key} {value!r} is no number")
    return number


def _count(point: dict[str, Any], key: str, default: int = 1) -> int:
    """A field that counts something. Raises Unscorable below 1."""
    count = _number(point, key, default=default)
    if count < 1:
        raise Unscorable(f"{key} {count}, needed at least 1")
    return count


def _type(value: Any) -> str:
    word = str(value or "auto").lower().replace("torch.", "")
    return TYPES.get(word, word)


def _flag(value: Any) -> bool:
    return value.strip().lower() in ("true", "yes", "1") if isinstance(value, str) else bool(value)


def settings(point: dict[str, Any]) -> _fit.Engine:
    """The point's engine; fields that the log did not state are vLLM's defaults."""
    length = _number(point, "max_model_len")
    if not length or length < 1:
        raise Unscorable("no max_model_len")
    share = _number(point, "gpu_memory_utilization", float)
    if share is not None and not 0 < share <= 1:
        raise Unscorable(f"gpu_memory_utilization {share:g}, needed a share above 0 up to 1")
    dtype = _type(point.get("dtype"))
    return _fit.Engine(
        vllm_version=str(point["vllm_version"]),
        tensor_parallel=_count(point, "tp"),
        pipeline_parallel=_count(point, "pp"),
        max_model_len=length,
        gpu_memory_utilization=share,
        max_num_seqs=_number(point, "max_num_seqs"),
        max_num_batched_tokens=_number(point, "max_num_batched_tokens"),
        dtype=None if dtype == "auto" else dtype,
        kv_cache_dtype=_type(point.get("kv_cache_dtype")),
        enforce_eager=_flag(point.get("enforce_eager")),
        expert_parallel=_flag(point.get("ep")),
        decode_context_parallel=_count(point, "dcp"),
        block_size=_count(point, "block_size", 16),
        prefix_caching=None if point.get("prefix_caching") is None else _flag(point["prefix_caching"]),
        multimodal=not (_flag(point.get("language_model_only")) or "--language-model-only" in str(point.get("note"))),
        cold_compile=True if point.get("cold_compile") is None else _flag(point["cold_compile"]),
        marlin=None if point.get("marlin") is None else _flag(point["marlin"]),
        speculative_tokens=_number(point, "speculative_tokens") or 0,
    )


def score_point(point: dict[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    """One row: predicted and measured figures and their errors (GiB, or %), as far as the point states them. Raises Unscorable."""
    if not isinstance(point, dict):
        raise Unscorable("no JSON object")
    if not isinstance(point.get("model"), str) or not point.get("model") or not point.get("vllm_version"):
        raise Unscorable("no model or vLLM version")
    model, engine = find_model(point["model"], configs, point), settings(point)
    # A start-up got past vLLM's own check of the length: it ran with a rope scaling that the point does not state.
    model = dataclasses.replace(model, max_model_len=max(model.max_model_len, engine.max_model_len))
    row = {"id": point.get("id"), "model": point["model"], "gpu": point.get("gpu"), "vllm": engine.vllm_version, "tp": engine.tensor_parallel}
    row["pp"], row["quant"], row["new"] = engine.pipeline_parallel, model.quantisation, version(engine.vllm_version).number >= NEW
    measured, tokens, visible = _number(point, "available_kv_gib", float), _number(point, "kv_tokens", float), _number(point, "gpu_total_gib", float)
    visible = visible if visible and visible > 0 else None
    try:
        gpu = _fit.find_gpu(str(point.get("gpu") or ""), visible_gib=visible)
    except _fit.UnknownGpu:
        if not point.get("exclude"):
            raise Unscorable(f"GPU {point.get('gpu')} without visible memory") from None
        gpu = _fit.Gpu(str(point.get("gpu")), visible or 80.0)
    by_concurrency = point.get("kv_tokens_kind") == "max_concurrency*max_model_len"
    if measured and measured > 0 and tokens:
        full = resolve(engine, model, gpu)
        pool = _fit.kv_layout(model, full)
        reported = pool.tokens(measured * 2**30, full.max_model_len, by_concurrency or version(engine.vllm_version).constants["tokens_by_concurrency"])
        row["formula_percent"] = (reported / tokens - 1) * 100
    if point.get("exclude"):
        row["excluded"] = point["exclude"]
        return row
    if engine.gpu_memory_utilization is None:
        row["assumed"] = "gpu_memory_utilization: vLLM's default"
    fit = _fit.estimate(model, gpu, engine)
    # vLLM's log lines come from rank 0, which is in the first pipeline stage.
    stage = fit.stages[0]
    fits = None if point.get("fits") is None else _flag(point["fits"])
    row |= {"verdict": fit.verdict, "fits": fits, "margin_gib": fit.margin_gib, "kv_gib": stage.available_gib, "kv_tokens": fit.kv_tokens}
    row["terms"] = {term.name: round(term.gib, 3) for term in stage.terms}
    weights = _number(point, "weights_gib", float)
    if weights:
        row["weights_percent"] = (stage.gib("weights") / weights - 1) * 100
    if measured is not None:
        row["kv_error_gib"] = stage.available_gib - measured
    if tokens:
        predicted = fit.concurrency * fit.engine.max_model_len if by_concurrency else fit.kv_tokens
        row["tokens_percent"] = (predicted / tokens - 1) * 100
    if fits is not None:
        row["false"] = "fits" if fit.verdict == _fit.FITS and not fits else "no" if fit.verdict == _fit.NO and fits else ""
    return row


def score(points: list[dict[str, Any]], configs: dict[str, Any]) -> dict[str, Any]:
    """All rows, what could not be scored, and the figures for vLLM >= 0.10 and for all."""
    rows, skipped = [], []
    for index, point in enumerate(points):
        try:
            rows.append(score_point(point, configs))
        except (Unscorable, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            known = point if isinstance(point, dict) else {}
            skipped.append({"id": known.get("id", index), "model": known.get("model"), "reason": f"{type(error).__name__}: {error}"})
    return {"vllm >= 0.10": summary([row for row in rows if row["new"]]), "all": summary(rows), "rows": rows, "skipped": skipped}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the table in README.md over some rows."""
    scored = [row for row in rows if "verdict" in row]
    gib = [row["kv_error_gib"] for row in scored if "kv_error_gib" in row]
    return {
        "n": len(scored),
        "kv_tokens_percent": _figures([abs(row["tokens_percent"]) for row in scored if "tokens_percent" in row]),
        "kv_gib": _figures([abs(error) for error in gib]) | {"largest_over": max([0.0, *gib]), "largest_under": -min([0.0, *gib])},
        "weights_percent": _figures([abs(row["weights_percent"]) for row in scored if "weights_percent" in row]),
        "kv_formula_percent": _figures([abs(row["formula_percent"]) for row in rows if "formula_percent" in row]),
        "false_fits": sum(row.get("false") == "fits" for row in scored),
        "false_noes": sum(row.get("false") == "no" for row in scored),
        "verdicts": {verdict: sum(row["verdict"] == verdict for row in scored) for verdict in (_fit.FITS, _fit.TIGHT, _fit.NO, _fit.UNKNOWN)},
    }


def _figures(values: list[float]) -> dict[str, Any]:
    ordered = sorted(values)
    if not ordered:
        return {"n": 0, "median": None, "p90": None, "max": None}
    return {"n": len(ordered), "median": ordered[len(ordered) // 2], "p90": ordered[int(len(ordered) * 0.9)], "max": ordered[-1]}


def _text(result: dict[str, Any]) -> str:
    lines = []
    for row in result["rows"]:
        cells = [
            f"{name} {row[key]:+7.2f}" if key in row else f"{name}       -"
            for name, key in (("weights%", "weights_percent"), ("kvGiB", "kv_error_gib"), ("tokens%", "tokens_percent"), ("formula%", "formula_percent"))
        ]
        verdict = (
            f"{row['verdict']:7s} {'unknown' if row['fits'] is None else 'ran' if row['fits'] else 'failed'}"
            if "verdict" in row
            else f"not scored: {row['excluded']}"
        )
        split = f"tp{row['tp']}" + (f" pp{row['pp']}" if row["pp"] > 1 else "")
        flag = f"  FALSE {row['false'].upper()}" if row.get("false") else ""
        lines.append(f"{row['id']!s:7s} {row['model'][:42]:42s} {str(row['gpu'])[:15]:15s} {row['vllm']:8s} {split:7s} {' '.join(cells)}  {verdict}{flag}")
    lines += [f"skipped {item['id']}: {item['model']}: {item['reason']}" for item in result["skipped"]]
    for name in ("vllm >= 0.10", "all"):
        figures = result[name]
        lines.append(f"\n{name}: n {figures['n']}, verdicts {figures['verdicts']}")
        for key, unit in (("kv_tokens_percent", "%"), ("kv_gib", "GiB"), ("weights_percent", "%"), ("kv_formula_percent", "%")):
            part = figures[key]
            if part["n"]:
                more = f", largest over-prediction {part['largest_over']:.2f}, under-prediction {part['largest_under']:.2f}" if "largest_over" in part else ""
                lines.append(f"  {key:20s} n {part['n']:3d}  median {part['median']:.3f} {unit}, p90 {part['p90']:.2f}, max {part['max']:.2f}{more}")
        lines.append(f"  false fits {figures['false_fits']}, false noes {figures['false_noes']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, default=default_points(), help="JSON list of start-ups (default: %(default)s)")
    parser.add_argument("--configs", type=Path, help="JSON object: model name -> config.json")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    configs = dict(_data.load("model_configs")["models"])
    if options.configs:
        configs |= json.loads(options.configs.read_text(encoding="utf-8"))
    result = score(json.loads(options.points.read_text(encoding="utf-8")), configs)
    print(json.dumps(result, indent=1) if options.json else _text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
