# SPDX-License-Identifier: GPL-3.0-or-later
"""The sum, the verdict and what would change it."""

from dataclasses import replace

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _fit, _fit_fix
from ansible_collections.llmops.eks.plugins.module_utils._fit_engine import resolve, v2_runner, version
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import Stage, checkpoint_formula_bytes, undivided, weight_bytes

LLAMA = _fit.ModelDescription.from_table("meta-llama/Llama-3.1-8B-Instruct")
A10G, H100, T4, L40S = (_fit.find_gpu(name) for name in ("A10G", "H100", "T4", "L40S"))


def estimate(model=LLAMA, gpu=A10G, **settings):
    return _fit.estimate(model, gpu, _fit.Engine(**settings))


def test_the_terms_add_up_to_the_budget():
    fit = estimate(max_model_len=8192)
    assert sum(term.gib for term in fit.terms) + fit.available_gib == pytest.approx(0.92 * 22.06)
    assert fit.weights_gib == pytest.approx(14.989, abs=0.005)  # logged by vLLM for this model
    assert fit.verdict == _fit.FITS
    assert fit.margin_gib == pytest.approx(fit.available_gib - fit.needed_gib)
    assert all(term.why for term in fit.terms)
    assert any("14.99 GiB" in line for line in fit.explain())


def test_a_negative_kv_cache_still_has_a_margin():
    fit = estimate(gpu=T4, max_model_len=8192, dtype="half")
    assert fit.verdict == _fit.NO
    assert fit.available_gib < 0
    assert fit.kv_tokens == 0
    assert fit.margin_gib == pytest.approx(fit.available_gib - fit.needed_gib)


@pytest.mark.parametrize(("margin", "verdict"), [(1.2, _fit.FITS), (0.4, _fit.TIGHT), (-0.4, _fit.TIGHT), (-0.8, _fit.NO)])
def test_the_verdict_follows_the_margin(margin, verdict):
    base = estimate(max_model_len=8192)
    share = (base.available_gib - base.needed_gib - margin) / base.gpu.visible_gib
    assert estimate(max_model_len=8192, gpu_memory_utilization=0.92 - share).verdict == verdict


@pytest.mark.parametrize(
    ("model", "gpu", "settings", "check"),
    [
        (LLAMA, T4, {"max_model_len": 2048, "dtype": "bfloat16"}, "dtype"),
        (_fit.ModelDescription.from_table("google/gemma-3-4b-it"), T4, {"max_model_len": 2048}, "dtype"),
        (LLAMA, A10G, {"tensor_parallel": 3, "max_model_len": 2048}, "tensor_parallel"),
        (LLAMA, H100, {"max_model_len": 200_000}, "max_model_len"),
        (LLAMA, H100, {"pipeline_parallel": 40, "max_model_len": 2048}, "pipeline_parallel"),
    ],
)
def test_what_vllm_refuses_is_no_with_one_error(model, gpu, settings, check):
    fit = estimate(model, gpu, **settings)
    assert fit.verdict == _fit.NO
    assert [row["check"] for row in fit.problems if row["severity"] == "error"] == [check]


@pytest.mark.parametrize(
    ("name", "changes", "tp", "found"),
    [
        ("microsoft/phi-4", {}, 2, ""),
        ("microsoft/phi-4", {}, 4, "10 KV heads"),  # of 40 attention heads
        ("microsoft/phi-4", {"vocabulary": 100480}, 20, ""),  # each KV head twice
        ("Qwen/Qwen3-30B-A3B", {}, 8, ""),  # 4 KV heads, twice
        ("deepseek-ai/DeepSeek-R1", {}, 16, ""),  # one latent vector
        ("meta-llama/Llama-3.1-8B-Instruct", {"heads": 30, "kv_heads": 5}, 5, "128256 padded rows of the vocabulary"),
        ("Qwen/Qwen3.5-9B", {"heads": 32}, 32, "16 linear key heads"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {}, 16, "8 Mamba groups"),
    ],
)
def test_what_tensor_parallelism_cannot_split(name, changes, tp, found):
    model = _fit.ModelDescription.from_table(name)
    if "kv_heads" in changes:
        changes = {**changes, "attention": tuple(replace(kind, kv_heads=changes["kv_heads"]) for kind in model.attention)}
    assert undivided(replace(model, **changes), tp) == found


def test_a_split_that_cannot_start_is_refused():
    phi = _fit.ModelDescription.from_table("microsoft/phi-4")
    (row,) = (row for row in estimate(phi, H100, tensor_parallel=4, max_model_len=2048).problems if row["severity"] == "error")
    assert row["found"] == "tensor_parallel_size 4 with 10 KV heads"
    assert row["needed"].endswith(": 1, 2")


@pytest.mark.parametrize(("kv_heads", "proposed"), [(10, []), (8, ["4"])])
def test_only_a_split_that_can_start_is_proposed(kv_heads, proposed):
    """On two T4 it does not fit, so with 10 KV heads, which 4 does not divide, none is left."""
    phi = _fit.ModelDescription.from_table("microsoft/phi-4")
    phi = replace(phi, kv_heads=kv_heads, attention=tuple(replace(kind, kv_heads=kv_heads) for kind in phi.attention))
    short = estimate(phi, T4, dtype="half", max_model_len=8192)
    assert [fix.value for fix in _fit_fix.fixes(short) if fix.change == "tensor_parallel_size"] == proposed


CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
CONFIG |= {"vocab_size": 128256, "intermediate_size": 14336, "max_position_embeddings": 131072}


def described(**changes):
    return _fit.ModelDescription.from_config({**CONFIG, **changes}, name="m")


@pytest.mark.parametrize(("gpu", "dtype"), [(A10G, "bfloat16"), (T4, "float16")])
def test_float32_checkpoints_are_cast_down_as_vllm_does(gpu, dtype):
    model = described(torch_dtype="float32")
    engine = resolve(_fit.Engine(), model, gpu)
    assert engine.dtype == dtype
    layer = {"model.layers.0.mlp.up_proj.weight": ("F32", (4096, 14336)), "model.layers.0.norm.weight": ("F32", (4096,))}
    read = replace(model, tensors=layer, layers=1, rotary_elements=0)
    assert weight_bytes(read, 1, Stage(1, True, True), engine.dtype)["layers"] == 2 * 4096 * 14336 + 4 * 4096
    size = replace(model, checkpoint_bytes=int(checkpoint_formula_bytes(model)))
    assert estimate(size, gpu, max_model_len=2048).weights_gib == pytest.approx(14.99, abs=0.01)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "torch.float64", {"": "bfloat16"}])
def test_a_dtype_that_vllm_does_not_run_is_unknown(dtype):
    fit = estimate(described(torch_dtype=dtype), H100, max_model_len=4096)
    assert fit.verdict == _fit.UNKNOWN
    assert "dtype" in fit.problems[0]["found"]


def test_an_unknown_architecture_is_said_to_be_unknown():
    config = {"architectures": ["NovelForCausalLM"], "hidden_size": 4096, "num_attention_heads": 32, "vocab_size": 32000, "num_hidden_layers": 32}
    model = _fit.ModelDescription.from_config({**config, "intermediate_size": 11008}, name="novel")
    fit = estimate(model, H100, max_model_len=4096)
    assert fit.verdict == _fit.UNKNOWN
    assert "NovelForCausalLM" in fit.problems[0]["found"]


def test_a_config_that_lacks_fields_is_refused_by_name():
    with pytest.raises(_fit.ModelError, match="hidden_size, num_hidden_layers"):
        _fit.ModelDescription.from_config({"architectures": ["LlamaForCausalLM"], "num_attention_heads": 32, "vocab_size": 1}, name="broken")


def test_a_model_without_attention_is_refused():
    config = {"architectures": ["NemotronHForCausalLM"], "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 128, "hybrid_override_pattern": "M-M-"}
    with pytest.raises(_fit.ModelError, match="no attention layer"):
        _fit.ModelDescription.from_config({**config, "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 16})


def test_a_gpu_that_is_not_in_the_table_needs_its_memory():
    with pytest.raises(_fit.UnknownGpu, match="visible memory"):
        _fit.find_gpu("MI300X")
    assert _fit.find_gpu("MIG 3g.40gb", visible_gib=39.2).visible_gib == 39.2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA A10G", "A10G"),
        ("l40s", "L40S"),
        ("H100-SXM-80GB", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"),
        ("A100", "A100-80"),
        ("rtx-pro-server-6000", "RTX PRO 6000"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_gpu_names(name, expected):
    assert _fit.find_gpu(name).name == expected


def test_an_a100_is_told_by_its_memory_and_l40_is_no_l4():
    assert _fit.find_gpu("a100", memory_mib=40960).name == "A100-40"
    with pytest.raises(_fit.UnknownGpu):
        _fit.find_gpu("L40")


def test_a_newer_vllm_asks_for_more_and_says_so():
    base = estimate(max_model_len=8192, vllm_version="0.33.0")
    share = (base.margin_gib - 1.2) / base.gpu.visible_gib
    settings = {"max_model_len": 8192, "gpu_memory_utilization": 0.92 - share}
    assert estimate(vllm_version="0.33.1", **settings).verdict == _fit.FITS
    newer = estimate(vllm_version="0.41.0", **settings)
    assert newer.verdict == _fit.TIGHT
    assert "vllm_version" in [row["check"] for row in newer.problems]


def test_a_version_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'latest'"):
        version("latest")


def test_an_unknown_kv_dtype_is_refused():
    with pytest.raises(ValueError, match="kv_cache_dtype 'fp7'"):
        estimate(kv_cache_dtype="fp7")


def test_defaults_are_vllms():
    small, large = resolve(_fit.Engine(), LLAMA, A10G), resolve(_fit.Engine(), LLAMA, H100)
    assert (small.max_num_seqs, small.max_num_batched_tokens, small.gpu_memory_utilization) == (256, 2048, 0.92)
    assert (large.max_num_seqs, large.max_num_batched_tokens, large.max_model_len) == (1024, 8192, 131072)
    assert resolve(_fit.Engine(vllm_version="0.19.0"), LLAMA, A10G).gpu_memory_utilization == 0.90
    assert resolve(_fit.Engine(), LLAMA, _fit.find_gpu("B200")).max_num_batched_tokens == 16384
    assert resolve(_fit.Engine(), LLAMA, _fit.find_gpu("A100-80GB")).max_num_seqs == 256


def test_the_second_model_runner_by_version_and_model():
    moe, hybrid = (_fit.ModelDescription.from_table(name) for name in ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3.5-9B"))

    def runs(model, number):
        return v2_runner(_fit.Engine(vllm_version=number), model)

    assert [runs(LLAMA, number) for number in ("0.21.0", "0.22.1", "0.23.0", "0.25.0", "0.33.0")] == [False, False, True, True, True]
    assert [runs(moe, number) for number in ("0.25.0", "0.28.0", "0.29.0")] == [False, False, True]
    assert [runs(hybrid, number) for number in ("0.28.0", "0.29.0")] == [False, True]
    assert not runs(LLAMA.with_quantisation("fp8"), "0.23.0")


def test_more_sequences_cost_activation():
    few, many = (estimate(gpu=H100, max_model_len=8192, max_num_seqs=count) for count in (256, 1024))
    # 768 x 128,256 logits: 14 bytes in the sampler and 4.125 of kept penalty state, while the layers' pass is smaller than the sampler's.
    assert 0.7 < few.available_gib - many.available_gib < 1.8


def test_experts_keep_a_workspace_since_0_17():
    mixtral = _fit.ModelDescription.from_table("mistralai/Mixtral-8x7B-Instruct-v0.1")
    new, old = (estimate(mixtral, H100, tensor_parallel=2, max_model_len=8192, vllm_version=number) for number in ("0.19.0", "0.16.0"))
    # 8,192 tokens x 2 experts x (2 x 7,168 + 7,168) elements x 2 bytes
    assert new.limiting.gib("moe_workspace") == pytest.approx(8192 * 2 * 3 * 7168 * 2 / 2**30)
    assert old.limiting.gib("moe_workspace") == 0


def test_the_workspace_of_narrow_experts_is_as_wide_as_the_hidden_state():
    narrow = _fit.ModelDescription.from_table("Qwen/Qwen3-30B-A3B")  # 768 wide, 2,048 hidden
    fit = estimate(narrow, H100, max_model_len=8192)
    assert fit.limiting.gib("moe_workspace") == pytest.approx(8192 * 8 * 2 * 2048 * 2 / 2**30)


@pytest.mark.parametrize(("gpu", "elements"), [("L40S", 2 * 2880 + 2880), ("H100", 2880), ("B200", 0)])
def test_mxfp4_kernels_have_buffers_of_their_own(gpu, elements):
    fit = estimate(_fit.ModelDescription.from_table("openai/gpt-oss-20b"), _fit.find_gpu(gpu), max_model_len=8192, max_num_batched_tokens=2048)
    assert fit.limiting.gib("moe_workspace") == pytest.approx(2048 * 4 * elements * 2 / 2**30)


def test_the_image_encoder_counts_when_few_sequences_run():
    model = _fit.ModelDescription.from_table("Qwen/Qwen3.5-9B")
    with_images, without = (estimate(model, L40S, max_model_len=8192, max_num_seqs=8, multimodal=on) for on in (True, False))
    assert "image encoder" in next(term.why for term in with_images.terms if term.name == "activation")
    assert with_images.limiting.gib("activation") > without.limiting.gib("activation") + 0.5


def test_the_encoders_peak_is_what_lives_in_one_of_its_layers():
    model = _fit.ModelDescription.from_table("Qwen/Qwen3.5-9B")
    fit = estimate(model, L40S, max_model_len=32768, max_num_seqs=8)
    patches, hidden, inner = 65536, 1152, 4304  # the largest image; the encoder's widths
    # pixels, four hidden states, the MLP's two inner tensors
    expected = patches * (1536 + 4 * hidden + 2 * inner) * 2 / 2**30 + 0.04
    assert fit.limiting.gib("activation") == pytest.approx(expected, rel=1e-6)


def test_tensor_parallelism_splits_the_encoders_layers_only():
    model = _fit.ModelDescription.from_table("google/gemma-3-27b-it")
    vision = model.vision
    whole, half = (weight_bytes(model, tp, Stage(model.layers, True, True), "bfloat16")["vision"] for tp in (1, 2))
    assert whole == 2 * vision.parameters
    assert whole - half == pytest.approx(vision.block_parameters)  # half of them, two bytes each
    tensors = {
        "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": ("BF16", (4304, 1152)),
        "vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": ("BF16", (1152,)),
        "multi_modal_projector.mm_input_projection_weight": ("BF16", (1152, 5376)),
    }
    parts = weight_bytes(replace(model, tensors=tensors), 2, Stage(model.layers, True, True), "bfloat16")
    assert parts["vision"] == 4304 * 1152 + 2 * 1152 + 2 * 1152 * 5376


def test_deepstack_features_have_buffers():
    model = _fit.ModelDescription.from_table("Qwen/Qwen3-VL-8B-Instruct")
    fit = estimate(model, L40S, max_model_len=8192, max_num_seqs=64)
    assert fit.limiting.gib("deepstack") == pytest.approx(3 * 2048 * 4096 * 2 / 2**30)


def test_kernels_of_a_gated_delta_net_are_tuned_at_every_start():
    def tuned(name, cold):
        fit = estimate(_fit.ModelDescription.from_table(name), H100, max_model_len=4096, max_num_seqs=1, cold_compile=cold)
        return "tuning kernels" in next(term.why for term in fit.terms if term.name == "activation")

    assert [tuned("Qwen/Qwen3-Next-80B-A3B-Instruct", cold) for cold in (True, False)] == [True, True]
    assert [tuned("Qwen/Qwen3-8B", cold) for cold in (True, False)] == [True, False]


@pytest.mark.parametrize(
    ("name", "version_", "factor"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "0.31.0", 4),
        ("Qwen/Qwen3-VL-8B-Instruct", "0.32.0", 1),
        ("Qwen/Qwen3-8B", "0.31.0", 1),
    ],
)
def test_rotary_tables_have_room_for_a_video(name, version_, factor):
    model = _fit.ModelDescription.from_table(name)
    weights = [estimate(m, H100, max_model_len=4096, vllm_version=version_).weights_gib for m in (model, replace(model, rotary_elements=0))]
    assert weights[0] - weights[1] == pytest.approx(factor * model.max_model_len * 128 * 2 / 2**30)


def test_stages_of_a_pipeline_are_summed_apart():
    fit = estimate(gpu=H100, pipeline_parallel=2, max_model_len=8192, vllm_version="0.19.0")
    first, last = fit.stages
    assert first.gib("activation") < last.gib("activation")  # only the last samples
    assert fit.available_gib == last.available_gib


def test_lora_draft_and_offload_cost_memory():
    plain = estimate(gpu=H100, max_model_len=8192)
    assert estimate(gpu=H100, max_model_len=8192, lora_slots=4, lora_rank=64).available_gib < plain.available_gib
    draft = estimate(gpu=H100, max_model_len=8192, draft=_fit.ModelDescription.from_table("meta-llama/Llama-3.2-1B-Instruct"))
    assert draft.available_gib < plain.available_gib - 2
    assert draft.kv_tokens < plain.kv_tokens
    assert estimate(gpu=H100, kv_offload_gib=20.0).host.request_gib == plain.host.request_gib + 20


def test_host_memory_and_shm():
    one, four = estimate(max_model_len=8192).host, estimate(tensor_parallel=4, max_model_len=8192).host
    assert (one.request_gib, one.limit_gib, one.shm_mib) == (6, 6, 1024)
    assert four.shm_mib == 2 * (160 + 4 * 240)
    volume = _fit.estimate(LLAMA, A10G, _fit.Engine(max_model_len=8192), weights="volume").host
    assert volume.limit_gib == 23  # 6 + 15.0 / 0.9
    stream = _fit.estimate(LLAMA, A10G, _fit.Engine(max_model_len=8192), weights="stream").host
    assert (stream.request_gib, stream.limit_gib, stream.stream_gib) == (10, 10, 4)


def test_a_gpu_without_bfloat16_is_used_with_float16_unless_told_otherwise():
    assert estimate(gpu=T4, max_model_len=2048).engine.dtype == "float16"
    assert estimate(gpu=A10G, max_model_len=2048).engine.dtype == "bfloat16"


def test_too_little_outside_the_budget_is_tight_with_the_share_that_would_do():
    model = _fit.ModelDescription.from_table("openai/gpt-oss-20b")
    fit = estimate(model, H100, max_model_len=8192, gpu_memory_utilization=0.95, vllm_version="0.19.0")
    assert fit.verdict == _fit.TIGHT
    row = next(row for row in fit.problems if row["check"] == "memory_outside")
    share = float(row["fix"].split("utilization to ")[1].split(",")[0])
    assert estimate(model, H100, max_model_len=8192, gpu_memory_utilization=share, vllm_version="0.19.0").verdict == _fit.FITS


def test_the_first_fix_of_a_long_context_is_the_longest_that_fits():
    fit = estimate(max_model_len=131072)
    fix = _fit_fix.first_fix(fit)
    assert fix.change == "max_model_len"
    assert estimate(max_model_len=int(fix.value)).verdict == _fit.FITS
    assert estimate(max_model_len=int(fix.value) + _fit_fix.LENGTH_STEP).verdict != _fit.FITS


def test_fixes_are_each_enough_alone():
    fit = estimate(_fit.ModelDescription.from_table("meta-llama/Llama-3.3-70B-Instruct"), A10G, tensor_parallel=4, max_model_len=8192)
    found = {fix.change: fix for fix in _fit_fix.fixes(fit, [L40S])}
    assert list(found) == ["quantisation", "tensor_parallel_size", "gpu"]
    assert found["quantisation"].value == "awq"
    assert all(fix.fit.verdict == _fit.FITS for fix in found.values())


def test_fewer_sequences_fix_what_lacks_a_little():
    fit = estimate(_fit.ModelDescription.from_table("meta-llama/Llama-3.3-70B-Instruct"), H100, tensor_parallel=2, max_model_len=2048)
    fix = _fit_fix.first_fix(fit)
    assert fix.change == "max_num_seqs"
    assert _fit.estimate(fit.model, fit.gpu, replace(fit.engine, max_num_seqs=int(fix.value) + 8)).verdict != _fit.FITS


def test_no_fix_for_what_fits_and_none_invented():
    assert _fit_fix.first_fix(estimate(max_model_len=8192)) is None
    huge = _fit.ModelDescription.from_table("deepseek-ai/DeepSeek-R1")
    assert _fit_fix.first_fix(estimate(huge, T4, max_model_len=2048, dtype="half"), [A10G]) is None


def test_the_longest_length_that_starts():
    fit = estimate(max_model_len=131072)
    length = _fit_fix.longest_model_len(fit)
    assert estimate(max_model_len=length).margin_gib >= 0 > estimate(max_model_len=length + 16).margin_gib
