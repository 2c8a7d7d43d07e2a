# SPDX-License-Identifier: GPL-3.0-or-later
"""The few figures of a plan, and the table on the terminal."""

import json
import re

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _plan_summary

COSTS = {"low": 0.931, "high": 3.724, "utilisation": [1.0, 0.25]}


def model(name="m", low=1, high=1, **choice):
    """A planned model on one GPU of a node with four at 4 $/h, as far as the summary reads it."""
    chosen = {
        "instance_type": "g6.12xlarge",
        "gpus_on_node": 4,
        "verdict": "FITS",
        "margin_gib": 2.275,
        "kv_tokens": 35024,
        "concurrent_requests": 27,
        "usd_per_hour": {"on_demand": 4.0, "spot": 1.5},
        "price_source": "table of 2026-07-20",
        "usd_per_million_tokens": COSTS,
        "startup_seconds": 301,
    }
    return {
        "name": name,
        "state": "present",
        "gpus": 1,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "capacity_types": ["on-demand"],
        "instance_types": ["g6.12xlarge"],
        "replicas": {"min": low, "max": high},
        "fit": {"verdict": "FITS", "expected_tokens": 1280},
        "choice": chosen | choice,
    }


def unknown(name="u"):
    return model(name) | {"fit": None, "choice": None}


def warning(subject):
    return {"check": "c", "severity": "warning", "subject": subject, "found": "a", "needed": "b", "fix": "d"}


@pytest.mark.parametrize(
    ("low", "high", "gpus", "cost"),
    [(1, 4, 1, (4.0, 4.0)), (4, 5, 1, (4.0, 8.0)), (0, 1, 1, (0.0, 4.0)), (1, 3, 2, (4.0, 8.0)), (1, 3, 4, (4.0, 12.0))],
)
def test_the_price_is_that_of_the_nodes_that_the_replicas_fill(low, high, gpus, cost):
    row = _plan_summary.summary([model(low=low, high=high) | {"gpus": gpus}])[0]
    assert (row["usd_per_hour"]["min"], row["usd_per_hour"]["max"]) == cost


@pytest.mark.parametrize(
    ("kinds", "prices", "hour"),
    [
        (["on-demand"], {"on_demand": 4.0, "spot": 1.5}, 4.0),
        (["spot"], {"on_demand": 4.0, "spot": 1.5}, 1.5),
        (["on-demand", "spot"], {"on_demand": 4.0, "spot": 1.5}, 1.5),
        (["on-demand", "spot"], {"on_demand": 4.0, "spot": None}, 4.0),
        (["spot"], {"on_demand": 4.0, "spot": None}, 4.0),  # what the ranking goes by where nobody knows spot prices
    ],
)
def test_the_cheapest_capacity_type_that_is_allowed_counts(kinds, prices, hour):
    row = _plan_summary.summary([model(usd_per_hour=prices) | {"capacity_types": kinds}])[0]
    assert row["usd_per_hour"] == (None if hour is None else {"min": hour, "max": hour})


def test_both_prices_are_bounds_where_no_spot_price_is_known_and_that_is_said():
    only_spot = model(usd_per_hour={"on_demand": 4.0, "spot": None}) | {"capacity_types": ["spot"]}
    said = _plan_summary.notes([only_spot])
    assert "nodes at the on-demand price" in said[2]
    assert any("an upper bound" in note for note in said)
    assert not any("an upper bound" in note for note in _plan_summary.notes([model()]))
    # Spot prices are known, but not of this type: neither figure.
    neither = model(usd_per_hour={"on_demand": 4.0, "spot": None}, usd_per_million_tokens=None) | {"capacity_types": ["spot"]}
    assert _plan_summary.summary([neither])[0]["usd_per_hour"] is None


def test_summary_holds_what_is_known_and_the_models_own_warnings():
    rows = _plan_summary.summary([model("m"), {"name": "gone", "state": "absent"}, unknown()], [warning("u"), warning("other")])
    assert [row["name"] for row in rows] == ["m", "u"]
    assert rows[0]["usd_per_million_tokens"] == {"low": 0.93, "high": 3.72}
    assert (rows[0]["margin_gib"], rows[0]["startup_seconds"], rows[0]["warnings"]) == (2.27, 301, [])
    assert rows[1]["verdict"] == "UNKNOWN"
    assert rows[1]["warnings"] == ["u: found a; needed b; fix: d"]
    assert {key for key, value in rows[1].items() if value is None} == {
        "margin_gib",
        "kv_tokens",
        "concurrent_requests",
        "usd_per_hour",
        "usd_per_million_tokens",
        "startup_seconds",
    }


def test_summary_of_a_whole_plan_is_small_and_plain(planned):
    text = json.dumps(_plan_summary.summary(*planned))
    assert len(text) < 2500


def test_table_aligns_numbers_right_and_adds_up():
    lines = _plan_summary.table([model("a"), model("name-of-b", 1, 9, kv_tokens=1234567)])
    assert lines[:4] == [
        "model      instance         KV tokens  requests      $/hour  $/1M tokens  start s  verdict  spare GiB",
        "a          g6.12xlarge tp1     35,024        27        4.00    0.93-3.72      301  FITS           2.3",
        "name-of-b  g6.12xlarge tp1  1,234,567        27  4.00-12.00    0.93-3.72      301  FITS           2.3",
        "total                                            8.00-16.00",
    ]


def test_table_says_what_is_not_known_and_leaves_it_out_of_the_sum():
    lines = _plan_summary.table([model("a"), unknown(), {"name": "gone", "state": "absent"}], [warning("u")])
    assert lines[2].split() == ["u", "g6.12xlarge", "tp1", "-", "-", "-", "-", "-", "UNKNOWN", "-"]
    assert lines[3].split() == ["total", "of", "known", "4.00"]
    assert "removed: gone" in lines
    assert "warning: u: found a; needed b; fix: d" in lines


def test_a_name_that_is_too_long_gets_its_own_line():
    name = "x" * 50
    lines = _plan_summary.table([model(name), model("b")])
    assert lines[1] == name
    assert lines[2].startswith("   ")
    assert lines[2].endswith("FITS           2.3")
    assert len(lines[0]) <= 109


def test_pipeline_stages_are_named():
    lines = _plan_summary.table([model() | {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "gpus": 8}])
    assert "g6.12xlarge tp4 pp2" in lines[1]


def test_notes_say_of_what_the_prices_are():
    text = "\n".join(_plan_summary.table([model("a") | {"capacity_types": ["on-demand", "spot"]}], width=200))
    assert "$/hour: nodes at the on-demand or spot price, at the fewest and at the most replicas; table of 2026-07-20." in text
    assert "from 100% to 25% use" in text
    assert "of the expected 1,280 tokens" in text


def test_an_empty_plan_says_so():
    assert _plan_summary.table([{"name": "gone", "state": "absent"}]) == ["No model is to be served.", "", "removed: gone"]


def test_a_whole_plan_fits_120_columns_as_ansible_prints_it(planned):
    lines = _plan_summary.table(*planned)
    assert max(map(len, lines)) <= 120 - len('        "",')
    assert all(line.isascii() and not re.search(r"\s$", line) for line in lines)
