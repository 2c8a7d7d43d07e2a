# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan takes from the fit arithmetic: placement, limits, resources, the scaler's target; and what it says about it."""

import json
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils._model_source import Readers
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan
from ansible_collections.llmops.eks.plugins.module_utils._prices import Price, Prices

LLAMA = {"name": "llama", "source": "s3://acme/llama/", "config": "meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 16384}
LARGE = {**LLAMA, "config": "meta-llama/Llama-3.3-70B-Instruct", "max_model_len": 8192}


def planned(model, **changes):
    """(the planned model, its rows)"""
    (result,), rows = plan([{**model, **changes}], {}, "llm-serving")
    assert [row for row in rows if row["severity"] == "error"] == []
    return result, rows


def documented(heading: str) -> set[str]:
    page = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split(heading)[1].split("\n\n")[1]
    return {name.strip().strip("`") for line in table.splitlines()[2:] for name in line.split("|")[1].split(",")}


def test_the_plan_has_the_documented_shape_and_is_plain_data():
    model, _rows = planned(LLAMA)
    assert set(model["fit"]) == documented("`fit`, of the tightest")
    assert documented("| key of a planned model") <= set(model)
    assert json.loads(json.dumps(model)) == model


def test_the_fit_is_that_of_the_placement_and_its_terms_add_up():
    model, _rows = planned(LLAMA)
    fit = model["fit"]
    assert fit["verdict"] == "FITS"
    assert fit["budget_gib"] - sum(term["gib"] for term in fit["terms"]) == pytest.approx(fit["kv_gib"], abs=0.02)
    assert fit["kv_gib"] - fit["needed_gib"] == pytest.approx(fit["margin_gib"], abs=0.02)
    assert fit["gpu"] in ("L4", "A10G")
    assert model["choice"]["instance_type"] == model["instance_types"][0] == "g6.2xlarge"
    assert fit["source"].startswith("entry meta-llama/Llama-3.1-8B-Instruct of the built-in table")


def test_size_and_sequences_are_computed_when_not_given_and_kept_when_given():
    free, _rows = planned(LLAMA)
    assert free["weights"]["size_gib"] == 15.0
    assert free["max_num_seqs"] == 24
    assert free["explain"]["max_num_seqs"][0].startswith("28.2 requests of 1280 tokens fit into the KV cache of L4 at once")
    kept, _rows = planned(LLAMA, max_num_seqs=40, weights={"size_gib": 15.2})
    assert (kept["max_num_seqs"], kept["weights"]["size_gib"]) == (40, 15.2)
    assert "max_num_seqs" not in kept["explain"]


def test_the_scaler_follows_what_the_cache_holds_not_what_may_queue():
    model, _rows = planned(LLAMA, max_num_seqs=200)
    held = model["fit"]["concurrency_expected"]
    assert held < 200
    assert model["autoscaling"]["concurrency"] == int(0.6 * held)
    assert "which the KV cache holds" in model["explain"]["autoscaling.concurrency"][0]
    given, _rows = planned(LLAMA, autoscaling={"concurrency_per_replica": 7})
    assert given["autoscaling"]["concurrency"] == 7


def test_traffic_decides_sequences_and_the_type():
    model, _rows = planned(LLAMA, traffic={"prompt_tokens": 4000, "answer_tokens": 1000, "concurrent_requests": 32})
    assert model["instance_types"][0] == "g6e.2xlarge"
    assert model["max_num_seqs"] == 32
    assert model["fit"]["expected_tokens"] == 5000
    few, rows = planned(LLAMA, traffic={"concurrent_requests": 64}, gpu_names=["l4"], tensor_parallel_size=1)
    (row,) = (row for row in rows if row["check"] == "concurrency")
    assert (row["severity"], row["needed"]) == ("warning", "traffic.concurrent_requests 64")
    assert few["max_num_seqs"] < 64


def test_a_length_that_does_not_fit_is_replaced_by_one_that_does_and_that_is_said():
    model, rows = planned({key: value for key, value in LLAMA.items() if key != "max_model_len"})
    assert 8192 <= model["max_model_len"] < 131072
    assert f"--max-model-len={model['max_model_len']}" in model["args"]
    (row,) = (row for row in rows if row["check"] == "max_model_len")
    assert row["severity"] == "info"
    assert "131072" in row["needed"]
    whole, rows = planned({key: value for key, value in LLAMA.items() if key != "max_model_len"}, gpu_names=["h100"])
    assert whole["max_model_len"] == 131072
    assert rows == []


def test_a_length_that_is_tight_is_not_said_to_fit():
    free = {key: value for key, value in LLAMA.items() if key != "max_model_len"}
    model, rows = planned(free, gpu_names=["l4"], tensor_parallel_size=1, gpu_memory_utilization=0.99)
    assert model["fit"]["verdict"] == "TIGHT"
    (row,) = (row for row in rows if row["check"] == "max_model_len")
    assert f"{model['max_model_len']} tokens are TIGHT on" in row["found"]
    assert model["explain"]["max_model_len"][0].startswith("TIGHT on g6.")


@pytest.mark.parametrize(("changes", "fix"), [({"max_model_len": 4096}, "raise max_model_len"), ({"config": "microsoft/phi-4"}, "a longer context")])
def test_traffic_that_no_request_may_have_is_refused(changes, fix):
    base = {key: value for key, value in LLAMA.items() if key != "max_model_len"}
    _models, rows = plan([{**base, "traffic": {"prompt_tokens": 16000, "answer_tokens": 500}, **changes}], {}, "llm-serving")
    (row,) = rows
    assert (row["check"], row["severity"]) == ("traffic", "error")
    assert row["found"].endswith("= 16500")
    assert fix in row["fix"]


def test_a_length_that_nobody_states_refuses_no_traffic():
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8}
    model, rows = planned(
        {"name": "m", "source": "s3://acme/m/", "config": {**config, "vocab_size": 32000, "intermediate_size": 14336}}, traffic={"prompt_tokens": 16000}
    )
    assert "traffic" not in [row["check"] for row in rows]
    assert "--max-model-len=auto" in model["args"]


def test_tight_is_a_warning_with_the_first_change():
    model, rows = planned(LLAMA, max_model_len=30720, gpu_names=["l4"], tensor_parallel_size=1)
    assert model["fit"]["verdict"] == "TIGHT"
    (row,) = (row for row in rows if row["check"] == "fit")
    assert row["severity"] == "warning"
    assert row["fix"] == model["fit"]["fix"]["text"]
    smaller, rows = planned(LLAMA, max_model_len=int(model["fit"]["fix"]["value"]), gpu_names=["l4"], tensor_parallel_size=1)
    assert smaller["fit"]["verdict"] == "FITS"
    assert rows == []


def test_what_does_not_fit_is_refused_with_the_sum_and_the_way_out():
    (model,), rows = plan([{**LARGE, "gpu_names": ["a10g"], "tensor_parallel_size": 4}], {}, "llm-serving")
    (row,) = rows
    assert (row["check"], row["severity"]) == ("fit", "error")
    assert row["found"].startswith("15.4 GiB a GPU too little on g5.12xlarge (A10G) with tensor_parallel_size 4")
    assert "weights 32.9 GiB" in row["needed"]
    assert row["fix"].startswith("use an AWQ checkpoint of the model")
    assert "allow g6e.12xlarge (gpu_names l40s), where tensor_parallel_size 4 FITS for 10.49 USD/h" in row["fix"]
    assert model["fit"]["verdict"] == "NO"


def test_only_types_with_the_same_gpus_a_node_and_a_fit_are_given_to_karpenter():
    model, _rows = planned(LARGE, gpu_names=["l4", "a10g", "l40s"])
    assert model["tensor_parallel_size"] == model["gpus"] == 4
    assert model["instance_types"] == ["g6e.12xlarge", "g6e.24xlarge"]
    assert model["gpu_names"] == ["l40s"]
    assert {row["instance_type"] for row in model["alternatives"]} >= {"g6.48xlarge", "g6e.48xlarge"}


def test_every_type_is_chosen_shown_or_rejected():
    from ansible_collections.llmops.eks.plugins.module_utils import _instances

    model, _rows = planned(LLAMA)
    rejected = {name for row in model["rejected"] for name in row["instance_types"]}
    shown = {row["instance_type"] for row in [model["choice"], *model["alternatives"]]}
    assert rejected | shown | set(model["instance_types"]) == set(_instances.table())


def test_prices_decide_and_are_named():
    class Cheap(Prices):
        def of(self, instance_type):
            return Price(0.1 if instance_type == "g5.2xlarge" else 5.0, None, "test prices")

    (model,), _rows = plan([LLAMA], {}, "llm-serving", Readers.none(), Cheap())
    assert model["instance_types"][0] == "g5.2xlarge"
    assert model["choice"]["price_source"] == "test prices"


def test_rows_of_prices_come_once():
    prices = Prices.table()
    prices.rows.append({"check": "prices", "severity": "warning", "subject": "", "found": "", "needed": "", "fix": ""})
    _models, rows = plan([LLAMA, {**LLAMA, "name": "two"}], {}, "llm-serving", Readers.none(), prices)
    assert [row["check"] for row in rows] == ["prices"]


def test_flags_beside_the_keys_count():
    plain, fp8 = (planned(LLAMA, extra_args=arguments)[0]["fit"] for arguments in ([], ["--kv-cache-dtype=fp8"]))
    assert fp8["kv_tokens"] > 1.7 * plain["kv_tokens"]
    eager = planned(LLAMA, extra_args=["--enforce-eager"])[0]["fit"]
    assert next(term["gib"] for term in eager["terms"] if term["name"] == "cuda_graphs") == 0
    lora = planned(LLAMA, extra_args=["--enable-lora", "--max-loras=4", "--max-lora-rank=64"])[0]["fit"]
    assert next(term["why"] for term in lora["terms"] if term["name"] == "lora_slots") == "4 adapter(s) of rank 64"
    online = planned(LLAMA, extra_args=["--quantization=fp8"])[0]["fit"]
    assert online["weights_gib"] < 0.65 * plain["weights_gib"]
    draft = json.dumps({"method": "draft_model", "model": "meta-llama/Llama-3.2-1B-Instruct", "num_speculative_tokens": 4})
    assert any(term["name"] == "draft_weights" for term in planned(LLAMA, extra_args=[f"--speculative-config={draft}"])[0]["fit"]["terms"])


@pytest.mark.parametrize(
    "argument",
    [
        "--max-num-batched-tokens=8k",
        "--block-size=0",
        "--kv-cache-dtype=nvfp4",
        "--speculative-config={",
        "--speculative-config=[1]",
        '--speculative-config={"num_speculative_tokens": "x"}',
        '--speculative-config={"model": "acme/draft"}',
        "--cpu-offload-gb=8",
        "--kv-cache-memory-bytes=4G",
        "--performance-mode=throughput",
        "--quantization=bitsandbytes",
    ],
)
def test_a_flag_whose_memory_is_not_counted_is_a_warning(argument):
    _model, rows = planned(LLAMA, extra_args=[argument])
    (row,) = (row for row in rows if row["check"] == "fit_flag")
    assert row["severity"] == "warning"
    assert row["found"] == argument


def test_flags_that_change_no_memory_are_no_warning():
    assert planned(LLAMA, extra_args=["--performance-mode=balanced", "--quantization=fp8", "--no-enforce-eager"])[1] == []


def test_flags_in_another_spelling_count_too():
    hybrid = {**LLAMA, "config": "Qwen/Qwen3.5-9B", "gpu_names": ["l40s"], "max_num_seqs": 16}
    off = [planned(hybrid, extra_args=[flag])[0]["fit"]["kv_tokens"] for flag in ("--disable-prefix-caching", "--no-enable-prefix-caching")]
    assert off[0] == off[1] > planned(hybrid)[0]["fit"]["kv_tokens"]
    keys = ["--speculative-config.method=mtp", "--speculative-config.num_speculative_tokens=2"]
    whole = ['--speculative-config={"method": "mtp", "num_speculative_tokens": 2}']
    dotted, one = (planned(hybrid, extra_args=arguments)[0]["fit"] for arguments in (keys, whole))
    assert dotted == one
    assert one["kv_tokens"] < planned(hybrid)[0]["fit"]["kv_tokens"]


def test_a_stretched_rope_allows_a_longer_context():
    override = '--hf-overrides={"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}'
    model, _rows = planned(LLAMA, extra_args=[override], max_model_len=150000, gpu_names=["h100"])
    assert model["fit"]["max_model_len"] == 150000


def test_a_size_that_contradicts_the_model_is_a_warning():
    model, rows = planned(LLAMA, weights={"size_gib": 60})
    (row,) = rows
    assert (row["check"], row["severity"]) == ("weights_size", "warning")
    assert model["fit"]["weights_gib"] < 16


def test_a_size_that_contradicts_a_guess_by_name_makes_the_model_unknown():
    guess = {"name": "m", "source": "s3://acme/llama-3.1-8b/"}
    model, rows = planned(guess, weights={"size_gib": 5.4})  # another quantisation
    assert [row["check"] for row in rows] == ["model_unknown"]
    assert model["fit"] is None
    assert planned(guess, weights={"size_gib": 15})[0]["fit"]["verdict"] == "FITS"


def test_an_architecture_that_is_not_understood_is_placed_by_its_size_with_the_figures_marked():
    config = {"architectures": ["NovelForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8}
    config |= {"vocab_size": 128256, "intermediate_size": 14336, "max_position_embeddings": 8192}
    model, rows = planned({"name": "novel", "source": "s3://acme/novel/", "config": config})
    assert model["fit"]["verdict"] == "UNKNOWN"
    assert model["choice"] is None
    assert any(row["check"] == "model_unknown" and row["severity"] == "warning" for row in rows)
    assert model["weights"]["size_gib"] == pytest.approx(15, abs=0.2)
    assert model["instance_types"][0] == "g6.2xlarge"


def test_resources_can_be_set_one_by_one():
    resources = planned(LLAMA, resources={"memory": "6Gi"})[0]["resources"]
    assert (resources["memory"], resources["memory_limit"]) == ("6Gi", "6Gi")
    resources = planned(LLAMA, resources={"memory_limit": "8Gi"})[0]["resources"]
    assert (resources["memory"], resources["memory_limit"]) == ("8Gi", "8Gi")
    resources = planned(LLAMA, resources={"shm": "3Gi", "cpu": "5"})[0]["resources"]
    assert (resources["shm"], resources["cpu"], resources["memory"]) == ("3Gi", "5", "10Gi")


def test_removal_asks_nobody_and_refuses_nothing_about_serving():
    def ask(*_arguments):
        pytest.fail("asked")

    readers = Readers(s3=ask, hub=ask, local=ask, volume=ask)
    models = [{**LARGE, "gpu_names": ["t4"], "max_model_len": 10**6, "extra_args": ["--nonsense"]}, {"name": "two", "source": "pvc://claim/two"}]
    planned_models, rows = plan(models, {}, "llm-serving", readers, Prices.live("eu-central-1", ask), removing=True)
    assert rows == []
    assert [model["weights"]["claim"] for model in planned_models] == ["llama-weights", "claim"]
    assert [model["gpus"] for model in planned_models] == [1, 1]
    assert planned_models[0]["gpu_names"] == ["t4"]
    assert planned_models[0]["budgets"]["grace"] == 165


def test_nobody_is_asked_for_a_model_that_leaves():
    def ask(*_arguments):
        pytest.fail("asked")

    _models, rows = plan([{"name": "old", "state": "absent"}], {}, "llm-serving", Readers(s3=ask, hub=ask), Prices.live("eu-central-1", ask))
    assert rows == []
