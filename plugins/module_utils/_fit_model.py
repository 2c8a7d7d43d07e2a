# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fit arithmetic needs to know of a model, read from its config.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import _data


class ModelError(ValueError):
    """config.json lacks something without which nothing can be computed."""


@dataclass(frozen=True)
class Layers:
    """Layers that hold the same kind of KV cache or state.

    kind: full, sliding, chunked (attention over all tokens, a window, a chunk), mla (one compressed vector a token), linear (a fixed state a request).
    `window` is in tokens; `latent` are MLA's elements a token (kv_lora_rank + qk_rope_head_dim), `indexer` the bytes a token of its sparse indexer;
    `conv` and `ssm` are a linear layer's elements of state, whole, before tensor parallelism; `conv_steps` the convolution's kept steps.
    """

    kind: str
    count: int
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0
    window: int = 0
    latent: int = 0
    indexer: int = 0
    conv: int = 0
    conv_steps: int = 0
    ssm: int = 0
    float32_state: bool = False


@dataclass(frozen=True)
class Experts:
    """Routed experts: how many, how many a token uses, their width, the width of what every token uses beside them, in how many layers; with biases or not."""

    count: int
    per_token: int
    intermediate: int
    shared: int
    layers: int
    bias: bool = False


@dataclass(frozen=True)
class Vision:
    """An image encoder. `tokens_per_image` is what the largest image becomes in the language model, `patches_per_image` what the encoder computes on.

    `parameters` are all, `block_parameters` those of its layers, which tensor parallelism splits; `deepstack` are layers of the language model that get
    features of the encoder's inner layers, too.
    """

    depth: int
    hidden: int
    intermediate: int
    patch_elements: int
    tokens_per_image: int
    patches_per_image: int
    gated: bool
    parameters: float
    block_parameters: float
    deepstack: int


@dataclass(frozen=True)
class ModelDescription:
    """One model. `unknown` lists what is not understood: with anything in it a verdict is UNKNOWN, figures are indicative.

    `length_stated` is False where max_model_len only stands for a length that config.json does not state.
    `rotary_caches` names how vLLM keeps its rotary tables (fit_constants.json, architectures).
    `quantisation` is a key of fit_constants.json's quantisations or None; `checkpoint_bytes` the bytes of all tensors when known (else a formula counts).
    """

    name: str
    architecture: str
    hidden: int
    vocabulary: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_model_len: int
    attention: tuple[Layers, ...]
    dtype: str = "bfloat16"
    tied_embeddings: bool = False
    attention_bias: bool = False
    output_gate: bool = False
    experts: Experts | None = None
    dense_intermediate: int = 0
    dense_beside_experts: bool = False
    vision: Vision | None = None
    mtp_layers: int = 0
    rotary_elements: int = 0
    rotary_caches: str = ""
    quantisation: str | None = None
    checkpoint_bytes: int | None = None
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = field(default=None, compare=False)
    mla: Mapping[str, int] | None = field(default=None, compare=False)
    linear: Mapping[str, int] | None = field(default=None, compare=False)
    unknown: tuple[str, ...] = ()
    length_stated: bool = True
    source: str = "config.json"

    @property
    def hybrid(self) -> bool:
        return any(kind.kind == "linear" for kind in self.attention)

    def with_quantisation(self, name: str | None) -> ModelDescription:
        """The same model with other bytes a parameter; drops the measured checkpoint size, which no longer holds."""
        if name == self.quantisation:
            return self
        return replace(self, quantisation=name, checkpoint_bytes=None, tensors=None, unknown=tuple(u for u in self.unknown if "quantisation" not in u))

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        name: str = "",
        checkpoint_bytes: int | None = None,
        tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
        quantisation: str | None = None,
        source: str = "config.json",
    ) -> ModelDescription:
        """Read a Hugging Face config.json (or an entry of model_configs.json).

        tensors: name -> (safetensors dtype such as "BF16", shape), from the safetensors headers: then no formula is needed for the weights.
        quantisation: says what config.json does not, e.g. "fp8-online"; None reads quantization_config.
        Raises ModelError naming the missing fields.
        """
        top = dict(config)
        text = {**top, **(top.get("text_config") or top.get("llm_config") or {})}
        missing = [key for key in ("architectures", "hidden_size", "num_attention_heads", "vocab_size") if not (top.get(key) or text.get(key))]
        pattern = text.get("hybrid_override_pattern")
        if not text.get("num_hidden_layers") and not pattern:
            missing.append("num_hidden_layers")
        if missing:
            raise ModelError(f"{name or 'the model'}: {source} has no {', '.join(missing)}; needed to compute memory. Give the model's complete config.json")
        architecture = (top.get("architectures") or text["architectures"])[0]
        facts = _data.load("fit_constants")["architectures"].get(architecture)
        unknown = [] if facts is not None else [f"architecture {architecture} is not in the table: its layers are taken for those of a plain decoder"]
        facts = facts or {}
        if facts.get("unknown"):
            unknown.append(f"{architecture}: {facts['unknown']}")
        heads = text["num_attention_heads"]
        kv_heads = text.get("num_key_value_heads") or heads
        head_dim = text.get("head_dim") or text["hidden_size"] // heads
        attention, reasons = _attention(text, architecture, facts, kv_heads, head_dim)
        if all(kind.kind == "linear" for kind in attention):
            raise ModelError(f"{name or 'the model'}: {source} describes no attention layer; models without any are not covered")
        stated = text.get("max_position_embeddings")
        if not stated:
            unknown.append("max_position_embeddings is missing: the longest context is not known")
        dtype = str(text.get("torch_dtype") or text.get("dtype") or "bfloat16").replace("torch.", "")
        if dtype not in DTYPES:
            unknown.append(f"dtype {dtype} is none that vLLM runs: what is not quantised is counted in 16 bit")
        layers = text.get("num_hidden_layers") or len(pattern)
        experts, dense = _experts(text, facts, layers)
        quantisation, reason = (quantisation, []) if quantisation else _quantisation(text, name, bool(experts))
        return cls(
            name=name,
            architecture=architecture,
            hidden=text["hidden_size"],
            vocabulary=text["vocab_size"],
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=text.get("intermediate_size") or 0,
            max_model_len=int((stated or 8192) * _stretched(text, architecture)),
            length_stated=bool(stated),
            attention=attention,
            dtype=dtype if dtype in DTYPES else "bfloat16",
            tied_embeddings=bool(text.get("tie_word_embeddings", top.get("tie_word_embeddings", _tied_by_default(architecture)))),
            attention_bias=bool(text.get("attention_bias", facts.get("attention_bias", False))),
            output_gate=bool(text.get("attn_output_gate")),
            experts=experts,
            dense_intermediate=dense,
            dense_beside_experts=bool(facts.get("dense_beside_experts")),
            vision=_vision(top, text, facts),
            mtp_layers=text.get("num_nextn_predict_layers") or text.get("mtp_num_hidden_layers") or 0,
            rotary_elements=_rotary_elements(text, facts, head_dim),
            rotary_caches=facts.get("rotary_caches") or ("mrope" if "mrope_section" in (text.get("rope_scaling") or text.get("rope_parameters") or {}) else ""),
            quantisation=quantisation,
            checkpoint_bytes=checkpoint_bytes,
            tensors=tensors,
            mla={key: text.get(key) or 0 for key in _MLA} if text.get("kv_lora_rank") else None,
            linear={key: text.get(key) or 0 for key in _LINEAR} if any(kind.kind == "linear" for kind in attention) else None,
            unknown=tuple(unknown + reasons + reason),
            source=source,
        )

    @classmethod
    def from_table(cls, name: str) -> ModelDescription | None:
        """The model of that Hugging Face name from the built-in table, or None."""
        table = _data.load("model_configs")
        entry = table["models"].get(name)
        if not entry:
            return None
        # The table keeps only part of quantization_config; what it lost, the checkpoint's name tells.
        quantisation = entry.get("quantisation") or (None if entry.get("quant_method") else quantisation_of_name(name))
        return cls.from_config(entry, name=name, quantisation=quantisation, source=f"built-in table of {table['as_of']} ({entry['source']})")


DTYPES = ("bfloat16", "float16", "half", "float32", "auto")
_NAMED = {"nvfp4": ("nvfp4",), "awq": ("awq",), "int4": ("gptq-int4", "w4a16"), "int8": ("w8a8", "gptq-int8"), "fp8": ("fp8",)}
_MLA = ("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "index_n_heads", "index_head_dim")
_LINEAR = (
    *("linear_num_key_heads", "linear_key_head_dim", "linear_num_value_heads", "linear_value_head_dim", "linear_conv_kernel_dim"),
    *("mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"),
)


def quantisation_of_name(name: str) -> str | None:
    """What the name of a checkpoint tells of its quantisation: a key of fit_constants' quantisations or None."""
    return next((key for key, words in _NAMED.items() if any(word in name.lower() for word in words)), None)


def _tied_by_default(architecture: str) -> bool:
    """Gemma's config class ties the embeddings unless told otherwise; the others do not."""
    return architecture.startswith("Gemma")


def _attention(text: Mapping[str, Any], architecture: str, facts: Mapping[str, Any], kv_heads: int, head_dim: int) -> tuple[tuple[Layers, ...], list[str]]:
    """The layers by kind of cache, and what is not understood."""
    total, unknown = text.get("num_hidden_layers") or 0, []
    window = text.get("sliding_window") or 0
    chunk = text.get("attention_chunk_size") or 0
    if text.get("kv_lora_rank"):
        latent = text["kv_lora_rank"] + text["qk_rope_head_dim"]
        indexer = text["index_head_dim"] + 4 if text.get("index_head_dim") else 0
        return (Layers("mla", total, latent=latent, indexer=indexer),), unknown
    full, sliding, chunked, linear = _layer_counts(text, architecture, facts, total, window, chunk)
    if facts.get("nemotron_h") and not text.get("hybrid_override_pattern"):
        unknown.append("hybrid_override_pattern is missing: which layers hold attention is not known")
    if text.get("num_kv_shared_layers"):
        unknown.append(f"num_kv_shared_layers = {text['num_kv_shared_layers']}: shared KV layers are counted as own ones")
    value_dim = text.get("v_head_dim") or head_dim
    kinds = []
    if full:
        # Gemma 4's own number holds only where keys are values, too (models/gemma4.py use_k_eq_v).
        full_heads = (text.get("num_global_key_value_heads") if text.get("attention_k_eq_v") else None) or kv_heads
        full_dim = text.get("global_head_dim") or head_dim
        kinds.append(Layers("full", full, full_heads, full_dim, text.get("global_head_dim") or value_dim))
    if sliding:
        kinds.append(Layers("sliding", sliding, kv_heads, head_dim, value_dim, window))
    if chunked:
        kinds.append(Layers("chunked", chunked, kv_heads, head_dim, value_dim, chunk))
    if linear:
        kinds.append(_linear(text, linear))
    return tuple(kinds), unknown


def _layer_counts(text: Mapping[str, Any], architecture: str, facts: Mapping[str, Any], total: int, window: int, chunk: int) -> tuple[int, int, int, int]:
    """(full, sliding, chunked, linear) attention layers."""
    counts = dict(text.get("layer_types_count") or {})
    for layer_type in text.get("layer_types") or []:
        counts[layer_type] = counts.get(layer_type, 0) + 1
    pattern = text.get("hybrid_override_pattern")
    if pattern:
        return pattern.count("*"), 0, 0, pattern.count("M")
    if counts:
        known = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
        full, sliding, chunked, linear = (counts.get(key, 0) for key in known)
        return full, sliding, chunked, linear
    if text.get("full_attention_interval") and text.get("linear_num_key_heads"):
        full = total // text["full_attention_interval"]
        return full, 0, 0, total - full
    if chunk and facts.get("llama4"):
        return total // 4, 0, total - total // 4, 0
    if window and architecture.startswith("Gemma3"):
        full = total // (text.get("sliding_window_pattern") or 6)
        return full, total - full, 0, 0
    if window and architecture.startswith("Gemma2"):
        return total // 2, total - total // 2, 0, 0
    # Qwen2 states a window that use_sliding_window switches off; for others a window without a pattern holds in all layers.
    shorter = window < (text.get("max_position_embeddings") or 0)
    if window and shorter and architecture.startswith(("Mistral", "Phi3", "Mixtral")) and text.get("use_sliding_window", True):
        return 0, total, 0, 0
    return total, 0, 0, 0


def _linear(text: Mapping[str, Any], count: int) -> Layers:
    """State of a gated delta net (Qwen3-Next and later) or Mamba-2 layer. Source: vLLM mamba_utils.py gated_delta_net_state_shape, mamba2_state_shape."""
    float32 = text.get("mamba_ssm_dtype") == "float32" or text.get("mamba_ssm_cache_dtype") == "float32"
    if text.get("linear_num_key_heads"):
        keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
        values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
        steps, ssm = text["linear_conv_kernel_dim"] - 1, values * text["linear_key_head_dim"]
        return Layers("linear", count, conv=2 * keys + values, conv_steps=steps, ssm=ssm, float32_state=float32)
    inner, size = text["mamba_num_heads"] * text["mamba_head_dim"], text["ssm_state_size"]
    return Layers(
        "linear",
        count,
        conv=inner + 2 * text.get("n_groups", 8) * size,
        conv_steps=text.get("conv_kernel", 4) - 1,
        ssm=inner * size,
        float32_state=float32,
    )


def _experts(text: Mapping[str, Any], facts: Mapping[str, Any], layers: int) -> tuple[Experts | None, int]:
    """(routed experts, width of the MLP in layers without them)."""
    dense = text.get("intermediate_size") or 0
    count = text.get("num_experts") or text.get("n_routed_experts") or text.get("num_local_experts") or 0
    if not count:
        return None, dense
    width = text.get("moe_intermediate_size") or dense
    shared = text.get("shared_expert_intermediate_size") or text.get("moe_shared_expert_intermediate_size") or (text.get("n_shared_experts") or 0) * width
    with_experts = layers - (text.get("first_k_dense_replace") or 0)
    if facts.get("llama4"):
        width = shared = text["intermediate_size"]
        with_experts = layers // (text.get("interleave_moe_layer_step") or 1)
        dense = text.get("intermediate_size_mlp") or dense
    if text.get("hybrid_override_pattern"):
        with_experts = text["hybrid_override_pattern"].count("E")
    per_token = text.get("num_experts_per_tok") or text.get("top_k_experts") or text.get("num_experts_per_token") or 1
    return Experts(count, per_token, width, shared, with_experts, bool(facts.get("expert_bias"))), dense


def _side(size: Any) -> int:
    """The longer side of a width or of [height, width]."""
    return max(size, default=0) if isinstance(size, Iterable) else size or 0


def _vision(top: Mapping[str, Any], text: Mapping[str, Any], facts: Mapping[str, Any]) -> Vision | None:
    """The image encoder: config.json's vision_config over the architecture's defaults; None for text-only models."""
    given = {key: value for key, value in (top.get("vision_config") or top.get("vision") or {}).items() if value is not None}
    if not given and not facts.get("vision"):
        return None
    merged = {**facts.get("vision", {}), **given}
    depth = merged.get("depth") or merged.get("num_hidden_layers") or 24
    hidden = merged.get("embed_dim") or merged.get("hidden_size") or 1024
    inner = merged.get("intermediate_size") or hidden * 4
    patch, merge, temporal = _side(merged.get("patch_size")) or 14, merged.get("spatial_merge_size") or merged.get("merge") or 1, merged.get("temporal", 1)
    elements = 3 * patch * patch * temporal
    if merged.get("pixels_max"):
        tokens = merged["pixels_max"] // (patch * merge) ** 2
        patches = tokens * merge**2
    else:
        size = _side(merged.get("image_size")) or 448
        patches = (size // patch) ** 2 * merged.get("tiles", 1)
        tokens = merged.get("tokens_per_image") or patches
    gated = bool(merged.get("gated"))
    block = 4 * hidden * hidden + (3 if gated else 2) * hidden * inner
    # The projector: merged patches -> its own width -> the language model, as in Qwen's patch merger.
    projector = hidden * merge * merge * (hidden * merge * merge if merge > 1 else 0) + hidden * merge * merge * text["hidden_size"]
    deepstack = merged.get("deepstack", len(merged.get("deepstack_visual_indexes") or ()))
    parameters = float(text.get("vision_params") or depth * block + hidden * elements + projector * (1 + deepstack))
    return Vision(depth, hidden, inner, elements, tokens, patches, gated, parameters, min(parameters, float(depth * block)), deepstack)


def _stretched(text: Mapping[str, Any], architecture: str) -> float:
    """By how much the rope lengthens max_position_embeddings (vLLM's config/model.py _get_and_verify_max_len); other kinds and Gemma 3 state it stretched."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kinds = [scaling, *(value for value in scaling.values() if isinstance(value, Mapping))]
    factors = [kind.get("factor") or 1 for kind in kinds if (kind.get("rope_type") or kind.get("type")) in ("linear", "dynamic")]
    return factors[-1] if factors and not architecture.startswith("Gemma3") else 1


def _rotary_elements(text: Mapping[str, Any], facts: Mapping[str, Any], head_dim: int) -> int:
    """Elements of the cos/sin tables that vLLM keeps on the GPU, one per distinct rotary embedding (rotary_embedding/base.py; linear scaling multiplies)."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    positions = min(text.get("max_position_embeddings") or 8192, 4_194_304)
    given = text.get("partial_rotary_factor") or (text.get("rope_parameters") or {}).get("partial_rotary_factor")
    width = text["qk_rope_head_dim"] if text.get("kv_lora_rank") else int(head_dim * (given or facts.get("partial_rotary_factor", 1)))
    kind = scaling.get("rope_type") or scaling.get("type")
    factor = (scaling.get("factor") or 1) if kind == "linear" else facts.get("rope_linear_factor", 1) if not kind or kind == "default" else 1
    if facts.get("rotary_caches") == "gemma3":
        return int(positions * width * (1 + factor))
    if facts.get("rotary_caches") == "gemma4":
        return int(positions * (width + (text.get("global_head_dim") or width)))
    return int(positions * width * factor)


# A module list's entry for the attention: all of self_attn or its projections, or all of linear_attn; not one small part (conv1d, in_proj_a, indexer).
_ATTENTION = re.compile(r"self_attn(?!\.(indexer|\w*norm|rotary))|(^|[.*])(linear_)?attn\W*$")


def _quantisation(text: Mapping[str, Any], name: str, experts: bool) -> tuple[str | None, list[str]]:
    """(key of fit_constants' quantisations or None, what is not understood) from quantization_config or the built-in table's summary of it."""
    settings = text.get("quantization_config") or text.get("compression_config") or {}
    method = str(settings.get("quant_method") or text.get("quant_method") or "").lower()
    if not method:
        return None, []
    kept = [str(item) for item in settings.get("ignore") or settings.get("modules_to_not_convert") or settings.get("exclude_modules") or []]
    attention_kept = any(_ATTENTION.search(item) and "vis" not in item for item in kept)
    algorithm = str(settings.get("quant_algo") or text.get("quant_fmt") or "").lower()
    bits, kind = settings.get("bits") or settings.get("w_bit") or 4, "int"
    for group in (settings.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        bits, kind = weights.get("num_bits", bits), weights.get("type", kind)
    if method == "modelopt" or algorithm in ("nvfp4", "mixed_precision"):
        four = "fp8" not in algorithm and "fp8" not in name.lower()
        return (("nvfp4-mixed" if attention_kept else "nvfp4") if four else ("fp8-mlp" if attention_kept else "fp8")), []
    if method in ("fp8", "fbgemm_fp8") or (method == "compressed-tensors" and kind == "float" and bits == 8):
        return ("fp8-mlp" if attention_kept else "fp8"), []
    if method == "mxfp4":
        return "mxfp4", []
    if method in ("awq", "awq_marlin"):
        return "awq", []
    if method == "compressed-tensors" and kind == "float" and bits == 4:
        return ("nvfp4-mixed" if attention_kept else "nvfp4"), []
    if method in ("gptq", "gptq_marlin", "compressed-tensors") and bits in (4, 8):
        mixed = "int4-experts" if experts else "int4-mlp"
        return ("int8" if bits == 8 else mixed if attention_kept else "int4"), []
    return None, [f"quantisation {method} is not in the table: weights are counted in 16 bit"]
