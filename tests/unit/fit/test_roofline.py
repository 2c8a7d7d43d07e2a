# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens per second and dollars: bounds that physics sets, the KV cache's cap, and the score."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _data, _fit
from ansible_collections.llmops.eks.plugins.module_utils._fit_roofline import dollars_per_million, throughput

ROOT = Path(__file__).resolve().parents[3]
COLLECTED = ROOT.parent / "shared" / "facts" / "data" / "throughput.json"


def fit(model="meta-llama/Llama-3.1-8B-Instruct", gpu="A10G", **settings):
    return _fit.estimate(_fit.ModelDescription.from_table(model), _fit.find_gpu(gpu), _fit.Engine(max_model_len=8192, **settings))


def test_one_request_is_bound_by_reading_the_weights():
    found = throughput(fit(), 100, 200, 1)
    ceiling = 600e9 / (15.0 * 2**30)  # A10G's bandwidth over the weights
    assert 0.5 * ceiling < found.output_tokens_s < ceiling
    assert found.terms["memory"] == max(found.terms.values())
    assert found.low < found.output_tokens_s < found.high


def test_an_expert_that_every_token_uses_is_a_dense_layer():
    model = _fit.ModelDescription.from_table("mistralai/Mixtral-8x7B-Instruct-v0.1")
    one = replace(model, experts=replace(model.experts, count=1, per_token=1))
    fits = [_fit.estimate(m, _fit.find_gpu("H100"), _fit.Engine(max_model_len=8192)) for m in (one, replace(one, experts=None))]
    found, plain = (throughput(each, 100, 200, 4).output_tokens_s for each in fits)
    assert found == pytest.approx(plain, rel=1e-3)  # but for the router's weights


def test_concurrency_is_capped_by_the_kv_cache():
    one, many, more = (throughput(fit(), 1024, 256, count) for count in (1, 64, 128))
    assert many.output_tokens_s > 5 * one.output_tokens_s
    assert many.capped
    assert many.requests == pytest.approx(fit().kv_tokens / 1280, rel=0.02)
    assert more.output_tokens_s == many.output_tokens_s


def test_a_requests_own_prefill_is_no_part_of_its_time_per_token():
    alone = throughput(fit(gpu="H100"), 4000, 100, 1)
    assert alone.tpot_ms == pytest.approx(alone.step_ms - alone.terms["prefill"])
    among = throughput(fit(gpu="H100"), 4000, 100, 16)
    assert among.step_ms - among.tpot_ms == pytest.approx(among.terms["prefill"] / 16)
    # What all requests do in one request's life: its first token's time, and a hundred tokens at its pace.
    life = among.terms["prefill"] / 16 * 100 + among.tpot_ms * 100
    assert 16 * 100 / life * 1000 == pytest.approx(among.output_tokens_s)


def test_before_the_versions_that_were_measured_the_range_is_wider():
    new, old = (throughput(fit(gpu="H100", vllm_version=version), 200, 200, 32) for version in ("0.33.0", "0.6.0"))
    assert old.output_tokens_s / old.low > 2 * new.output_tokens_s / new.low
    assert "before 0.10" in old.range_why


def test_a_point_is_scored_by_what_it_states(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "fit"))
    score_point = importlib.import_module("score_throughput").score_point
    configs = _data.load("model_configs")["models"]
    point = {"model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "H100", "engine": "vLLM 0.19.0", "workload": "4000/100, concurrency 16", "mean_in": 4000}
    point |= {"mean_out": 100, "mean_tpot_ms": 10.0}
    by_tpot = score_point({**point, "output_tok_s": 1600.0}, configs)
    by_rate = score_point({**point, "output_tok_s": 1200.0}, configs)
    assert (by_tpot["by"], by_rate["by"]) == ("tpot", "rate")
    assert by_tpot["predicted"] > by_rate["predicted"]
    assert by_tpot["high"] / by_tpot["predicted"] == pytest.approx(by_rate["high"] / by_rate["predicted"])


def test_experts_read_less_than_all_weights_for_few_requests():
    one, many = (throughput(fit("Qwen/Qwen3-30B-A3B", "H100"), 100, 200, count) for count in (1, 64))
    assert one.terms["memory"] < 0.25 * many.terms["memory"]


def test_nothing_is_said_of_a_gpu_without_data_or_a_model_that_does_not_fit():
    unknown = _fit.estimate(fit().model, _fit.find_gpu("Abacus", visible_gib=40), _fit.Engine(max_model_len=8192))
    assert throughput(unknown, 100, 100, 1) is None
    assert throughput(fit(gpu="T4", dtype="half"), 100, 100, 1) is None


@pytest.mark.parametrize("arguments", [(-1, 10, 1), (10, 0, 1), (10, 10, 0)])
def test_impossible_workloads_are_refused(arguments):
    with pytest.raises(ValueError, match="needed"):
        throughput(fit(), *arguments)


def test_dollars():
    assert dollars_per_million(1.006, 300) == pytest.approx(0.931, abs=0.001)
    assert dollars_per_million(1.006, 300, 0.25) == pytest.approx(3.726, abs=0.001)
    for arguments in ((1, 0), (1, 10, 0), (1, 10, 1.5)):
        with pytest.raises(ValueError, match="needed"):
            dollars_per_million(*arguments)


@pytest.mark.skipif(not COLLECTED.exists(), reason="the collected throughputs are not beside the clone")
def test_the_bar():
    script = ROOT / "tests" / "fit" / "score_throughput.py"
    done = subprocess.run([sys.executable, str(script), "--json"], capture_output=True, text=True, timeout=60, check=True)
    figures = json.loads(done.stdout)["figures"]
    assert figures["dense"]["percent"]["n"] >= 20
    assert figures["dense"]["percent"]["median"] <= 18
    assert figures["dense"]["inside"] >= 0.8
    assert figures["all"]["inside"] >= 0.8
