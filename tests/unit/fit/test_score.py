# SPDX-License-Identifier: GPL-3.0-or-later
"""The score meets the bar, and survives points it has never seen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import parameters

ROOT = Path(__file__).resolve().parents[3]
OWN_OR_COLLECTED = [
    pytest.param(ROOT / "tests" / "fit" / "points.json", id="own"),
    pytest.param(
        ROOT.parent / "shared" / "facts" / "data" / "ground_truth.json",
        id="collected",
        marks=pytest.mark.skipif(not (ROOT.parent / "shared").exists(), reason="the collected start-ups are not beside the clone"),
    ),
]
SCORE = ROOT / "tests" / "fit" / "score.py"
sys.path.insert(0, str(SCORE.parent))
import cross_validate  # noqa: E402
import score  # noqa: E402
import score_throughput  # noqa: E402


def run(points, *options):
    done = subprocess.run([sys.executable, str(SCORE), "--points", str(points), *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in options else done.stdout


@pytest.mark.parametrize("points", OWN_OR_COLLECTED)
def test_the_bar(points):
    figures = run(points, "--json")["vllm >= 0.10"]
    assert figures["n"] >= 10
    assert figures["kv_tokens_percent"]["median"] <= 0.2
    assert figures["kv_tokens_percent"]["p90"] <= 4
    assert figures["kv_gib"]["median"] <= 0.1
    assert figures["kv_gib"]["largest_over"] <= 0.6
    assert figures["weights_percent"]["median"] <= 0.2
    assert (figures["false_fits"], figures["false_noes"]) == (0, 0)
    assert figures["verdicts"]["FITS"] >= figures["n"] // 3  # TIGHT must not become the answer to everything


def test_points_it_has_never_seen_are_named_not_fatal(tmp_path):
    whole = {"model": "Qwen/Qwen3-8B", "gpu": "L4", "vllm_version": "0.30.0", "max_model_len": 8192}
    points = [
        {"id": "a", **whole, "fits": True},
        {"id": "b", **whole, "gpu": "Abacus 9000"},
        {"id": "c", **whole, "model": "nobody/novel-7b"},
        {"id": "d", **whole, "vllm_version": None},
        {"id": "e", **whole, "vllm_version": "nightly"},
        {"id": "f", **whole, "quant": "hqq"},
        {"id": "g", **{k: v for k, v in whole.items() if k != "max_model_len"}},
        {"id": "h", **whole, "tp": 3},
        {"id": "i", **whole, "gpu": "Abacus 9000", "gpu_total_gib": 30.0, "kv_tokens": 0, "available_kv_gib": None},
        {},
    ]
    path = tmp_path / "points.json"
    path.write_text(json.dumps(points), encoding="utf-8")
    result = run(path, "--json")
    assert [row["id"] for row in result["rows"]] == ["a", "h", "i"]
    assert [item["id"] for item in result["skipped"]] == ["b", "c", "d", "e", "f", "g", 9]
    assert "Abacus" in result["skipped"][0]["reason"]
    assert result["rows"][1]["verdict"] == "NO"
    text = run(path)
    assert "skipped c: nobody/novel-7b" in text


FULL = {
    "id": "x",
    "model": "Qwen/Qwen3-8B",
    "gpu": "L4-24GB",
    "gpu_total_gib": 22.04,
    "vllm_version": "0.30.0",
    "max_model_len": 8192,
    "fits": True,
    "tp": 1,
    "pp": 1,
    "dp": 1,
    "dcp": 1,
    "ep": False,
    "gpu_memory_utilization": 0.9,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "dtype": "bfloat16",
    "kv_cache_dtype": "auto",
    "quant": None,
    "enforce_eager": False,
    "block_size": 16,
    "prefix_caching": True,
    "marlin": None,
    "speculative_tokens": 0,
    "cold_compile": True,
    "language_model_only": False,
    "weights_gib": 15.27,
    "available_kv_gib": 2.9,
    "kv_tokens": 21000,
    "kv_tokens_kind": "max_concurrency*max_model_len",
    "max_concurrency": 2.6,
    "note": "none",
    "exclude": None,
    "source": "test",
    "inferred": [],
    "derived": [],
}
ODD = (None, "", "many", "0.9", "8192", -1, 0, 1e30, True, False, [], {}, float("nan"))


def test_no_value_of_any_field_ends_it(tmp_path):
    """Each field missing, and with values of every kind; each point is scored or named with a reason, and the output is JSON."""
    points = [{**FULL, "id": f"{key}={value!r}", key: value} for key in FULL if key != "id" for value in ODD]
    points += [{k: v for k, v in FULL.items() if k != key} | {"id": f"no {key}"} for key in FULL if key != "id"]
    points += ["text", None, 7, []]
    path = tmp_path / "points.json"
    path.write_text(json.dumps(points), encoding="utf-8")
    result = run(path, "--json")
    named = {row["id"] for row in result["rows"]} | {item["id"] for item in result["skipped"]}
    assert len(result["rows"]) + len(result["skipped"]) == len(points)
    assert {point["id"] for point in points[:-4]} <= named
    assert all(len(item["reason"]) > 10 for item in result["skipped"])
    scored = {row["id"] for row in result["rows"]}
    # What does not decide the sum may be absent; numbers may be text; what decides it is asked for.
    assert {f"no {key}" for key in ("quant", "tp", "dtype", "fits", "weights_gib", "max_num_seqs", "gpu_total_gib", "note", "kv_tokens")} <= scored
    assert {"max_model_len='8192'", "gpu_memory_utilization='0.9'", "tp=None", "dtype=''"} <= scored
    assert not {"no model", "no vllm_version", "no max_model_len", "max_model_len='many'", "vllm_version='many'"} & scored
    run(path)


@pytest.mark.parametrize(
    ("name", "more", "billions", "bits"),
    [
        ("moonshotai/Kimi-K2-Thinking", {"quant": "int4-experts"}, 1026, None),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", {}, 8, "awq"),  # no quant: the name tells
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", {"quant": "w8a8"}, 8, "int8"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507-FP8", {"quant": "fp8_dynamic"}, 30.5, "fp8"),
        ("Qwen/Qwen3-32B-FP8", {}, 32.8, "fp8"),
        ("Qwen/Qwen3-32B", {"quant": "bf16"}, 32.8, None),
        ("openai/gpt-oss-20b", {}, 20.9, "mxfp4"),
    ],
)
def test_variants_have_the_shapes_of_their_model(name, more, billions, bits):
    configs = score._data.load("model_configs")["models"]
    model = score.find_model(name, configs, more)
    assert parameters(model)[0] / 1e9 == pytest.approx(billions, rel=0.02)
    if bits:
        assert model.quantisation == bits


def test_versions_newer_than_the_table_are_scored(tmp_path):
    path = tmp_path / "points.json"
    versions = ["0.34.0", "v0.40.1rc2", "1.2.0", "0.33.0+cu130", 0.19]
    path.write_text(json.dumps([{**FULL, "id": str(version), "vllm_version": version} for version in versions]), encoding="utf-8")
    assert len(run(path, "--json")["rows"]) == len(versions)


def test_configs_of_ones_own(tmp_path):
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 32000, "num_hidden_layers": 32}
    (tmp_path / "configs.json").write_text(json.dumps({"nobody/novel-7b": {**config, "intermediate_size": 11008}}), encoding="utf-8")
    point = {"id": "c", "model": "nobody/novel-7b", "gpu": "L4", "vllm_version": "0.30.0", "max_model_len": 4096, "weights_gib": 12.56}
    (tmp_path / "points.json").write_text(json.dumps([point]), encoding="utf-8")
    result = run(tmp_path / "points.json", "--configs", str(tmp_path / "configs.json"), "--json")
    assert abs(result["rows"][0]["weights_percent"]) < 0.5


def test_a_config_of_ones_own_wins_over_the_built_in_one_of_that_name():
    shipped = score._data.load("model_configs")["models"]
    name = "Qwen/Qwen3-8B"
    assert score.find_model(name, shipped, {}).layers == 36
    assert score.find_model(name, {**shipped, name: {**shipped[name], "num_hidden_layers": 12}}, {}).layers == 12


def test_how_a_point_is_quantised_wins_over_its_config_wherever_that_says_it():
    text = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 512, "intermediate_size": 128}
    config = {"architectures": ["LlamaForCausalLM"], "text_config": {**text, "quantization_config": {"quant_method": "fp8"}}}
    assert score.find_model("acme/m", {"acme/m": config}, {"quant": "bf16"}).quantisation is None
    assert score.find_model("acme/m", {"acme/m": config}, {}).quantisation == "fp8"


@pytest.mark.parametrize(
    ("key", "value"),
    [("tp", 0), ("pp", -1), ("dcp", 0), ("block_size", 0), ("gpu_memory_utilization", 0), ("gpu_memory_utilization", 1.5), ("gpu_memory_utilization", -0.1)],
)
def test_what_no_server_can_have_is_not_scored(key, value):
    result = score.score([{**FULL, key: value}], score._data.load("model_configs")["models"])
    assert result["rows"] == []
    assert f"{key} {value}" in result["skipped"][0]["reason"]


def test_types_in_capitals_and_no_memory_at_all_are_understood():
    configs = score._data.load("model_configs")["models"]
    usual, odd = (score.score_point({**FULL, **more}, configs) for more in ({}, {"dtype": "BF16", "kv_cache_dtype": "Auto"}))
    assert odd == usual
    none, absent = (score.score_point({**FULL, "gpu_total_gib": given}, configs) for given in (0, None))
    assert none == absent


MEASURED = {"id": "t", "model": "Qwen/Qwen3-8B", "gpu": "L4", "tp": 1, "engine": "vLLM 0.30.0", "workload": "concurrency 8", "mean_tpot_ms": 60}
MEASURED |= {"output_tok_s": 130, "mean_in": 500, "mean_out": 200, "precision": "bf16", "command": "vllm serve"}


def test_no_value_of_any_field_ends_the_score_of_throughputs(tmp_path):
    points = [{**MEASURED, "id": f"{key}={value!r}", key: value} for key in MEASURED if key != "id" for value in ODD]
    points += [None, "text", 7, [], {**MEASURED, "id": "text", "output_tok_s": "130", "mean_in": "500", "mean_out": "200", "tp": "1"}, MEASURED]
    configs = score._data.load("model_configs")["models"]
    result = score_throughput.score(points, configs)
    assert len(result["rows"]) + len(result["skipped"]) == len(points)
    whole, text = result["rows"][-1], result["rows"][-2]
    assert (text["id"], text["predicted"]) == ("text", whole["predicted"])
    (tmp_path / "points.json").write_text(json.dumps(points), encoding="utf-8")
    script = SCORE.with_name("score_throughput.py")
    subprocess.run([sys.executable, str(script), "--points", str(tmp_path / "points.json")], capture_output=True, timeout=60, check=True)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [None, "text"],
        [{**FULL, "vllm_version": "0.8.5"}],
        [{**FULL, "activation_gib": None, "non_torch_gib": "many"}, {**FULL, "id": [], "model": "google/gemma-2-27b-it", "activation_gib": "1.5"}],
    ],
)
def test_no_point_ends_the_cross_validation(points, tmp_path, monkeypatch, capsys):
    (tmp_path / "points.json").write_text(json.dumps(points), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["cross_validate.py", "--points", str(tmp_path / "points.json")])
    assert cross_validate.main() == 0
    assert ("largest over-prediction" if len(points) == 2 and points[0] else "no start-up") in capsys.readouterr().out
