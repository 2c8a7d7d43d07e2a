# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a planned model's server as the fit arithmetic knows them: keys of the model and what its extra_args say beside them. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from . import _data, _vllm_args
from ._fit_engine import Engine
from ._fit_kv import KV_BYTES
from ._fit_model import ModelDescription
from ._problems import problem
from ._schema import Rows


def _count(value: str) -> int:
    if int(value) < 1:
        raise ValueError
    return int(value)


DTYPES = {"auto": None, "half": "float16", "float": "float32"}
# Flag -> (field of Engine, how to read the value).
FLAGS = {
    "--max-num-batched-tokens": ("max_num_batched_tokens", _count),
    "--block-size": ("block_size", _count),
    "--decode-context-parallel-size": ("decode_context_parallel", _count),
    "--kv-offloading-size": ("kv_offload_gib", float),
    "--api-server-count": ("api_servers", _count),
    "--max-loras": ("lora_slots", _count),
    "--max-lora-rank": ("lora_rank", _count),
    "--dtype": ("dtype", lambda value: DTYPES.get(value, value)),
}
SWITCHES = {
    "--enforce-eager": {"enforce_eager": True},
    "--enable-expert-parallel": {"expert_parallel": True},
    "--enable-prefix-caching": {"prefix_caching": True},
    "--no-enable-prefix-caching": {"prefix_caching": False},
    "--language-model-only": {"multimodal": False},
}


def engine_of(model: dict[str, Any], description: ModelDescription) -> tuple[Engine, ModelDescription, Rows]:
    """(engine, the description as these flags change it, warnings about flags whose memory is not counted). Keys that are None stay to be chosen."""
    version = _vllm_args.version_of(model["image"])
    settings: dict[str, Any] = {
        "vllm_version": ".".join(map(str, version)) if version else _data.load("vllm")["version"],
        "max_model_len": model["max_model_len"],
        "max_num_seqs": model["max_num_seqs"],
        "gpu_memory_utilization": model["gpu_memory_utilization"],
    }
    given = {flag: value for flag, _, value in (argument.partition("=") for argument in model["extra_args"])}
    rows: Rows = []

    def warn(flag: str, needed: str, fix: str) -> None:
        rows.append(problem("fit_flag", model["name"], f"{flag}={given[flag]}", needed, fix, "warning"))

    for flag, value in given.items():
        settings |= SWITCHES.get(flag, {})
        if flag in FLAGS:
            field, read = FLAGS[flag]
            try:
                settings[field] = read(value)
            except ValueError:
                warn(flag, "a plain number of at least 1, to be counted", "write it without a unit")
    cache = given.get("--kv-cache-dtype", "auto")
    if cache == "auto" or cache in KV_BYTES:
        settings["kv_cache_dtype"] = cache
    else:
        warn("--kv-cache-dtype", f"one of {', '.join(KV_BYTES)}, whose size is known", "know that the KV cache is counted as larger than it is")
    settings["lora_slots"] = settings.get("lora_slots", 1) if "--enable-lora" in given else 0
    if given.get("--quantization", "").startswith("fp8") and not description.quantisation:
        description = description.with_quantisation("fp8-online")
    # Overrides of config.json may stretch the rope: then the model's own length is what the user says.
    if "--hf-overrides" in given and (model["max_model_len"] or 0) > description.max_model_len:
        description = replace(description, max_model_len=model["max_model_len"])
    if "--speculative-config" in given:
        settings |= _speculation(given["--speculative-config"], lambda needed, fix: warn("--speculative-config", needed, fix))
    return Engine(**settings), description, rows


def _speculation(text: str, warn: Any) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError:
        warn("JSON", "correct the value")
        return {}
    settings: dict[str, Any] = {"speculative_tokens": int(config.get("num_speculative_tokens") or 0)}
    if config.get("method") in ("mtp", "deepseek_mtp"):
        settings["mtp"] = True
    elif config.get("model"):
        settings["draft"] = ModelDescription.from_table(config["model"])
        if settings["draft"] is None:
            warn("a draft model of the built-in table, to be counted", "leave room for the draft model's weights and KV cache")
    return settings
