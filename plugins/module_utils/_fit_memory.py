# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything on a GPU beside weights and KV cache, as vLLM's profile run measures it.

Up to 0.26 vLLM adds weights, the rise of torch's peak in the profile run and what grew outside torch; from 0.27 on it takes all that is gone from the GPU plus
the transient peak (utils/mem_utils.py memory_profiling). The peak is the largest of three passes that do not overlap: the image encoder, the layers with
max_num_batched_tokens, the sampler with max_num_seqs (v1/worker/gpu_model_runner.py and v1/worker/gpu/model_runner.py, profile_run).
"""

from __future__ import annotations

from dataclasses import dataclass

from . import _data
from ._fit_engine import Engine, mxfp4_by_marlin, v2_runner, version
from ._fit_gpu import GIB, Gpu
from ._fit_model import Layers, ModelDescription
from ._fit_weights import BYTES, Stage


@dataclass(frozen=True)
class Term:
    """One summand per GPU in GiB, with the sentence that explains it."""

    name: str
    gib: float
    why: str

    def __str__(self) -> str:
        return f"{self.name} {self.gib:.2f} GiB: {self.why}"


def activation(model: ModelDescription, engine: Engine, gpu: Gpu, stage: Stage) -> list[Term]:
    """The profiled peak and the workspaces that stay. `engine` with all defaults filled in."""
    constants, tokens = version(engine.vllm_version).constants, engine.max_num_batched_tokens
    width = BYTES[engine.dtype]
    forward, how = _forward(model, engine, stage)
    workspace = _expert_workspace(model, engine, gpu)
    persistent = constants["moe_workspace_persistent"]
    if workspace and not persistent:
        forward += workspace
    passes = {f"layers with {tokens} tokens ({how})": forward}
    kept = 0.0
    encoder = engine.multimodal and model.vision and stage.first and (not v2_runner(engine, model) or constants["v2_encoder_profile"])
    if encoder:
        encoding, kept, images = _encoder(model, engine)
        passes[f"image encoder with {images} image(s)"] = encoding
    # V0 profiled prompts above 32,768 tokens in chunks that sample nothing (worker/model_runner.py profile_run).
    if stage.last and not (constants["long_prompts_skip_sampler"] and engine.max_model_len > 32768):
        passes[f"sampler with {engine.max_num_seqs} sequences"] = sampler_bytes(model, engine, gpu) + tokens * model.hidden * width
    held = {name: size + (0 if name.startswith("image") else kept) for name, size in passes.items()}
    largest = max(held, key=held.__getitem__)
    residual = _budget("profile_residual_gib")
    beside = "" if not kept or largest.startswith("image") else ", beside what the image encoder left"
    terms = [Term("activation", held[largest] / GIB + residual, f"peak of the profile run: {largest}{beside}")]
    if workspace and persistent:
        terms.append(Term("moe_workspace", workspace / GIB, f"buffers of the fused experts for {tokens} tokens, kept"))
    if v2_runner(engine, model) and stage.last:
        size = engine.max_num_seqs * model.vocabulary * _budget("v2_penalties_bytes_per_logit") / GIB
        terms.append(Term("penalty_state", size, f"token counts of {engine.max_num_seqs} sequences x {model.vocabulary} vocabulary (second model runner)"))
    if encoder and constants["total_consumed"]:
        terms.append(Term("input_embeddings", tokens * model.hidden * width / GIB, "input buffer of a multimodal model"))
    if encoder and model.vision.deepstack:
        size = model.vision.deepstack * tokens * model.hidden * width / GIB
        terms.append(Term("deepstack", size, f"input buffers of {model.vision.deepstack} layers that get image features"))
    return terms


def sampler_bytes(model: ModelDescription, engine: Engine, gpu: Gpu, warm_up: bool = False) -> float:
    """Bytes of logits and their float32 copies in the sampler. warm_up: as the warm-up after the KV cache's allocation needs it, not as profiled."""
    constants = version(engine.vllm_version).constants
    each = constants["sampler_bytes_per_logit"]
    second = v2_runner(engine, model)
    if second and not constants["v2_sampler_pass"] and not warm_up:
        each = BYTES[engine.dtype]
    elif engine.dtype == "float32" and constants["moe_workspace_persistent"]:
        each += _budget("sampler_float32_copy_bytes_per_logit")
    size = min(engine.max_num_seqs, engine.max_num_batched_tokens) * model.vocabulary * each
    if constants["sampler_buffer_per_multiprocessor"] and not second:
        size += min(gpu.multiprocessors, engine.max_num_seqs) * model.vocabulary * 4
    return size


def non_torch(engine: Engine, gpu: Gpu) -> Term:
    """CUDA libraries, NCCL and the buffers of communication."""
    constants = version(engine.vllm_version).constants
    if engine.tensor_parallel > 1:
        base, slope = constants["non_torch_tp_gib"][gpu.link]
        link = "NVLink" if gpu.nvlink else "PCIe"
        return Term("non_torch", base + slope * engine.tensor_parallel, f"CUDA libraries and NCCL buffers among {engine.tensor_parallel} GPUs ({link})")
    if engine.pipeline_parallel > 1:
        return Term("non_torch", _budget("pp_only_non_torch_gib"), "CUDA libraries; pipeline stages")
    return Term("non_torch", constants["non_torch_gib"], "CUDA libraries")


def graphs(model: ModelDescription, engine: Engine, gpu: Gpu, stage: Stage) -> Term:
    """CUDA graphs as vLLM estimates them before it sizes the KV cache (config/vllm.py _set_cudagraph_sizes, profile_cudagraph_memory)."""
    if engine.enforce_eager:
        return Term("cuda_graphs", 0.0, "enforce_eager")
    per_step = 1 + engine.speculative_tokens
    ceiling = min(2 * engine.max_num_seqs * per_step, 1024 if 10 <= gpu.capability < 11 else 512, engine.max_num_batched_tokens)
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, ceiling + 1, 16)) if size <= ceiling]
    count = len(sizes) + sum(size <= engine.max_num_seqs * per_step for size in sizes)
    size = min(_budget("graph_gib_max"), count * stage.layers * _budget("graph_mib_per_layer_and_graph") / 1024)
    why = f"{count} graphs of {stage.layers} layers"
    if uses_flashinfer(engine, gpu):
        size += _budget("flashinfer_workspace_mib") / 1024
        why += " and FlashInfer's workspace"
    return Term("cuda_graphs", size, why)


def uses_flashinfer(engine: Engine, gpu: Gpu) -> bool:
    """FlashInfer is vLLM's attention on data-centre Blackwell, and for fp8 KV cache where FlashAttention 3 does not run (all but Hopper)."""
    return 10 <= gpu.capability < 11 or (engine.kv_cache_dtype.startswith("fp8") and not 9 <= gpu.capability < 10)


def lora(model: ModelDescription, engine: Engine, stage: Stage) -> Term | None:
    """Preallocated adapter slots: two thin matrices beside every linear layer (lora/layers/*.py create_lora_weights). Routed experts are left out."""
    if not engine.lora_slots:
        return None
    tp, hidden, attention = engine.tensor_parallel, model.hidden, model.heads * model.head_dim
    inner = model.experts.shared if model.experts else model.intermediate
    reads = 3 * hidden + attention / tp + 2 * hidden + inner / tp
    writes = (attention + 2 * model.kv_heads * model.head_dim) / tp + hidden + 2 * inner / tp + hidden
    size = engine.lora_slots * engine.lora_rank * (reads + writes) * stage.layers * BYTES[engine.dtype]
    return Term("lora_slots", size / GIB, f"{engine.lora_slots} adapter(s) of rank {engine.lora_rank}")


def outside_budget(model: ModelDescription, engine: Engine, gpu: Gpu, graph_term: Term) -> Term:
    """What must fit beside utilization x memory: the CUDA context, graphs that vLLM does not count, a sampler warm-up that its profile run missed."""
    constants = version(engine.vllm_version).constants
    size, why = _budget("cuda_context_gib"), ["CUDA context"]
    if not constants["graphs_in_budget"]:
        # What graph capture leaves behind splits the room that profiling kept for the sampler.
        size += graph_term.gib + _budget("sampler_fragmentation_factor") * sampler_bytes(model, engine, gpu, warm_up=True) / GIB
        why += ["CUDA graphs", "sampler warm-up"]
    elif v2_runner(engine, model) and not constants["v2_sampler_pass"]:
        size += sampler_bytes(model, engine, gpu, warm_up=True) / GIB
        why.append("sampler warm-up, which this version does not profile")
    return Term("outside", size, ", ".join(why))


def _budget(name: str) -> float:
    return _data.load("fit_constants")["budget"][name]["value"]


def _forward(model: ModelDescription, engine: Engine, stage: Stage) -> tuple[float, str]:
    """Bytes of the widest point of a layer: gate and up projection with their product, or queries, keys, values and output; four hidden states beside."""
    tp, dense = engine.tensor_parallel, model.experts is None
    shared = 0 if dense else max(model.experts.shared, model.dense_intermediate if model.experts.layers < model.layers or model.dense_beside_experts else 0)
    mlp = 3 * (model.intermediate if dense else shared) / tp
    attention = max(_attention_width(model, kind) for kind in model.attention) / tp if model.attention else 0
    hidden = 4 + (_budget("pp_hidden_states") if engine.pipeline_parallel > 1 else 0)
    size = engine.max_num_batched_tokens * BYTES[engine.dtype] * (max(mlp, attention) + hidden * model.hidden)
    # Triton's benchmark of a gated delta net's kernels runs at every start, that of compiled ones without a cache (qwen_gdn_linear_attn.py
    # _warmup_prefill_kernels).
    tuned = (engine.cold_compile and not engine.enforce_eager) or bool((model.linear or {}).get("linear_num_key_heads"))
    cold = version(engine.vllm_version).constants["cold_compile_gib"] if tuned else 0
    return size + cold * GIB, ("MLP" if mlp >= attention else "attention") + (f", {cold} GiB for tuning kernels" if cold else "")


def _attention_width(model: ModelDescription, kind: Layers) -> float:
    """Elements a token of queries, keys, values and output of one layer, before tensor parallelism."""
    if kind.kind == "mla":
        return model.heads * (2 * (model.mla["qk_nope_head_dim"] + model.mla["qk_rope_head_dim"]) + 2 * model.mla["v_head_dim"])
    if kind.kind == "linear":
        return 2 * kind.conv
    return model.heads * kind.head_dim * (2 if model.output_gate else 1) + kind.kv_heads * (kind.head_dim + kind.value_dim) + model.heads * kind.value_dim


def _expert_workspace(model: ModelDescription, engine: Engine, gpu: Gpu) -> float:
    """Bytes of the two buffers of the fused expert kernels (fused_moe/experts/triton_moe.py, marlin_moe.py workspace_shapes).

    Triton's MXFP4 kernels share one inner buffer since they are kept (gpt_oss_triton_kernels_moe.py), FlashInfer's on Blackwell have none here.
    """
    if not model.experts:
        return 0.0
    constants = version(engine.vllm_version).constants
    tokens = min(engine.max_num_batched_tokens, constants["moe_workspace_tokens_max"])
    width = model.experts.intermediate / (1 if engine.expert_parallel else engine.tensor_parallel)
    elements = max(2 * width, model.hidden) + max(width, model.hidden)
    if model.quantisation == "mxfp4" and not mxfp4_by_marlin(engine, gpu):
        elements = width if constants["moe_workspace_persistent"] and gpu.capability < 10 else 0
    return tokens * model.experts.per_token * elements * 2


def _encoder(model: ModelDescription, engine: Engine) -> tuple[float, float, int]:
    """(bytes of the encoder's peak, bytes held while the layers run, images): multimodal/encoder_budget.py MultiModalBudget.

    At the peak of a layer four hidden states live beside the MLP's own tensors: the position embeddings or the tower's input, the layer's input, the sum
    after attention, and its norm (models/qwen3_vl.py Qwen3_VisionTransformer.forward, Qwen3_VisionBlock.forward; models/siglip.py SiglipEncoderLayer);
    or three beside queries, keys, values, the rotated copies and the output of attention. The first model runner keeps the pixels until the profile run ends.
    """
    vision, width, tp = model.vision, BYTES[engine.dtype], engine.tensor_parallel
    budget = max(engine.max_num_batched_tokens, vision.tokens_per_image)
    prompts = engine.max_num_seqs * max(1, engine.max_model_len // vision.tokens_per_image)
    images = max(1, min(budget // vision.tokens_per_image, prompts))
    patches = images * vision.patches_per_image
    pixels = patches * vision.patch_elements * width
    mlp = 4 * vision.hidden + (3 if vision.gated else 2) * vision.intermediate / tp
    attention = 3 * vision.hidden + 8 * vision.hidden / tp
    peak = pixels + patches * max(mlp, attention) * width
    outputs = images * vision.tokens_per_image * model.hidden * (1 + vision.deepstack) * width
    return peak, outputs + (0 if v2_runner(engine, model) else pixels), images
