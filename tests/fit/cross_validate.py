#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave one model family out: refit the measured constants on the other families, score the family that was left out.

    tests/fit/cross_validate.py [--points FILE] [--configs FILE]

Refitted, by median: the residual of the profile run, and the libraries' memory for each (era of vLLM, kind of parallelism). Everything else is structure read
from vLLM's source and has nothing to fit; constants that rest on a single log (CUDA graphs, compile reserve) are kept. A kind of which no other family has
a log keeps the shipped value, too.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import score
from score import _data, _figures

FAMILY = re.compile(r"llama|qwen|gemma|mi[sx]tral|deepseek|granite|phi|gpt-oss|kimi|glm|nemotron|minimax", re.IGNORECASE)


def family(model: str) -> str:
    """The family of a model's name; distilled and fine-tuned models count with their base's architecture only when the name says so."""
    found = FAMILY.search(model.split("/")[-1])
    name = found[0].lower() if found else model
    return "mistral" if name in ("mistral", "mixtral") else name


def _kind(row: dict[str, Any]) -> str:
    """Which constant of the libraries' memory holds."""
    era = "0.18+" if tuple(int(n) for n in re.findall(r"\d+", row["vllm"])[:2]) >= (0, 18) else "older"
    return f"{era} {'tp' if row['tp'] > 1 else 'pp' if row['pp'] > 1 else 'one'}"


def _logged(point: dict[str, Any], key: str) -> float | None:
    """A figure of the log; None where it is not stated or no number."""
    try:
        return score._number(point, key, float)
    except score.Unscorable:
        return None


def cross_validate(points: list[dict[str, Any]], configs: dict[str, Any]) -> dict[str, Any]:
    """{family: errors of the left-out rows} and the figures over all of them (vLLM >= 0.10)."""
    # Rows name their points by their place in the list: an id may be missing, or be no name at all.
    measured = {index: {**point, "id": index} for index, point in enumerate(points) if isinstance(point, dict)}
    rows = [row for row in score.score(list(measured.values()), configs)["rows"] if row["new"] and "kv_error_gib" in row]
    residual, libraries = {}, {}
    for row in rows:
        activation, graphs, non_torch = (_logged(measured[row["id"]], key) for key in ("activation_gib", "cuda_graph_gib", "non_torch_gib"))
        if activation is not None and graphs is None:
            residual[row["id"]] = activation - row["terms"]["activation"] - row["terms"].get("moe_workspace", 0)
        if non_torch is not None:
            libraries[row["id"]] = non_torch - row["terms"]["non_torch"]
    errors: dict[str, list[float]] = {}
    for row in rows:
        others = [other for other in rows if family(other["model"]) != family(row["model"])]
        rest = [residual[other["id"]] for other in others if other["id"] in residual]
        same = [libraries[other["id"]] for other in others if other["id"] in libraries and _kind(other) == _kind(row)]
        refitted = row["kv_error_gib"] - (median(rest) if rest else 0) - (median(same) if same else 0)
        errors.setdefault(family(row["model"]), []).append(refitted)
    everything = [error for part in errors.values() for error in part]
    shipped = _figures([abs(row["kv_error_gib"]) for row in rows])
    return {"families": errors, "kv_gib": _figures([abs(error) for error in everything]), "largest_over": max(everything, default=0.0), "as_shipped": shipped}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, default=score.default_points(), help="JSON list of start-ups (default: %(default)s)")
    parser.add_argument("--configs", type=Path, help="JSON object: model name -> config.json")
    options = parser.parse_args()
    configs = dict(_data.load("model_configs")["models"])
    if options.configs:
        configs |= json.loads(options.configs.read_text(encoding="utf-8"))
    result = cross_validate(json.loads(options.points.read_text(encoding="utf-8")), configs)
    for name, errors in sorted(result["families"].items()):
        print(f"{name:10s} n {len(errors):2d}  " + " ".join(f"{error:+.2f}" for error in errors))
    if not result["kv_gib"]["n"]:
        print("no start-up of vLLM 0.10 or newer that can be scored")
        return 0
    for name in ("as_shipped", "kv_gib"):
        print(f"{name}: median {result[name]['median']:.3f} GiB, p90 {result[name]['p90']:.2f}, max {result[name]['max']:.2f}")
    print(f"largest over-prediction {result['largest_over']:.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
