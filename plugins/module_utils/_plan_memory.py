# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies on one GPU, as parts of a picture to scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Part of the picture by term of the sum; a term that is not listed belongs to `other`.
PART_OF = {"weights": "weights", "mtp_weights": "weights", "draft_weights": "weights", "activation": "activations", "cuda_graphs": "graphs"}
LABELS = {"weights": "weights", "activations": "activations", "other": "other", "graphs": "CUDA graphs", "kv": "KV cache", "outside": "outside"}


def part_of(term: str) -> str:
    """The part of the picture that a term of the sum is drawn in."""
    return PART_OF.get(term, "other")


def parts(fit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{name, label, gib, share}] in the order of LABELS; shares of the picture's width add up to 1.

    The width is the GPU's visible memory, or what the terms need when that is more: then there is no `kv`, and the budget ends inside the terms.
    """
    sizes = dict.fromkeys(LABELS, 0.0)
    for term in fit["terms"]:
        sizes[part_of(term["name"])] += term["gib"]
    sizes["kv"] = max(0.0, fit["kv_gib"])
    sizes["outside"] = max(0.0, fit["visible_gib"] - sum(sizes.values()))
    width = sum(sizes.values())
    return [{"name": name, "label": LABELS[name], "gib": gib, "share": gib / width} for name, gib in sizes.items() if gib > 0]
