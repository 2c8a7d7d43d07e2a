# SPDX-License-Identifier: GPL-3.0-or-later
"""params.json, the config of checkpoints in Mistral's own format, in the words of a Hugging Face config.json. Pure.

Names and defaults as vLLM takes them: transformers_utils/configs/mistral.py adapt_config_dict (0.33.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
}
_EXPERTS = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "expert_hidden_dim": "moe_intermediate_size",
    "num_shared_experts": "n_shared_experts",
    "first_k_dense_replace": "first_k_dense_replace",
}
DEFAULT_LENGTH = 128_000


def to_config(params: Mapping[str, Any], beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config of `params`; `beside` is the config.json in the same folder, which tells the length when params.json does not."""
    config = {_NAMES.get(key, key): value for key, value in params.items()}
    text_beside = {**(beside or {}), **((beside or {}).get("text_config") or {})}
    config["max_position_embeddings"] = params.get("max_position_embeddings") or text_beside.get("max_position_embeddings") or DEFAULT_LENGTH
    # vLLM reads the type from the tensors; a checkpoint in this format has 16 bit unless config.json says otherwise.
    config["torch_dtype"] = params.get("dtype") or text_beside.get("torch_dtype") or text_beside.get("dtype") or "bfloat16"
    windows = params.get("sliding_window")
    if isinstance(windows, list):
        pattern = windows * (config["num_hidden_layers"] // len(windows))
        config["layer_types"] = ["full_attention" if window is None else "sliding_attention" for window in pattern]
        config["sliding_window"] = next((window for window in windows if window), None)
    experts = config.pop("moe", None) or {}
    if experts.get("num_shared_experts"):
        config["architectures"] = ["MistralLarge3ForCausalLM"]
        config |= {theirs: experts[ours] for ours, theirs in _EXPERTS.items() if ours in experts}
    elif experts:
        config["architectures"] = ["MixtralForCausalLM"]
        config |= {"num_local_experts": experts.get("num_experts"), "num_experts_per_tok": experts.get("num_experts_per_tok")}
    else:
        # One expert that every token uses is how vLLM writes latent attention without experts.
        config["architectures"] = ["MistralLarge3ForCausalLM" if params.get("qk_nope_head_dim") else "MistralForCausalLM"]
    if params.get("model_type") == "mamba":
        config["architectures"] = ["Mamba2ForCausalLM"]
    quantisation = config.pop("quantization", None)
    if quantisation:
        kind = "fp8" if quantisation.get("qformat_weight") == "fp8_e4m3" else str(quantisation.get("quant_method") or quantisation.get("qformat_weight"))
        config["quantization_config"] = {**quantisation, "quant_method": kind.lower().replace("_", "-")}
    media = config.pop("multimodal", None) or {}
    vision = config.pop("vision_encoder", None) or media.get("vision_encoder_args")
    if vision:
        config |= {"architectures": ["PixtralForConditionalGeneration"], "vision_config": dict(vision)}
    elif media.get("whisper_model_args"):
        config["architectures"] = ["VoxtralForConditionalGeneration"]
    return config
