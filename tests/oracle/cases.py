# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiny models, one for each kind of KV cache, in the words of config.json. They have the shapes' proportions of real ones, and no trained weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-6,
}


def layer_types(pattern: str) -> list[str]:
    """f full attention, s a sliding window, c a chunk, l linear attention."""
    return [{"f": "full_attention", "s": "sliding_attention", "c": "chunked_attention", "l": "linear_attention"}[letter] for letter in pattern]


@dataclass(frozen=True)
class Case:
    """`config` for config.json; `settings` in the words of vLLM's engine arguments, beside those that all cases share."""

    name: str
    config: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("dense", {**SMALL, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 6}),
    Case("dense-odd-length", {**SMALL, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_hidden_layers": 5}, {"max_model_len": 3001}),
    Case(
        "mla",
        {
            **{key: value for key, value in SMALL.items() if key not in ("head_dim",)},
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
            "routed_scaling_factor": 1.0,
            "norm_topk_prob": False,
            "moe_layer_freq": 1,
        },
    ),
    Case(
        "moe",
        {
            **SMALL,
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "num_hidden_layers": 4,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
    ),
    Case(
        "sliding-5-to-1",
        {
            **SMALL,
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "num_hidden_layers": 13,
            "layer_types": layer_types("sssssfsssssfs"),
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 64,
            "rope_local_base_freq": 10000.0,
            "rope_theta": 1000000.0,
        },
    ),
    Case(
        "sliding-1-to-1",
        {
            **SMALL,
            "architectures": ["Gemma2ForCausalLM"],
            "model_type": "gemma2",
            "num_hidden_layers": 7,
            "layer_types": layer_types("sfsfsfs"),
            "sliding_window": 1024,
            "query_pre_attn_scalar": 64,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": 30.0,
        },
    ),
    Case(
        "sliding-only",
        {**SMALL, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "num_hidden_layers": 4, "sliding_window": 1024},
    ),
    Case(
        "sliding-and-experts",
        {
            **SMALL,
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "num_hidden_layers": 6,
            "layer_types": layer_types("sfsfsf"),
            "sliding_window": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "experts_per_token": 2,
            "swiglu_limit": 7.0,
            "rope_theta": 150000,
            "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096},
            "attention_bias": True,
        },
    ),
    Case(
        "two-head-sizes",
        {
            **SMALL,
            "architectures": ["Gemma4ForCausalLM"],
            "model_type": "gemma4_text",
            "num_hidden_layers": 12,
            "layer_types": layer_types("sssssfsssssf"),
            "sliding_window": 512,
            "global_head_dim": 128,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": False,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 1024,
        },
    ),
    Case(
        "linear",
        {
            **SMALL,
            "architectures": ["Qwen3NextForCausalLM"],
            "model_type": "qwen3_next",
            "num_hidden_layers": 8,
            "full_attention_interval": 4,
            "layer_types": layer_types("lllflllf"),
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "linear_key_head_dim": 64,
            "linear_value_head_dim": 64,
            "linear_conv_kernel_dim": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "mlp_only_layers": [],
            "attn_output_gate": True,
        },
    ),
)
# The same model with and without kept states of its linear layers.
CASES += (Case("linear-no-prefix-cache", CASES[-1].config, {"enable_prefix_caching": False}),)
