# SPDX-License-Identifier: GPL-3.0-or-later
"""The score meets the bar, and survives points it has never seen."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_configs_of_ones_own(tmp_path):
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 32000, "num_hidden_layers": 32}
    (tmp_path / "configs.json").write_text(json.dumps({"nobody/novel-7b": {**config, "intermediate_size": 11008}}), encoding="utf-8")
    point = {"id": "c", "model": "nobody/novel-7b", "gpu": "L4", "vllm_version": "0.30.0", "max_model_len": 4096, "weights_gib": 12.56}
    (tmp_path / "points.json").write_text(json.dumps([point]), encoding="utf-8")
    result = run(tmp_path / "points.json", "--configs", str(tmp_path / "configs.json"), "--json")
    assert abs(result["rows"][0]["weights_percent"]) < 0.5
