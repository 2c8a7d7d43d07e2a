# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders of a small Llama, whole in form, as the tests of _model_source lay them in all kinds of places."""

from __future__ import annotations

import json
import socket
import struct

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}
# The tensors that a Llama of that config has: name -> shape, in 16 bit.
SHAPES = {
    "model.embed_tokens.weight": (512, 64),
    "lm_head.weight": (512, 64),
    "model.norm.weight": (64,),
    **{
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(2)
        for name, shape in {
            "self_attn.q_proj": (64, 64),
            "self_attn.k_proj": (32, 64),
            "self_attn.v_proj": (32, 64),
            "self_attn.o_proj": (64, 64),
            "mlp.gate_proj": (128, 64),
            "mlp.up_proj": (128, 64),
            "mlp.down_proj": (64, 128),
            "input_layernorm": (64,),
            "post_attention_layernorm": (64,),
        }.items()
    },
}
SIZE = 2 * sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in SHAPES.values())


def shard(names: list[str], note: str = "") -> bytes:
    """A whole safetensors file of zeros with those of SHAPES' tensors; `note` is metadata that makes its header long."""
    header, offset = {"__metadata__": {"format": "pt", "note": note}}, 0
    for name in names:
        size = 2 * SHAPES[name][0] * (SHAPES[name][1] if len(SHAPES[name]) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": SHAPES[name], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(offset)


NAMES = list(SHAPES)
SHARDS = {"model-00001-of-00002.safetensors": shard(NAMES[:9]), "model-00002-of-00002.safetensors": shard(NAMES[9:])}
INDEX = {
    "metadata": {"total_size": SIZE},
    "weight_map": {name: f"model-0000{1 if name in NAMES[:9] else 2}-of-00002.safetensors" for name in NAMES},
}
INDEXED = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors.index.json": json.dumps(INDEX).encode(), **SHARDS}
SINGLE = {"config.json": json.dumps(LLAMA).encode(), "model.safetensors": shard(NAMES), "consolidated.safetensors": shard(NAMES)}


def item(source, **more):
    """One model as the plan hands it over."""
    return {"name": "m", "source": source, "weights": {"mode": "stream"}, **more}


def checks(found):
    return [(row["check"], row["severity"]) for row in found.rows]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
