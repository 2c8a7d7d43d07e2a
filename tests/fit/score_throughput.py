#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Score the roofline on measured throughputs.

    tests/fit/score_throughput.py [--points FILE] [--configs FILE] [--json]

Like is compared with like: where the rate of a point is its concurrency divided by its time per output token (TPOT), which leaves out the time to the first
token and the requests that wait, the same quotient is predicted; elsewhere the output rate. Standard library only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".collections"))

from ansible_collections.llmops.eks.plugins.module_utils import _fit_roofline
from score import ROOT, Unscorable, _count, _data, _figures, _fit, _number, find_model

CONCURRENCY = re.compile(r"concurrency (\d+)|batch (\d+)|(\d+) concurrent|(\d+) prompts at once")
VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
RELEASED = {"2024": "0.6.0", "2025": "0.9.0"}  # a release of that year, for points that say no more than when they were measured
SAME = 0.01  # the rate equals concurrency / TPOT when it is that near
PRECISION = {"fp8": "fp8", "int4": "int4-experts", "fp4": "nvfp4"}


def score_point(point: dict[str, Any], configs: dict[str, Any]) -> dict[str, Any]:
    """One row with predicted and measured output tokens/s; raises Unscorable naming what is missing."""
    if not isinstance(point, dict):
        raise Unscorable("no JSON object")
    if not isinstance(point.get("model"), str) or not point.get("gpu"):
        raise Unscorable("no model or GPU")
    measured, answer, prompt = (_number(point, key, float) for key in ("output_tok_s", "mean_out", "mean_in"))
    if not measured or not answer or measured < 0:
        raise Unscorable("no output rate or answer length")
    prompt = prompt if prompt is not None else 20  # "short prompt"
    workload = str(point.get("workload"))
    stated = CONCURRENCY.search(workload)
    concurrency = 1 if "single stream" in workload else int(next(group for group in stated.groups() if group)) if stated else None
    if not concurrency:
        raise Unscorable(f"no concurrency in {workload!r}")
    name = point["model"]
    quantisation = next((key for key, word in (("fp8", "fp8"), ("awq", "awq"), ("mxfp4", "gpt-oss")) if word in name.lower()), None)
    quantisation = quantisation or PRECISION.get(str(point.get("precision")))
    # DeepSeek's checkpoints are FP8 without saying so.
    if re.search(r"DeepSeek-(R1|V3)", name) and "Distill" not in name:
        quantisation = "fp8"
    model = find_model(name.replace(" AWQ", ""), configs, {"quant": quantisation})
    if not model.experts and quantisation == "int4-experts":
        model = dataclasses.replace(model, quantisation="int4")
    stated_version = VERSION.search(str(point.get("engine")))
    year = re.search(r"20\d\d", str(point.get("engine")))
    release = stated_version[0] if stated_version else RELEASED.get(year[0] if year else "", "0.10.0")
    engine = _fit.Engine(vllm_version=release, tensor_parallel=_count(point, "tp"))
    text = str(point.get("command"))
    length = re.search(r"--max-model-len (\d+)", text)
    # A shared length where none is stated: the point ran, so the model's own length was no hindrance.
    engine = dataclasses.replace(engine, max_model_len=int(length[1]) if length else min(model.max_model_len, max(8192, int(prompt + answer))))
    try:
        gpu = _fit.find_gpu(str(point["gpu"]))
    except _fit.UnknownGpu:
        raise Unscorable(f"GPU {point['gpu']}") from None
    fit = _fit.estimate(model, gpu, engine)
    found = _fit_roofline.throughput(fit, prompt, answer, concurrency)
    if not found:
        raise Unscorable("nothing fits by the estimate")
    tpot = _number(point, "mean_tpot_ms", float)
    by_tpot = bool(tpot) and abs(measured * tpot / (concurrency * 1000) - 1) < SAME
    rate = concurrency * 1000 / found.tpot_ms if by_tpot else found.output_tokens_s
    low, high = (rate * bound / found.output_tokens_s for bound in (found.low, found.high))
    row = {"id": point.get("id"), "model": name, "gpu": str(point["gpu"]), "tp": engine.tensor_parallel, "concurrency": concurrency, "measured": measured}
    row |= {"predicted": rate, "percent": (rate / measured - 1) * 100, "inside": low <= measured <= high, "dense": not model.experts}
    return row | {
        "by": "tpot" if by_tpot else "rate",
        "low": low,
        "high": high,
        "requests": found.requests,
        "terms_ms": {k: round(v, 2) for k, v in found.terms.items()},
    }


def score(points: list[dict[str, Any]], configs: dict[str, Any]) -> dict[str, Any]:
    """All rows, what could not be scored, and the figures for dense models, for those with experts and for all."""
    rows, skipped = [], []
    for index, point in enumerate(points):
        try:
            rows.append(score_point(point, configs))
        except (Unscorable, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            known = point if isinstance(point, dict) else {}
            skipped.append({"id": known.get("id", index), "model": known.get("model"), "reason": f"{type(error).__name__}: {error}"})
    sets = {"dense": [row for row in rows if row["dense"]], "experts": [row for row in rows if not row["dense"]], "all": rows}
    figures = {
        name: {"percent": _figures([abs(row["percent"]) for row in some]), "inside": sum(row["inside"] for row in some) / len(some) if some else None}
        for name, some in sets.items()
    }
    return {"figures": figures, "rows": rows, "skipped": skipped}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    collected = ROOT.parent / "shared" / "facts" / "data" / "throughput.json"
    parser.add_argument("--points", type=Path, default=collected, help="JSON list of measured throughputs (default: %(default)s)")
    parser.add_argument("--configs", type=Path, help="JSON object: model name -> config.json")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    if not options.points.exists():
        print(f"score_throughput: found no {options.points}; needed: a JSON list of measured throughputs; name one with --points", file=sys.stderr)
        return 2
    configs = dict(_data.load("model_configs")["models"])
    if options.configs:
        configs |= json.loads(options.configs.read_text(encoding="utf-8"))
    result = score(json.loads(options.points.read_text(encoding="utf-8")), configs)
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for row in result["rows"]:
        where = f"{row['id']} {row['model'][:40]:40s} {row['gpu'][:14]:14s} tp{row['tp']} c{row['concurrency']:<5d}"
        rates = f"{row['measured']:8.0f} {row['predicted']:8.0f} {row['percent']:+6.0f} % [{row['low']:.0f}-{row['high']:.0f}]"
        print(f"{where} {rates} {'inside' if row['inside'] else 'OUTSIDE'} by {row['by']} r{row['requests']:.0f} {row['terms_ms']}")
    for item in result["skipped"]:
        print(f"skipped {item['id']}: {item['model']}: {item['reason']}")
    for name, part in result["figures"].items():
        if part["percent"]["n"]:
            percent = part["percent"]
            print(f"{name}: n {percent['n']}, median error {percent['median']:.1f} %, p90 {percent['p90']:.0f} %, inside the range {part['inside']:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
