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
    "--disable-prefix-caching": {"prefix_caching": False},
    "--no-async-scheduling": {"async_scheduling": False},
    "--language-model-only": {"multimodal": False},
}
# Flag -> what to know, of those that change memory in a way that is not counted.
UNCOUNTED = {
    "--cpu-offload-gb": "know that the GPUs hold less and the pod's memory more: set resources.memory",
    "--kv-cache-memory-bytes": "leave it out: the KV cache is then what gpu_memory_utilization leaves, as planned",
    "--performance-mode": "set --max-num-batched-tokens and max_num_seqs, which it changes, by themselves",
    "--quantization": "use a checkpoint that is quantised, or fp8, whose size is known",
    "--quantization-config": "use a checkpoint that is quantised, or --quantization=fp8, whose size is known",
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
    # By the flag's name in the table; of dotted flags (--speculative-config.method=mtp) by key, as vLLM's parser gathers them.
    given: dict[str, str] = {}
    dotted: dict[str, dict[str, str]] = {}
    for argument in model["extra_args"]:
        flag, _, value = argument.partition("=")
        base, _, key = flag.partition(".")
        given[_vllm_args.table_flag(flag)] = value
        if key:
            dotted.setdefault(base, {})[key] = value
    given |= {flag: json.dumps(keys) for flag, keys in dotted.items()}
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
    counted = {"--performance-mode": "balanced"} | ({"--quantization": given.get("--quantization")} if description.quantisation else {})
    if given.get("--quantization", "").startswith("fp8") and not description.quantisation:
        description = description.with_quantisation("fp8-online")
        counted["--quantization"] = given["--quantization"]
    for flag, fix in UNCOUNTED.items():
        if flag in given and given[flag] != counted.get(flag):
            warn(flag, "flags whose memory is counted", fix)
    # Overrides of config.json may stretch the rope: then the model's own length is what the user says.
    if "--hf-overrides" in given and (model["max_model_len"] or 0) > description.max_model_len:
        description = replace(description, max_model_len=model["max_model_len"])
    if "--speculative-config" in given:
        settings |= _speculation(given["--speculative-config"], lambda needed, fix: warn("--speculative-config", needed, fix))
    return Engine(**settings), description, rows


def _speculation(text: str, warn: Any) -> dict[str, Any]:
    try:
        config = json.loads(text)
        tokens = int(config.get("num_speculative_tokens") or 0)
    except (AttributeError, TypeError, ValueError):
        warn("a JSON object with a whole num_speculative_tokens", "correct the value")
        return {}
    settings: dict[str, Any] = {"speculative_tokens": tokens}
    if config.get("method") in ("mtp", "deepseek_mtp"):
        settings["mtp"] = True
    elif config.get("model"):
        settings["draft"] = ModelDescription.from_table(str(config["model"]))
        if settings["draft"] is None:
            warn("a draft model of the built-in table, to be counted", "leave room for the draft model's weights and KV cache")
    return settings
