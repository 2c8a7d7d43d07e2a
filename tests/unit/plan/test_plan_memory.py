# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a GPU's memory adds up, whether the model fits or not."""

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _plan_memory


def fit(weights):
    terms = [("weights", weights), ("activation", 0.5), ("penalty_state", 0.1), ("non_torch", 0.25), ("cuda_graphs", 0.25), ("draft_weights", 1.0)]
    return {
        "visible_gib": 22.0,
        "budget_gib": 20.0,
        "terms": [{"name": name, "gib": gib, "why": "w"} for name, gib in terms],
        "kv_gib": 20.0 - sum(gib for _, gib in terms),
    }


def sizes(weights):
    parts = _plan_memory.parts(fit(weights))
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    return {part["name"]: round(part["gib"], 6) for part in parts}


def test_parts_are_the_visible_memory():
    assert sizes(12.0) == {"weights": 13.0, "activations": 0.5, "other": 0.35, "graphs": 0.25, "kv": 5.9, "outside": 2.0}


def test_without_room_for_a_kv_cache_the_terms_reach_beyond_the_budget():
    assert sizes(19.0) == {"weights": 20.0, "activations": 0.5, "other": 0.35, "graphs": 0.25, "outside": 0.9}


def test_terms_larger_than_the_gpu_set_the_scale():
    assert sizes(40.0) == {"weights": 41.0, "activations": 0.5, "other": 0.35, "graphs": 0.25}
