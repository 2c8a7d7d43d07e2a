# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of the weights on one GPU.

Without tensors the parameters are counted from config.json and split as vLLM splits them (model_executor/layers/linear.py, vocab_parallel_embedding.py):
columns or rows of linear layers and the vocabulary by tensor parallelism, KV projections only as far as there are KV heads, norms, routers, MLA's
down projections whole on every GPU.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from . import _data
from ._fit_model import ModelDescription

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "half": 2, "auto": 2}
SAFETENSORS_BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U8": 8}
SAFETENSORS_BITS |= {"I8": 8, "BOOL": 8, "F4": 4}
VOCABULARY_PADDING = 64


@dataclass(frozen=True)
class Stage:
    """One pipeline stage: its share of the layers, and whether it holds the embedding and the head."""

    layers: int
    first: bool
    last: bool


def stages(model: ModelDescription, pipeline_parallel: int) -> list[Stage]:
    """How vLLM cuts the layers (distributed/utils.py get_pp_indices): a remainder goes to the stages before the last."""
    share, rest = divmod(model.layers, pipeline_parallel)
    counts = [share] * pipeline_parallel
    for index in range(rest):
        counts[-2 - index] += 1
    return [Stage(count, index == 0, index == pipeline_parallel - 1) for index, count in enumerate(counts)]


def undivided(model: ModelDescription, tensor_parallel: int) -> str:
    """What of the model vLLM cannot split over so many GPUs, e.g. "10 KV heads"; empty when it can split all.

    models/llama.py for the heads: KV heads are held twice or more when there are fewer of them than GPUs; MLA's one latent vector is on every GPU.
    Linear layers: layers/mamba/mamba_utils.py and mamba_mixer2.py; the vocabulary: layers/vocab_parallel_embedding.py.
    """
    linear = model.linear or {}
    groups = (linear.get("n_groups") or 8) if linear.get("mamba_num_heads") else 1
    counts = [
        (model.heads, "attention heads"),
        *((kind.kv_heads, "KV heads") for kind in model.attention if kind.kind not in ("mla", "linear") and tensor_parallel % kind.kv_heads),
        (linear.get("linear_num_key_heads") or 0, "linear key heads"),
        (linear.get("linear_num_value_heads") or 0, "linear value heads"),
        (linear.get("mamba_num_heads") or 0, "Mamba heads"),
        (groups if groups > 1 else 0, "Mamba groups"),
        (math.ceil(model.vocabulary / VOCABULARY_PADDING) * VOCABULARY_PADDING, "padded rows of the vocabulary"),
    ]
    return next((f"{count} {name}" for count, name in counts if count % tensor_parallel), "")


@dataclass(frozen=True)
class _Part:
    """`parameters` of one kind over all layers; `group` is attention, mlp, experts or plain (never quantised); `split` the number of GPUs that share them."""

    parameters: float
    group: str
    split: float


def weight_bytes(model: ModelDescription, tensor_parallel: int, stage: Stage, dtype: str, padded_experts: tuple[int, int] | None = None) -> dict[str, float]:
    """Bytes on each GPU of `stage`, by name: layers, embedding, vision, rotary, mla_absorbed.

    `padded_experts` are (multiple of the hidden, multiple of the intermediate width) that a kernel pads expert weights to (MXFP4).
    """
    plain = BYTES[dtype]
    if model.tensors:
        parts = _from_tensors(model, tensor_parallel, stage, plain)
    else:
        share = stage.layers / model.layers
        parts = {"layers": share * sum(p.parameters / p.split * _bytes(model, p.group, plain) for p in _layer_parts(model, tensor_parallel, padded_experts))}
        table = math.ceil(model.vocabulary / VOCABULARY_PADDING) * VOCABULARY_PADDING * model.hidden / tensor_parallel * plain
        copies = stage.first + stage.last if not model.tied_embeddings else int(stage.first or stage.last)
        parts["embedding"] = copies * table
        parts["vision"] = _vision_parameters(model, tensor_parallel) * plain if stage.first else 0.0
        if model.checkpoint_bytes:
            scale = model.checkpoint_bytes / checkpoint_formula_bytes(model)
            parts = {name: value * scale for name, value in parts.items()}
    parts["rotary"] = model.rotary_elements * plain
    if model.mla:
        # process_weights_after_loading keeps W_UK and W_UV beside kv_b_proj, in 16 bit (attention/backends/mla/common.py).
        up = model.mla["kv_lora_rank"] * model.heads * (model.mla["qk_nope_head_dim"] + model.mla["v_head_dim"])
        parts["mla_absorbed"] = up / tensor_parallel * 2 * stage.layers
    return {name: value for name, value in parts.items() if value}


def _vision_parameters(model: ModelDescription, tensor_parallel: int) -> float:
    """Of the image encoder on one GPU: its layers are split (--mm-encoder-tp-mode weights, the default), embeddings and projector are not."""
    if not model.vision:
        return 0.0
    return model.vision.parameters - model.vision.block_parameters * (1 - 1 / tensor_parallel)


def checkpoint_formula_bytes(model: ModelDescription) -> float:
    """What the formula says of the whole checkpoint: one GPU, no run-time tables, the layers of multi-token prediction as large as the others."""
    plain = BYTES.get(model.dtype, 2)
    layers = sum(p.parameters * _bytes(model, p.group, plain) for p in _layer_parts(model, 1, None)) * (1 + model.mtp_layers / model.layers)
    tables = (1 if model.tied_embeddings else 2) * model.vocabulary * model.hidden * plain
    return layers + tables + (model.vision.parameters * plain if model.vision else 0)


def parameters(model: ModelDescription) -> tuple[float, float]:
    """(all parameters, parameters one token uses), without embeddings' rows that are only looked up."""
    parts = _layer_parts(model, 1, None)
    total = sum(p.parameters for p in parts)
    experts = sum(p.parameters for p in parts if p.group == "experts")
    used = total - experts + (experts * model.experts.per_token / model.experts.count if model.experts else 0)
    head = model.vocabulary * model.hidden
    return total + (1 if model.tied_embeddings else 2) * head + (model.vision.parameters if model.vision else 0), used + head


def expert_padding(marlin: bool) -> tuple[int, int]:
    """MXFP4 kernels pad expert weights: Marlin the hidden width to 256 and the intermediate one to 128, Triton the latter to 256 (quantization/mxfp4.py)."""
    return (256, 128) if marlin else (1, 256)


def _bytes(model: ModelDescription, group: str, plain: float) -> float:
    if group == "plain" or not model.quantisation:
        return plain
    entry = _data.load("fit_constants")["quantisations"][model.quantisation]
    reached = {"linear": ("attention", "mlp", "experts"), "mlp": ("mlp", "experts"), "experts": ("experts",)}[entry["scope"]]
    return entry["bytes"] if group in reached else plain


def _layer_parts(model: ModelDescription, tp: int, padded_experts: tuple[int, int] | None) -> list[_Part]:
    return [*_attention_parts(model, tp), *_mlp_parts(model, tp, padded_experts), _Part(4 * model.hidden * model.layers, "plain", 1)]


def _attention_parts(model: ModelDescription, tp: int) -> list[_Part]:
    parts = []
    hidden, heads = model.hidden, model.heads
    for kind in model.attention:
        if kind.kind == "mla":
            parts += _mla_parts(model, kind.count, tp)
        elif kind.kind == "linear":
            parts += _linear_parts(model, kind.count, tp)
        else:
            queries = hidden * heads * kind.head_dim * (2 if model.output_gate else 1)
            output = heads * kind.value_dim * hidden
            keys = hidden * kind.kv_heads * (kind.head_dim + kind.value_dim)
            bias = (heads * kind.head_dim + kind.kv_heads * (kind.head_dim + kind.value_dim)) if model.attention_bias else 0
            parts += [
                _Part(kind.count * (queries + output), "attention", tp),
                _Part(kind.count * keys, "attention", min(tp, kind.kv_heads)),
                _Part(kind.count * bias, "plain", tp),
            ]
    return parts


def _mla_parts(model: ModelDescription, count: int, tp: int) -> list[_Part]:
    mla, hidden, heads = model.mla, model.hidden, model.heads
    query = mla["qk_nope_head_dim"] + mla["qk_rope_head_dim"]
    rank = mla["q_lora_rank"]
    down = hidden * (mla["kv_lora_rank"] + mla["qk_rope_head_dim"]) + hidden * rank
    up = (rank or hidden) * heads * query + mla["kv_lora_rank"] * heads * (mla["qk_nope_head_dim"] + mla["v_head_dim"]) + heads * mla["v_head_dim"] * hidden
    index_heads, index_dim = mla["index_n_heads"], mla["index_head_dim"]
    indexer = rank * index_heads * index_dim + hidden * (index_dim + index_heads) if index_heads else 0
    return [_Part(count * (down + indexer), "attention", 1), _Part(count * up, "attention", tp)]


def _linear_parts(model: ModelDescription, count: int, tp: int) -> list[_Part]:
    shape, hidden = model.linear, model.hidden
    if shape["linear_num_key_heads"]:
        keys = shape["linear_num_key_heads"] * shape["linear_key_head_dim"]
        values = shape["linear_num_value_heads"] * shape["linear_value_head_dim"]
        projections = hidden * (2 * keys + 2 * values) + values * hidden
        return [_Part(count * projections, "attention", tp), _Part(count * hidden * 2 * shape["linear_num_value_heads"], "plain", tp)]
    inner = shape["mamba_num_heads"] * shape["mamba_head_dim"]
    groups = 2 * (shape["n_groups"] or 8) * shape["ssm_state_size"]
    return [_Part(count * (hidden * (2 * inner + groups + shape["mamba_num_heads"]) + inner * hidden), "attention", tp)]


def _mlp_parts(model: ModelDescription, tp: int, padded_experts: tuple[int, int] | None) -> list[_Part]:
    hidden, experts = model.hidden, model.experts
    # Nemotron-H's MLPs have no gate and stand in layers of their own.
    matrices, separate = (2, True) if model.architecture == "NemotronHForCausalLM" else (3, False)
    if not experts:
        count = model.layers - sum(kind.count for kind in model.attention) if separate else model.layers
        return [_Part(matrices * hidden * model.intermediate * count, "mlp", tp)]
    width, columns = experts.intermediate, hidden
    if padded_experts:
        columns = math.ceil(hidden / padded_experts[0]) * padded_experts[0]
        width = math.ceil(experts.intermediate / tp / padded_experts[1]) * padded_experts[1] * tp
    parts = [
        _Part(experts.layers * matrices * columns * width * experts.count, "experts", tp),
        _Part(experts.layers * hidden * experts.count, "plain", 1),
        _Part(experts.layers * matrices * hidden * experts.shared, "mlp", tp),
    ]
    if experts.bias:
        # Triton's MXFP4 kernels take the biases in float32, twice the bytes (fused_moe/oracle/mxfp4.py); the one after the experts is on every GPU.
        each = experts.layers * experts.count * (2 if padded_experts and padded_experts[0] == 1 else 1)
        parts += [_Part(each * (matrices - 1) * width, "plain", tp), _Part(each * columns, "plain", 1)]
    if model.dense_beside_experts:
        parts.append(_Part(model.layers * matrices * hidden * model.dense_intermediate, "mlp", tp))
    elif not separate:
        parts.append(_Part((model.layers - experts.layers) * matrices * hidden * model.dense_intermediate, "mlp", tp))
    return parts


_VOCABULARY = re.compile(r"embed_tokens|lm_head|word_embeddings|tok_embeddings|^output\.")
_HEAD = re.compile(r"lm_head|^output\.")
_WHOLE = re.compile(r"norm|router|\.gate\.(weight|e_score)|kv_a_proj|q_a_proj|q_down|shared_expert_gate|indexer\.")
_VISION = re.compile(r"vision|visual|image_newline|multi_modal_projector|mm_projector|audio")
_VISION_BLOCK = re.compile(r"\.(blocks|layers)\.\d+\.")
_KEY_VALUE = re.compile(r"\.(k_proj|v_proj|wk|wv)\.")
_PREDICTION = re.compile(r"(^|\.)mtp\.")
_LAYER = re.compile(r"layers\.(\d+)\.")


def of_prediction(tensor: str, layers: int) -> bool:
    """Whether a tensor is one of multi-token prediction: of a layer beyond the model's own, or of mtp.*."""
    layer = _LAYER.search(tensor)
    return bool(_PREDICTION.search(tensor) or (layer and int(layer[1]) >= layers and not _VISION.search(tensor)))


def _from_tensors(model: ModelDescription, tp: int, stage: Stage, plain: float) -> dict[str, float]:
    """The same split over the tensors of the safetensors headers. Those of multi-token prediction are not loaded."""
    parts = {"layers": 0.0, "embedding": 0.0, "vision": 0.0}
    share = stage.layers / model.layers
    for name, (kind, shape) in model.tensors.items():
        # What is not quantised is held in the engine's dtype, whatever the file has; vectors (norms, scales) are too small to matter.
        cast = kind in ("F32", "F16", "BF16") and len(shape) > 1 and not model.quantisation
        size = math.prod(shape) * (plain if cast else SAFETENSORS_BITS.get(kind, 16) / 8)
        layer = _LAYER.search(name)
        if _VISION.search(name):
            parts["vision"] += size / (tp if _VISION_BLOCK.search(name) and len(shape) > 1 else 1) if stage.first else 0
        elif of_prediction(name, model.layers):
            continue
        elif _VOCABULARY.search(name):
            wanted = stage.last if _HEAD.search(name) else stage.first or (stage.last and model.tied_embeddings)
            # A checkpoint may repeat a tied head.
            parts["embedding"] += size / tp if wanted and not (model.tied_embeddings and _HEAD.search(name)) else 0
        else:
            split = 1 if _WHOLE.search(name) else min(tp, model.kv_heads) if _KEY_VALUE.search(name) else tp
            parts["layers"] += size / split * (share if layer else 1)
    return parts
