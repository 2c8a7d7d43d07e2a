# SPDX-License-Identifier: GPL-3.0-or-later
"""KV cache: from bytes to blocks, tokens and requests, as vLLM's v1/core/kv_cache_utils.py (0.33: kv_cache_planning.py) does it.

Layers of one kind form groups of equal size; all groups take blocks from one pool, so a request costs the sum over the groups
(_get_kv_cache_groups_uniform_page_size, get_max_concurrency_for_kv_cache_config).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ._fit_model import Layers, ModelDescription

# Bytes an element of --kv-cache-dtype; auto is the model's own type.
KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "int8_per_token_head": 1, "bfloat16": 2, "float16": 2, "float32": 4}
FP8_DS_MLA_TOKEN_BYTES = 656  # DeepSeek sparse attention with fp8: v1/kv_cache_interface.py MLAAttentionSpec


@dataclass(frozen=True)
class Request:
    """What decides the blocks of a request: the tokens in flight, the states kept of each linear layer, the tokens their blocks are a multiple of."""

    block_size: int
    in_flight_tokens: int
    linear_states: int
    linear_block_step: int
    speculative_tokens: int


@dataclass(frozen=True)
class Group:
    """Groups of one kind: how many, and tokens in one block of theirs (0: a block is one state)."""

    kind: Layers
    groups: int
    block_tokens: int


@dataclass(frozen=True)
class Layout:
    """The pool of one stage: bytes of one block over all layers of a group, and the groups."""

    block_bytes: int
    groups: tuple[Group, ...]
    request: Request
    context_parallel: int = 1

    def blocks_per_request(self, length: int) -> int:
        """Blocks a request of `length` tokens holds at most."""
        return sum(group.groups * _blocks(group, length, self.request, self.context_parallel) for group in self.groups)

    def bytes_per_request(self, length: int) -> int:
        return self.blocks_per_request(length) * self.block_bytes

    def blocks(self, available: float) -> int:
        """Whole blocks in `available` bytes."""
        return max(0, int(available // self.block_bytes))

    def concurrency(self, available: float, length: int) -> float:
        """Requests of `length` tokens that fit at once."""
        return self.blocks(available) / self.blocks_per_request(length)

    def tokens(self, available: float, max_model_len: int, by_concurrency: bool) -> int:
        """The log's "GPU KV cache size": since 0.21 concurrency x max_model_len, before blocks // groups x the smallest block."""
        if by_concurrency:
            return int(self.concurrency(available, max_model_len) * max_model_len)
        smallest = min(group.block_tokens for group in self.groups if group.block_tokens)
        return self.blocks(available) // sum(group.groups for group in self.groups) * smallest * self.context_parallel


def layout(model: ModelDescription, constants: dict[str, Any], tp: int, pp: int, kv_bytes: float, state_bytes: int, request: Request, dcp: int = 1) -> Layout:
    """The pool of the largest pipeline stage. `kv_bytes` an element of the cache, `state_bytes` an element of a convolution's state."""
    kinds = [(kind, math.ceil(kind.count / pp)) for kind in model.attention if kind.count]
    separate = constants["hybrid_groups"] and len(kinds) > 1
    if separate and any(kind.kind == "chunked" for kind, _ in kinds) and not constants["chunked_hybrid"]:
        separate = False
    if not separate:
        # One group: every layer keeps every token (also a window that the only kind of layers shares costs no less in vLLM before hybrid groups).
        only = kinds[0][0] if len(kinds) == 1 and constants["hybrid_groups"] else Layers("full", 0, model.kv_heads, model.head_dim, model.head_dim)
        token = sum(_token_bytes(kind, tp, kv_bytes) * count for kind, count in kinds if kind.kind != "linear")
        return Layout(int(token * request.block_size), (Group(only, 1, request.block_size),), request, dcp)
    smallest, largest = min(count for _, count in kinds), max(count for _, count in kinds)
    size = largest if largest < constants["group_padding_ratio"] * smallest else smallest
    page, block_tokens = _page(kinds, tp, kv_bytes, state_bytes, request, constants)
    groups = tuple(Group(kind, math.ceil(count / size), block_tokens[kind.kind]) for kind, count in kinds)
    return Layout(page * size, groups, request, dcp)


def _page(kinds: list, tp: int, kv_bytes: float, state_bytes: int, request: Request, constants: dict[str, Any]) -> tuple[int, dict[str, int]]:
    """(bytes of one layer's page, tokens in it by kind). Kinds with smaller tokens get more of them (unify_kv_cache_spec_page_size)."""
    token = {kind.kind: int(_token_bytes(kind, tp, kv_bytes)) for kind, _ in kinds if kind.kind != "linear"}
    widest = max(token.values())
    block = request.block_size
    for kind, _ in kinds:
        if kind.kind == "linear":
            # The attention block grows until its page holds one state (platforms/interface.py _align_hybrid_block_size).
            state = linear_state_bytes(kind, tp, state_bytes, request.speculative_tokens, constants)
            step = request.linear_block_step
            block = max(block, math.ceil(state / (widest * step)) * step)
    tokens = {name: block * (widest // size) if widest % size == 0 else block for name, size in token.items()}
    return widest * block, {**tokens, "linear": 0}


def _token_bytes(kind: Layers, tp: int, kv_bytes: float) -> float:
    """Bytes a token and layer on one GPU (v1/kv_cache_interface.py AttentionSpec.real_page_size_bytes)."""
    if kind.kind == "mla":
        if kind.indexer and kv_bytes == 1:
            return FP8_DS_MLA_TOKEN_BYTES + kind.indexer
        return kind.latent * kv_bytes + kind.indexer
    return max(1, kind.kv_heads // tp) * (kind.head_dim + kind.value_dim) * kv_bytes


def linear_state_bytes(kind: Layers, tp: int, state_bytes: int, speculative_tokens: int, constants: dict[str, Any]) -> int:
    """Bytes of one request's state in one linear layer on one GPU."""
    ssm_bytes = 4 if kind.float32_state and constants["state_dtype_from_config"] else state_bytes
    return kind.conv * (kind.conv_steps + speculative_tokens) // tp * state_bytes + kind.ssm // tp * ssm_bytes


def _blocks(group: Group, length: int, request: Request, context_parallel: int) -> int:
    kind = group.kind
    if kind.kind == "linear":
        return request.linear_states
    if kind.kind == "sliding":
        held = min(kind.window - 1 + request.in_flight_tokens, length)
        return math.ceil(held / group.block_tokens) + 1
    if kind.kind == "chunked":
        return math.ceil(min(kind.window + request.in_flight_tokens, length) / group.block_tokens)
    return math.ceil(length / (group.block_tokens * context_parallel))
