# SPDX-License-Identifier: GPL-3.0-or-later
"""Will a model start on a GPU, and with how much KV cache? Pure arithmetic: no cluster, no AWS, nothing but the standard library.

    from ._fit import Engine, ModelDescription, estimate, find_gpu
    fit = estimate(ModelDescription.from_config(config), find_gpu("A10G"), Engine(max_model_len=16384))
    fit.verdict, fit.margin_gib, fit.kv_tokens, fit.terms

Available KV cache per GPU = utilization x visible memory - weights - profiled peak - libraries - CUDA graphs, as v1/worker/gpu_worker.py
determine_available_memory computes it. Constants: _data/fit_constants.json. How far it is right: tests/fit/README.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from . import _data, _fit_kv
from ._fit_engine import Engine, mxfp4_by_marlin, resolve, v2_runner, version
from ._fit_gpu import GIB, Gpu, UnknownGpu, find_gpu
from ._fit_host import HostMemory, host_memory
from ._fit_memory import Term, activation, graphs, lora, non_torch, outside_budget
from ._fit_model import ModelDescription, ModelError
from ._fit_weights import BYTES, Stage, expert_padding, stages, undivided, weight_bytes
from ._problems import problem

__all__ = [
    "FITS",
    "NO",
    "TIGHT",
    "UNKNOWN",
    "Engine",
    "Fit",
    "Gpu",
    "HostMemory",
    "ModelDescription",
    "ModelError",
    "StageFit",
    "Term",
    "UnknownGpu",
    "estimate",
    "find_gpu",
    "kv_layout",
]

FITS, TIGHT, NO, UNKNOWN = "FITS", "TIGHT", "NO", "UNKNOWN"
# config/model.py _FLOAT16_NOT_SUPPORTED_MODELS: they need a dtype with a larger exponent.
_NO_FLOAT16 = ("Gemma2ForCausalLM", "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Glm4ForCausalLM")


@dataclass(frozen=True)
class StageFit:
    """The sum of one pipeline stage, per GPU. `terms` are subtracted from `budget_gib`; negative `available_gib` means the weights already do not fit."""

    stage: Stage
    budget_gib: float
    terms: tuple[Term, ...]

    @property
    def available_gib(self) -> float:
        return self.budget_gib - sum(term.gib for term in self.terms)

    def gib(self, name: str) -> float:
        """The terms of that name."""
        return sum(term.gib for term in self.terms if term.name == name)


@dataclass(frozen=True)
class Fit:
    """The answer. Memory per GPU in GiB of the stage with least KV cache.

    verdict: FITS, TIGHT, NO or UNKNOWN (the architecture or quantisation is not understood; figures are indicative).
    margin_gib: available minus what one request of max_model_len needs. concurrency: requests of max_model_len at once; `concurrency_expected` of
    the expected length. problems: rows of _problems.problem: what vLLM refuses (error) or what to know (warning).
    """

    verdict: str
    margin_gib: float
    engine: Engine
    gpu: Gpu
    stages: tuple[StageFit, ...]
    needed_gib: float
    kv_tokens: int
    kv_blocks: int
    concurrency: float
    concurrency_expected: float | None
    expected_tokens: int | None
    outside: Term
    host: HostMemory
    problems: tuple[dict[str, str], ...]
    model: ModelDescription

    @property
    def limiting(self) -> StageFit:
        return min(self.stages, key=lambda stage: stage.available_gib)

    @property
    def terms(self) -> tuple[Term, ...]:
        return self.limiting.terms

    @property
    def available_gib(self) -> float:
        return self.limiting.available_gib

    @property
    def weights_gib(self) -> float:
        return self.limiting.gib("weights")

    @property
    def roomy(self) -> bool:
        """Whether the margin is what FITS asks for, whatever else keeps it from that."""
        return self.margin_gib >= _wanted_gib(self.engine)

    def explain(self) -> list[str]:
        """The sum, one line a term."""
        limiting = self.limiting
        lines = [
            f"budget {limiting.budget_gib:.2f} GiB: {self.engine.gpu_memory_utilization:g} x {self.gpu.visible_gib:.2f} GiB visible on {self.gpu.name}",
            *(f"- {term}" for term in limiting.terms),
            f"= KV cache {limiting.available_gib:.2f} GiB: {self.kv_tokens} tokens, {self.concurrency:.2f} requests of {self.engine.max_model_len}",
            f"one request of {self.engine.max_model_len} needs {self.needed_gib:.2f} GiB: margin {self.margin_gib:.2f} GiB, {self.verdict}",
        ]
        if self.concurrency_expected is not None:
            lines.append(f"{self.concurrency_expected:.1f} requests of the expected {self.expected_tokens} tokens")
        return lines


def estimate(model: ModelDescription, gpu: Gpu, engine: Engine, expected_tokens: int | None = None, weights: str = "disk") -> Fit:
    """The whole sum for `model` on `gpu`s with `engine`'s settings.

    expected_tokens: prompt plus answer of the usual request, for sizing. weights: "disk", "volume" or "stream", which decides the pod's memory
    (_fit_host). Never raises for a model that does not fit; ValueError for a version that is no version or an unknown dtype.
    """
    engine = resolve(engine, model, gpu)
    found = version(engine.vllm_version)
    for name, value in (("dtype", engine.dtype), ("kv_cache_dtype", engine.kv_cache_dtype)):
        if value not in BYTES and value not in _fit_kv.KV_BYTES:
            raise ValueError(f"{name} {value!r}: needed one of {', '.join(sorted({*BYTES, *_fit_kv.KV_BYTES}))}")
    parts = tuple(_stage(model, gpu, engine, stage) for stage in stages(model, engine.pipeline_parallel))
    available = min(part.available_gib for part in parts) * GIB
    pool = kv_layout(model, engine)
    length = engine.max_model_len
    needed = pool.bytes_per_request(length) + (pool.block_bytes if found.constants["null_block_reserved"] else 0)
    graph_term = graphs(model, engine, gpu, parts[0].stage)
    outside = outside_budget(model, engine, gpu, graph_term)
    margin = (available - needed) / GIB
    problems = _refusals(model, gpu, engine) + _warnings(model, gpu, engine, outside)
    verdict = _verdict(model, gpu, engine, margin, outside, problems)
    return Fit(
        verdict=verdict,
        margin_gib=margin,
        engine=engine,
        gpu=gpu,
        stages=parts,
        needed_gib=needed / GIB,
        kv_tokens=pool.tokens(available, length, found.constants["tokens_by_concurrency"]),
        kv_blocks=pool.blocks(available),
        concurrency=pool.concurrency(available, length),
        concurrency_expected=pool.concurrency(available, min(expected_tokens, length)) if expected_tokens else None,
        expected_tokens=expected_tokens,
        outside=outside,
        host=host_memory(model, engine, weights),
        problems=tuple(problems),
        model=model,
    )


def kv_layout(model: ModelDescription, engine: Engine) -> _fit_kv.Layout:
    """The KV pool of the largest stage. `engine` with its defaults filled in (_fit_engine.resolve)."""
    constants = version(engine.vllm_version).constants
    batches = constants["in_flight_batches"]
    if batches > 1:
        # config/vllm.py max_concurrent_batches: one a stage, and one more that is scheduled ahead; the first runner does not do that in a pipeline.
        ahead = engine.async_scheduling and (engine.pipeline_parallel == 1 or v2_runner(engine, model))
        batches = engine.pipeline_parallel + ahead
    request = _fit_kv.Request(
        block_size=engine.block_size,
        in_flight_tokens=engine.max_num_batched_tokens * batches,
        linear_states=engine.linear_states,
        linear_block_step=engine.linear_block_step,
        speculative_tokens=engine.speculative_tokens,
    )
    element = BYTES[engine.dtype] if engine.kv_cache_dtype == "auto" else _fit_kv.KV_BYTES[engine.kv_cache_dtype]
    if engine.mtp and model.attention:
        more = [replace(kind, count=kind.count + model.mtp_layers) if kind.kind in ("full", "mla") else kind for kind in model.attention]
        model = replace(model, attention=tuple(more))
    arguments = (engine.tensor_parallel, engine.pipeline_parallel, element, BYTES[engine.dtype], request, engine.decode_context_parallel)
    pool = _fit_kv.layout(model, constants, *arguments)
    if engine.draft:
        pool = replace(pool, block_bytes=pool.block_bytes + _fit_kv.layout(engine.draft, constants, *arguments).block_bytes)
    return pool


def _stage(model: ModelDescription, gpu: Gpu, engine: Engine, stage: Stage) -> StageFit:
    terms = [_weights(model, gpu, engine, stage)]
    if engine.mtp and model.mtp_layers and stage.last:
        extra = Stage(model.mtp_layers, first=False, last=False)
        size = weight_bytes(replace(model, tensors=None, checkpoint_bytes=None), engine.tensor_parallel, extra, engine.dtype).get("layers", 0) / GIB
        terms.append(Term("mtp_weights", size, f"{model.mtp_layers} layer(s) of multi-token prediction"))
    if engine.draft:
        size = sum(weight_bytes(engine.draft, engine.tensor_parallel, Stage(engine.draft.layers, True, True), engine.dtype).values()) / GIB
        terms.append(Term("draft_weights", size, f"draft model {engine.draft.name}"))
    terms += activation(model, engine, gpu, stage)
    terms.append(non_torch(engine, gpu))
    graph_term = graphs(model, engine, gpu, stage)
    if version(engine.vllm_version).constants["graphs_in_budget"]:
        terms.append(graph_term)
    slots = lora(model, engine, stage)
    return StageFit(stage, engine.gpu_memory_utilization * gpu.visible_gib, tuple([*terms, slots] if slots else terms))


def _weights(model: ModelDescription, gpu: Gpu, engine: Engine, stage: Stage) -> Term:
    padding = expert_padding(mxfp4_by_marlin(engine, gpu)) if model.quantisation == "mxfp4" else None
    if model.rotary_caches.startswith("mrope"):
        # rotary_embedding/mrope.py keeps room for the positions of a long video; since 0.32 not for Qwen3's models (qwen3_vl.py mrope_positions_factor).
        factor = 4 if model.rotary_caches == "mrope" else version(engine.vllm_version).constants["mrope_qwen3_factor"]
        model = replace(model, rotary_elements=model.rotary_elements * factor)
    parts = weight_bytes(model, engine.tensor_parallel, stage, engine.dtype, padding)
    origin = "tensors of the checkpoint" if model.tensors else "checkpoint's size" if model.checkpoint_bytes else "parameters counted from config.json"
    shared = f" on {engine.tensor_parallel} GPUs" if engine.tensor_parallel > 1 else ""
    detail = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    return Term("weights", sum(parts.values()) / GIB, f"{origin}{shared}, {model.quantisation or engine.dtype}: {detail}")


def _verdict(model: ModelDescription, gpu: Gpu, engine: Engine, margin: float, outside: Term, problems: list[dict[str, str]]) -> str:
    limits, found = _data.load("fit_constants")["verdict"], version(engine.vllm_version)
    if margin < limits["no_margin_gib"] and not model.unknown:
        return NO
    if any(row["severity"] == "error" for row in problems):
        return NO
    if model.unknown:
        return UNKNOWN
    free_outside = (1 - engine.gpu_memory_utilization) * gpu.visible_gib
    return FITS if margin >= _wanted_gib(engine) and not found.older and free_outside >= outside.gib else TIGHT


def _wanted_gib(engine: Engine) -> float:
    limits = _data.load("fit_constants")["verdict"]
    return limits["fits_margin_unknown_version_gib" if version(engine.vllm_version).newer else "fits_margin_gib"]


def _refusals(model: ModelDescription, gpu: Gpu, engine: Engine) -> list[dict[str, str]]:
    """What vLLM refuses whatever the memory."""
    subject, tp, rows = model.name or model.architecture, engine.tensor_parallel, []
    if rest := undivided(model, tp):
        allowed = ", ".join(str(n) for n in range(1, 17) if not undivided(model, n))
        found = f"tensor_parallel_size {tp} with {rest}"
        rows.append(problem("tensor_parallel", subject, found, f"a divisor of heads and vocabulary: {allowed}", "change tensor_parallel_size"))
    if engine.pipeline_parallel > model.layers:
        found = f"pipeline_parallel_size {engine.pipeline_parallel}"
        rows.append(problem("pipeline_parallel", subject, found, f"at most {model.layers}, the layers", "lower pipeline_parallel_size"))
    if model.length_stated and engine.max_model_len > model.max_model_len:
        fix = f"set max_model_len to {model.max_model_len} or less, or the rope scaling that the model's card documents"
        rows.append(problem("max_model_len", subject, f"max_model_len {engine.max_model_len}", f"at most {model.max_model_len}, the model's own length", fix))
    if engine.dtype == "bfloat16" and 0 < gpu.capability < 8:
        found = f"bfloat16 on {gpu.name} (compute capability {gpu.capability})"
        rows.append(problem("dtype", subject, found, "compute capability 8.0 or higher", "set dtype to half"))
    if engine.dtype in ("float16", "half") and model.architecture in _NO_FLOAT16:
        found = f"float16 on {gpu.name} (compute capability {gpu.capability})" if gpu.capability < 8 else "dtype float16"
        rows.append(problem("dtype", subject, found, f"bfloat16, because {model.architecture} overflows in float16", "use a GPU of compute capability 8.0"))
    return rows


def _warnings(model: ModelDescription, gpu: Gpu, engine: Engine, outside: Term) -> list[dict[str, str]]:
    """What starts, but not as one may think."""
    subject, tp, found = model.name or model.architecture, engine.tensor_parallel, version(engine.vllm_version)
    newest = _data.load("fit_constants")["newest_vllm"]
    rows = []

    def warn(check: str, seen: str, needed: str, fix: str) -> None:
        rows.append(problem(check, subject, seen, needed, fix, "warning"))

    for reason in model.unknown:
        warn("model_unknown", reason, "a model whose memory is understood", "start it once and pin the KV cache size that it logs")
    if found.newer:
        seen = f"vLLM {engine.vllm_version}"
        warn("vllm_version", seen, f"at most {newest}, the newest in the table", "compare with the first start; the margin asked for is larger until then")
    if found.older:
        warn("vllm_version", f"vLLM {engine.vllm_version}", "0.10 or newer for exact figures", "use a newer image")
    free = (1 - engine.gpu_memory_utilization) * gpu.visible_gib
    if free < outside.gib:
        share = max(0.1, math.floor((1 - outside.gib / gpu.visible_gib) * 100) / 100)
        fix = f"lower gpu_memory_utilization to {share:g}, or max_num_seqs"
        warn("memory_outside", f"{free:.2f} GiB outside gpu_memory_utilization", f"{outside.gib:.2f} GiB: {outside.why}", fix)
    kv_heads = max((kind.kv_heads for kind in model.attention if kind.kind not in ("mla", "linear")), default=0)
    if 0 < kv_heads < tp:
        warn(
            "kv_replicated",
            f"tensor_parallel_size {tp} with {kv_heads} KV heads",
            "no more GPUs than KV heads",
            "know that every KV head is held twice or more",
        )
    if tp >= 4 and not gpu.nvlink:
        warn("pcie", f"tensor_parallel_size {tp} over PCIe", "NVLink for four or more GPUs", "expect about half the speed")
    return rows
