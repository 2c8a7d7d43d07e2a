# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of one vLLM server that decide its memory, with vLLM's own defaults filled in."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from . import _data
from ._fit_gpu import Gpu
from ._fit_model import ModelDescription


@dataclass(frozen=True)
class Engine:
    """vLLM's settings; None means vLLM's default for the version, the GPU and the model.

    cold_compile: the first start on a node without torch.compile cache, which gets least KV cache. multimodal=False is --language-model-only.
    async_scheduling=False is --no-async-scheduling: one batch less in flight. marlin: MXFP4 kernels when known, True Marlin, False Triton.
    lora_slots and lora_rank are --max-loras and --max-lora-rank.
    draft: a draft model of speculative decoding; mtp: the model's own multi-token prediction layers are loaded.
    Worked out by resolve, never given: linear_states, the states a request keeps in each linear attention layer, and linear_block_step, what the block of
    such a model is a multiple of, in tokens.
    """

    vllm_version: str = "0.33.0"
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    dtype: str | None = None
    kv_cache_dtype: str = "auto"
    enforce_eager: bool = False
    expert_parallel: bool = False
    decode_context_parallel: int = 1
    block_size: int = 16
    prefix_caching: bool | None = None
    async_scheduling: bool = True
    multimodal: bool = True
    cold_compile: bool = True
    marlin: bool | None = None
    lora_slots: int = 0
    lora_rank: int = 16
    draft: ModelDescription | None = None
    mtp: bool = False
    speculative_tokens: int = 0
    linear_states: int | None = None
    linear_block_step: int | None = None
    kv_offload_gib: float = 0.0
    api_servers: int = 1

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel


@dataclass(frozen=True)
class Version:
    """The constants of one vLLM version. newer: newer than the table; older: the V0 engine and its successors before 0.10, coarse."""

    number: tuple[int, int]
    constants: dict[str, Any]
    newer: bool
    older: bool


@functools.cache
def version(text: str) -> Version:
    """The constants that hold for a vLLM version such as "0.33.0", "v0.19" or "0.23.1rc1". The result is shared: do not change it.

    Raises ValueError when the text holds no major and minor number.
    """
    match = re.search(r"(\d+)\.(\d+)", text)
    if not match:
        raise ValueError(f"vLLM version {text!r}: needed a major and a minor number such as 0.33.0")
    number = (int(match[1]), int(match[2]))
    table = _data.load("fit_constants")
    constants: dict[str, Any] = {}
    for entry in table["vllm"]:
        if _pair(entry["from"]) <= number:
            constants.update({key: value for key, value in entry.items() if key not in ("from", "source")})
    return Version(number, constants, number > _pair(table["newest_vllm"]), number < _pair(table["oldest_supported_vllm"]))


def resolve(engine: Engine, model: ModelDescription, gpu: Gpu) -> Engine:
    """Fill in the defaults of vLLM's API server (engine/arg_utils.py get_batch_defaults, config/cache.py)."""
    constants = version(engine.vllm_version).constants
    huge = constants["batch_tier_160gib"] and gpu.visible_gib >= 160
    large = gpu.visible_gib >= 70 and "a100" not in gpu.name.lower()
    length = engine.max_model_len or model.max_model_len
    sequences = engine.max_num_seqs or constants["max_num_seqs_large" if large else "max_num_seqs"]
    batched = engine.max_num_batched_tokens
    if not batched:
        batched = 16384 if huge else constants["max_num_batched_tokens_large" if large else "max_num_batched_tokens"]
        if version(engine.vllm_version).number < (0, 8):
            batched = max(batched, length)  # no chunked prefill: a whole prompt is one batch
        batched = min(batched, sequences * length)
    prefix = engine.prefix_caching
    if prefix is None:
        prefix = constants["hybrid_prefix_caching"] or not model.hybrid
    exported, step = _checkpoints(constants, model, gpu) if prefix else (0, 1)
    states = (2 + exported if prefix else 1) + engine.speculative_tokens
    return replace(
        engine,
        max_model_len=length,
        gpu_memory_utilization=engine.gpu_memory_utilization or constants["gpu_memory_utilization"],
        max_num_seqs=sequences,
        max_num_batched_tokens=batched,
        dtype=engine.dtype or _dtype(model, gpu),
        prefix_caching=prefix,
        linear_states=states,
        linear_block_step=math.lcm(engine.block_size, step),
    )


def _dtype(model: ModelDescription, gpu: Gpu) -> str:
    """vLLM's `auto` (config/model.py _resolve_auto_dtype): float32 is cast down, bfloat16 where a GPU has none; asked for explicitly it refuses the latter."""
    if model.dtype in ("float16", "half"):
        return model.dtype
    return "float16" if 0 < gpu.capability < 8 else "bfloat16"


def mxfp4_by_marlin(engine: Engine, gpu: Gpu) -> bool:
    """Whether Marlin's kernels run MXFP4 experts. Triton's or FlashInfer's do on Hopper and data-centre Blackwell, since 0.11."""
    if engine.marlin is not None:
        return engine.marlin
    return not 9 <= gpu.capability < 12 or version(engine.vllm_version).number < (0, 11)


def delta_net_by_flashinfer(model: ModelDescription, gpu: Gpu) -> bool:
    """Whether a gated delta net runs on FlashInfer's kernels (layers/mamba/gdn/qwen_gdn_linear_attn.py _resolve_gdn_prefill_backend); else on Triton's."""
    blackwell = 10 <= gpu.capability < 11 or 12 <= gpu.capability < 13
    return 9 <= gpu.capability < 10 or (blackwell and (model.linear or {}).get("linear_key_head_dim") == 128)


def _checkpoints(constants: dict[str, Any], model: ModelDescription, gpu: Gpu) -> tuple[int, int]:
    """(states beyond two that prefix caching keeps of a request, tokens that a block is a multiple of for it)."""
    if not model.linear:
        return 0, 1
    if not model.linear["linear_num_key_heads"]:
        return constants["mamba2_checkpoint_blocks"], 1
    if constants["delta_net_checkpoint_blocks"] and delta_net_by_flashinfer(model, gpu):
        return constants["delta_net_checkpoint_blocks"], constants["delta_net_checkpoint_tokens"]
    return 0, 1


def v2_runner(engine: Engine, model: ModelDescription) -> bool:
    """Whether vLLM runs the model with its second model runner (config/vllm.py use_v2_model_runner), which holds and profiles other buffers."""
    constants = version(engine.vllm_version).constants
    if constants["v2_runner_all"]:
        return True
    if model.architecture in constants["v2_runner"]:
        return constants["v2_runner_quantised"] or model.quantisation is None
    return constants["v2_runner_dense"] and not model.experts and not model.hybrid


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
