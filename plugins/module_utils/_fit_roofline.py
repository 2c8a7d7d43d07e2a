# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens per second and dollars per million tokens: a roofline over one decode step, capped by the requests that the KV cache holds.

A step reads the weights it touches and the KV cache of every running request, computes two operations a weight and token, waits for two all-reduces a layer
and for the host, which works longer the more requests run, and shares the GPU with the prefill of those that arrive meanwhile. Efficiencies and
ranges: _data/fit_constants.json `roofline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import _data
from ._fit import Fit, kv_layout
from ._fit_engine import version
from ._fit_model import ModelDescription
from ._fit_weights import BYTES, parameters


@dataclass(frozen=True)
class Throughput:
    """Per replica. Output tokens/s as expected and the range that a measured value should lie in; `requests` running at once, after the KV cache's cap.

    step_ms: time of a step, prefill of those that arrive included; tpot_ms: between two tokens of an answer, as its client sees it: the step without the
    request's own prefill, which is its time to the first token; terms: milliseconds by name.
    """

    output_tokens_s: float
    low: float
    high: float
    requests: float
    capped: bool
    step_ms: float
    tpot_ms: float
    terms: dict[str, float]
    range_why: str


def throughput(fit: Fit, prompt_tokens: int, answer_tokens: int, concurrency: float) -> Throughput | None:
    """Steady state with `concurrency` requests of that length wanted at once; None when the GPU's bandwidth is not known or nothing fits.

    Raises ValueError for lengths below one token or a concurrency of zero.
    """
    if prompt_tokens < 0 or answer_tokens < 1 or concurrency <= 0:
        raise ValueError(f"prompt {prompt_tokens}, answer {answer_tokens}, concurrency {concurrency}: needed at least 0, 1 and more than 0")
    gpu, engine, model, facts = fit.gpu, fit.engine, fit.model, _data.load("fit_constants")["roofline"]
    if not gpu.bandwidth or not gpu.bf16_tflops or fit.available_gib <= 0:
        return None
    pool = kv_layout(model, engine)
    length = min(prompt_tokens + answer_tokens, engine.max_model_len)
    held = pool.concurrency(fit.available_gib * 2**30, length)
    requests = max(1.0, min(concurrency, engine.max_num_seqs, held))
    total, used = parameters(model)
    width = fit.weights_gib * 2**30 * engine.gpus / total
    touched = _touched(model, total, used, requests) * width / engine.gpus
    context = prompt_tokens + answer_tokens / 2
    cache = requests * pool.bytes_per_request(max(1, min(int(context), length)))
    peak = _peak_tflops(fit) * 1e12
    # Stages of a pipeline work one after the other on one token, and at once on different requests.
    memory = (touched + cache) / (facts["bandwidth_share"] * gpu.bandwidth * 1e9)
    compute = 2 * used * requests / engine.gpus / (facts["compute_share"] * peak)
    prefill = 2 * used * prompt_tokens / engine.gpus / (facts["prefill_share"] * peak) * requests / answer_tokens
    reduces = 2 * model.layers if engine.tensor_parallel > 1 else 0
    wire = 2 * (engine.tensor_parallel - 1) / engine.tensor_parallel * requests * model.hidden * BYTES[engine.dtype]
    links = reduces * (facts["all_reduce_us"] * 1e-6 + (wire / (gpu.link_bandwidth * 1e9) if gpu.link_bandwidth else 0))
    host = facts["step_ms"] / 1000 + requests * facts["host_us_per_sequence"] * 1e-6
    terms = {"memory": memory, "compute": compute, "prefill": prefill, "all_reduce": links, "host": host}
    step = max(memory, compute) + prefill + links + host
    rate = requests / step
    below, above, why = _range(fit, facts)
    milliseconds = {name: seconds * 1000 for name, seconds in terms.items()}
    capped, own = held < min(concurrency, engine.max_num_seqs), prefill / requests
    return Throughput(rate, rate / (1 + below), rate * (1 + above), requests, capped, step * 1000, (step - own) * 1000, milliseconds, why)


def dollars_per_million(price_per_hour: float, tokens_per_second: float, utilisation: float = 1.0) -> float:
    """USD for a million output tokens at that share of full load. Raises ValueError unless 0 < utilisation <= 1 and the rate is positive."""
    if not 0 < utilisation <= 1 or tokens_per_second <= 0:
        raise ValueError(f"utilisation {utilisation}, {tokens_per_second} tokens/s: needed a share above 0 up to 1 and a positive rate")
    return price_per_hour / (tokens_per_second * 3600) * 1e6 / utilisation


def _touched(model: ModelDescription, total: float, used: float, requests: float) -> float:
    """Parameters one step reads: all of a dense model's but the embedding rows, of experts those that at least one request chose."""
    table = model.vocabulary * model.hidden * (0 if model.tied_embeddings else 1)
    vision = model.vision.parameters if model.vision else 0
    if not model.experts or model.experts.per_token >= model.experts.count:
        return total - table - vision
    share = 1 - (1 - model.experts.per_token / model.experts.count) ** requests
    experts = (total - table - vision - used) / (1 - model.experts.per_token / model.experts.count)
    return used - experts * model.experts.per_token / model.experts.count + experts * share


def _peak_tflops(fit: Fit) -> float:
    """FP8 arithmetic only where weights and GPU have it; weight-only quantisation computes in 16 bit."""
    fp8 = fit.model.quantisation in ("fp8", "fp8-online", "fp8-mlp", "nvfp4", "nvfp4-mixed")
    return fit.gpu.fp8_tflops if fp8 and fit.gpu.fp8_tflops else fit.gpu.bf16_tflops


def _range(fit: Fit, facts: dict[str, Any]) -> tuple[float, float, str]:
    """(how far a measured value lies below, above as a share, why)."""
    kind, why = ("moe", "routed experts") if fit.model.experts else ("dense", "dense model")
    if version(fit.engine.vllm_version).older:
        kind, why = "older", "vLLM before 0.10, on which the efficiencies were not measured"
    elif fit.engine.tensor_parallel >= 4 and not fit.gpu.nvlink:
        kind, why = "pcie_tp4", "four or more GPUs over PCIe"
    below, above = facts["range"][kind]
    return below, above, why
