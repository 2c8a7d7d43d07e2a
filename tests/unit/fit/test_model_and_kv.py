# SPDX-License-Identifier: GPL-3.0-or-later
"""config.json to layers, bytes to tokens: against figures that vLLM logged or its formulas worked out by hand."""

import json
from dataclasses import replace

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _data, _fit
from ansible_collections.llmops.eks.plugins.module_utils._fit_engine import resolve, version
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import (
    Stage,
    checkpoint_formula_bytes,
    expert_padding,
    parameters,
    stages,
    weight_bytes,
)

GIB = 2**30


def table(name):
    return _fit.ModelDescription.from_table(name)


def pool(model, gpu="H100", **settings):
    engine = resolve(_fit.Engine(**settings), model, _fit.find_gpu(gpu))
    return _fit.kv_layout(model, engine), engine, version(engine.vllm_version).constants


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("Qwen/Qwen3-30B-A3B", 30.5),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62),
        ("google/gemma-2-27b-it", 27.2),
        ("google/gemma-3-12b-it", 12.2),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", 15.7),
        ("deepseek-ai/DeepSeek-R1", 671),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7),
        ("openai/gpt-oss-20b", 20.9),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 109),
    ],
)
def test_parameters_are_the_published_ones(name, billions):
    assert parameters(table(name))[0] / 1e9 == pytest.approx(billions, rel=0.015)


def test_parameters_a_token_uses():
    assert parameters(table("Qwen/Qwen3-30B-A3B"))[1] / 1e9 == pytest.approx(3.3, rel=0.1)


def test_llama_bytes_a_token():
    layout, _, _ = pool(table("meta-llama/Llama-3.1-8B-Instruct"))
    assert layout.block_bytes == 16 * 131_072
    assert layout.tokens(GIB, 8192, True) == 8192


def test_kv_heads_are_replicated_beyond_their_number():
    model = table("Qwen/Qwen3-30B-A3B")  # 4 KV heads
    four, eight = (pool(model, tensor_parallel=tp)[0].block_bytes for tp in (4, 8))
    assert four == eight == pool(model)[0].block_bytes // 4


def test_mla_is_whole_on_every_gpu_and_fp8_halves_it():
    model = table("deepseek-ai/DeepSeek-R1")
    one, eight = (pool(model, tensor_parallel=tp)[0].block_bytes for tp in (1, 8))
    assert one == eight == 16 * 61 * 576 * 2
    assert pool(model, kv_cache_dtype="fp8")[0].block_bytes == one // 2


def test_the_sparse_indexer_adds_132_bytes():
    assert pool(table("zai-org/GLM-5-FP8"))[0].block_bytes == 16 * 78 * (576 * 2 + 132)


@pytest.mark.parametrize(("version_", "in_flight"), [("0.19.0", 8192), ("0.26.0", 16384)])
def test_a_sliding_window_holds_window_and_tokens_in_flight(version_, in_flight):
    layout, _, _ = pool(table("google/gemma-3-12b-it"), vllm_version=version_, max_model_len=65536)
    # 8 full and 40 sliding layers: groups of 8, one full and five sliding.
    assert [group.groups for group in layout.groups] == [1, 5]
    assert layout.blocks_per_request(65536) == 65536 // 16 + 5 * (-(-(1023 + in_flight) // 16) + 1)


def test_a_hybrid_model_grows_its_block_to_hold_a_state():
    layout, _, _ = pool(table("Qwen/Qwen3.5-9B"), "L40S")
    assert layout.groups[0].block_tokens == 528  # the log line of vLLM
    fp8, _, _ = pool(table("Qwen/Qwen3.5-27B"), "L40S", kv_cache_dtype="fp8")
    assert fp8.groups[0].block_tokens == 1568  # the same


def test_gemma_4_has_its_own_number_of_global_heads_only_where_keys_are_values():
    config = {"architectures": ["Gemma4ForCausalLM"], "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
    config |= {"num_hidden_layers": 2, "head_dim": 64, "global_head_dim": 128, "num_global_key_value_heads": 1, "sliding_window": 512}
    config |= {"layer_types": ["sliding_attention", "full_attention"], "intermediate_size": 256}
    heads = [_fit.ModelDescription.from_config({**config, "attention_k_eq_v": same}).attention[0].kv_heads for same in (True, False)]
    assert heads == [1, 2]


def test_prefix_caching_costs_a_hybrid_model_a_second_state():
    model = table("Qwen/Qwen3.5-9B")
    on, off = (pool(model, "L4", prefix_caching=value)[0].blocks_per_request(8192) for value in (True, False))
    assert on - off == 3  # three groups of linear layers
    assert [pool(model, vllm_version=number)[1].prefix_caching for number in ("0.27.0", "0.28.0")] == [False, True]


@pytest.mark.parametrize(
    ("name", "version_", "gpu", "states", "block"),
    [
        ("Qwen/Qwen3.5-9B", "0.33.0", "H100", 3, 576),  # FlashInfer's kernels export checkpoints, on blocks of 64
        ("Qwen/Qwen3.5-9B", "0.33.0", "RTX PRO 6000", 3, 576),
        ("Qwen/Qwen3.5-9B", "0.33.0", "L40S", 2, 528),  # Triton's kernels do not
        ("Qwen/Qwen3.5-9B", "0.32.0", "H100", 2, 528),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "0.32.0", "L40S", 3, None),  # Mamba-2 does since 0.32
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "0.31.0", "L40S", 2, None),
    ],
)
def test_a_checkpoint_of_the_prefix_cache_is_one_more_state(name, version_, gpu, states, block):
    layout, engine, _ = pool(table(name), gpu, vllm_version=version_)
    assert (engine.prefix_caching, engine.linear_states) == (True, states)
    assert block in (None, layout.groups[0].block_tokens)
    assert pool(table(name), gpu, vllm_version=version_, prefix_caching=False)[1].linear_states == 1


def test_a_pipeline_keeps_more_batches_in_flight():
    model = table("google/gemma-3-12b-it")
    held = [pool(model, vllm_version="0.33.0", pipeline_parallel=stages)[0].request.in_flight_tokens // 8192 for stages in (1, 2, 4)]
    assert held == [2, 3, 5]
    assert pool(model, vllm_version="0.19.0", pipeline_parallel=4)[0].request.in_flight_tokens == 8192
    assert pool(model, vllm_version="0.33.0", async_scheduling=False)[0].request.in_flight_tokens == 8192


def test_chunked_attention_is_full_attention_before_its_hybrid_groups():
    model = table("meta-llama/Llama-4-Scout-17B-16E-Instruct")
    assert len(pool(model, vllm_version="0.12.0")[0].groups) == 1
    assert [group.groups for group in pool(model, vllm_version="0.19.0")[0].groups] == [1, 3]


def test_logged_tokens_from_logged_memory():
    # GB10, vLLM 0.23.1, fp8 KV cache: 47.84 GiB gave 1,505,068 tokens.
    layout, _, constants = pool(
        table("nvidia/Qwen3.6-27B-NVFP4"),
        vllm_version="0.23.1",
        kv_cache_dtype="fp8",
        max_model_len=262144,
        max_num_seqs=8,
        max_num_batched_tokens=65536,
        prefix_caching=True,
    )
    assert layout.tokens(47.84 * GIB, 262144, constants["tokens_by_concurrency"]) == pytest.approx(1_505_068, rel=2e-4)


def test_stages_leave_the_remainder_before_the_last():
    model = table("meta-llama/Llama-3.1-8B-Instruct")
    assert [(stage.layers, stage.first, stage.last) for stage in stages(model, 3)] == [(11, True, False), (11, False, False), (10, False, True)]


def test_a_checkpoints_size_scales_the_formula():
    model = table("meta-llama/Llama-3.1-8B-Instruct")
    whole = Stage(32, True, True)
    config = json.loads(json.dumps(_data.load("model_configs")["models"][model.name]))
    given = _fit.ModelDescription.from_config(config, checkpoint_bytes=int(checkpoint_formula_bytes(model) * 1.1))
    plain, scaled = (weight_bytes(m, 1, whole, "bfloat16") for m in (model, given))
    assert scaled["layers"] == pytest.approx(1.1 * plain["layers"], rel=1e-6)
    assert scaled["rotary"] == plain["rotary"]


def test_tensors_of_the_checkpoint_need_no_formula():
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 1, "vocab_size": 128}
    config |= {"num_hidden_layers": 1, "intermediate_size": 256, "max_position_embeddings": 1024}
    tensors = {
        "model.embed_tokens.weight": ("BF16", (128, 64)),
        "lm_head.weight": ("BF16", (128, 64)),
        "model.layers.0.self_attn.q_proj.weight": ("F8_E4M3", (64, 64)),
        "model.layers.0.self_attn.k_proj.weight": ("F8_E4M3", (16, 64)),
        "model.layers.0.input_layernorm.weight": ("BF16", (64,)),
        "model.layers.1.mlp.up_proj.weight": ("BF16", (256, 64)),  # a multi-token-prediction layer: not loaded
    }
    model = _fit.ModelDescription.from_config(config, tensors=tensors)
    parts = weight_bytes(model, 2, Stage(1, True, True), "bfloat16")
    assert parts["embedding"] == 2 * 128 * 64 * 2 / 2
    assert parts["layers"] == 64 * 64 / 2 + 16 * 64 + 64 * 2  # one KV head is on both GPUs, the norm too


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}}}, "int4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}}}, "int8"),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.0.self_attn"]}, "fp8-mlp"),
    ],
)
def test_quantisation_is_read_from_the_config(settings, expected):
    config = {**_data.load("model_configs")["models"]["meta-llama/Llama-3.1-8B-Instruct"], "quantization_config": settings}
    assert _fit.ModelDescription.from_config(config).quantisation == expected


def test_an_unknown_quantisation_makes_the_model_unknown():
    config = {**_data.load("model_configs")["models"]["meta-llama/Llama-3.1-8B-Instruct"], "quantization_config": {"quant_method": "hqq"}}
    assert "hqq" in _fit.ModelDescription.from_config(config).unknown[0]


def test_biases_of_experts_are_float32_where_triton_runs_them():
    model = table("openai/gpt-oss-120b")
    whole = Stage(model.layers, True, True)
    without = replace(model, experts=replace(model.experts, bias=False))
    for padding, width, columns, size in ((expert_padding(False), 3072, 2880, 4), (expert_padding(True), 2944, 3072, 2)):
        more = weight_bytes(model, 1, whole, "bfloat16", padding)["layers"] - weight_bytes(without, 1, whole, "bfloat16", padding)["layers"]
        assert more == pytest.approx(36 * 128 * (2 * width + columns) * size, rel=1e-6)


def test_a_multimodal_config_is_read_from_its_text_part():
    text = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 36, "vocab_size": 151936, "intermediate_size": 12288}
    text["max_position_embeddings"] = 262144
    vision = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16, "spatial_merge_size": 2}
    model = _fit.ModelDescription.from_config(
        {"architectures": ["Qwen3VLForConditionalGeneration"], "tie_word_embeddings": False, "text_config": {**text, "head_dim": 128}, "vision_config": vision}
    )
    assert model.layers == 36
    assert (model.vision.tokens_per_image, model.vision.patches_per_image) == (16384, 65536)
    assert not model.unknown


def test_every_model_of_the_table_gives_an_answer():
    gpu, seen = _fit.find_gpu("B300"), set()
    for name in _data.load("model_configs")["models"]:
        fit = _fit.estimate(table(name), gpu, _fit.Engine(tensor_parallel=8, max_model_len=4096))
        seen.add(fit.verdict)
        assert fit.weights_gib > 0, name
        assert fit.needed_gib > 0, name
    assert _fit.FITS in seen
    assert _fit.UNKNOWN in seen


DENSE = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 512}
DENSE |= {"intermediate_size": 128, "max_position_embeddings": 4096}
EXPERTS = {**DENSE, "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def described(config=DENSE, **changes):
    return _fit.ModelDescription.from_config({**config, **changes})


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (["lm_head"], "fp8"),
        (["model.layers.0.linear_attn.conv1d", "model.layers.0.linear_attn.in_proj_a", "lm_head"], "fp8"),
        (["model.layers.0.self_attn.indexer.weights_proj"], "fp8"),
        (["model.visual.blocks.0.attn"], "fp8"),
        (["model.layers.0.linear_attn"], "fp8-mlp"),
        (["model.layers.0.self_attn.q_proj"], "fp8-mlp"),
        (["re:.*self_attn.*"], "fp8-mlp"),
        (["model.layers.0.self_attn"], "fp8-mlp"),
    ],
)
def test_attention_in_16_bit_is_told_from_one_small_part_of_it(kept, expected):
    assert described(quantization_config={"quant_method": "fp8", "modules_to_not_convert": kept}).quantisation == expected


def test_four_bits_beside_an_attention_in_16_go_to_the_experts_or_to_all_mlps():
    settings = {"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 4, "type": "int"}}}, "ignore": ["re:.*self_attn.*"]}
    dense, experts = (described(config, quantization_config=settings) for config in (DENSE, EXPERTS))
    assert (dense.quantisation, experts.quantisation) == ("int4-mlp", "int4-experts")
    plain = described()
    mlp = 3 * 64 * 128 * 2
    assert checkpoint_formula_bytes(plain) - checkpoint_formula_bytes(dense) == pytest.approx(mlp * (2 - 0.515625))


def test_tensors_of_multi_token_prediction_are_not_loaded():
    own = {"model.layers.1.mlp.up_proj.weight": ("BF16", (64, 128)), "model.embed_tokens.weight": ("BF16", (512, 64))}
    more = {"mtp.layers.0.mlp.up_proj.weight": ("BF16", (64, 128)), "mtp.embed_tokens.weight": ("BF16", (512, 64))}
    more |= {"model.layers.2.mlp.up_proj.weight": ("BF16", (64, 128)), "model.layers.2.embed_tokens.weight": ("BF16", (512, 64))}
    model = described()
    without, with_them = (weight_bytes(replace(model, tensors=tensors), 1, Stage(2, True, True), "bfloat16") for tensors in (own, own | more))
    assert with_them == without


def test_a_checkpoints_bytes_hold_its_layers_of_multi_token_prediction():
    model = replace(table("deepseek-ai/DeepSeek-R1"), checkpoint_bytes=688_586_727_753)
    assert model.mtp_layers == 1
    gib = sum(weight_bytes(model, 8, Stage(61, True, True), "bfloat16").values()) / GIB
    assert gib == pytest.approx(79.6, abs=0.6)  # 81.37 with them


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 8192),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": {"rope_type": "default"}}}, 8192),
        ({"rope_scaling": {"rope_type": "linear", "factor": None}}, 4096),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 4096),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "architectures": ["Gemma3ForCausalLM"]}, 4096),
    ],
)
def test_linear_and_dynamic_ropes_lengthen_the_context(changes, longest):
    assert described(**changes).max_model_len == longest


def test_a_length_that_is_not_stated_is_unknown_and_refuses_none():
    model = described(max_position_embeddings=None)
    fit = _fit.estimate(model, _fit.find_gpu("L4"), _fit.Engine(max_model_len=32768))
    assert fit.verdict == _fit.UNKNOWN
    assert [row["severity"] for row in fit.problems] == ["warning"]
    assert "max_position_embeddings" in fit.problems[0]["found"]


def test_an_image_may_have_two_sides():
    sides, one = (described(vision_config={"image_size": size, "patch_size": patch}) for size, patch in (([448, 336], [14, 14]), (448, 14)))
    assert sides.vision == one.vision


@pytest.mark.parametrize(
    ("architecture", "refused"),
    [
        ("Gemma2ForCausalLM", True),
        ("Gemma3ForConditionalGeneration", True),
        ("Glm4ForCausalLM", True),
        ("Glm4MoeForCausalLM", False),
        ("LlamaForCausalLM", False),
    ],
)
def test_float16_is_refused_for_the_models_that_vllm_names(architecture, refused):
    fit = _fit.estimate(replace(described(), architecture=architecture), _fit.find_gpu("T4"), _fit.Engine(max_model_len=2048))
    assert ("dtype" in [row["check"] for row in fit.problems]) is refused


def test_the_architecture_is_that_of_the_whole_model():
    text = {key: value for key, value in DENSE.items() if key != "architectures"} | {"sliding_window": 512, "num_hidden_layers": 12}
    plain, with_null = (
        described({"architectures": ["Gemma3ForConditionalGeneration"]}, text_config=text | more).attention for more in ({}, {"architectures": None})
    )
    assert plain == with_null
    assert [(kind.kind, kind.count) for kind in plain] == [("full", 2), ("sliding", 10)]
