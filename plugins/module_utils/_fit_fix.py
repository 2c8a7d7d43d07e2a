# SPDX-License-Identifier: GPL-3.0-or-later
"""What would make a model fit: each change alone, at the smallest step that reaches FITS, found by inverting the estimate.

Memory rises with max_model_len and max_num_seqs and falls with GPUs and bits, so the largest value that fits is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ._fit import FITS, UNKNOWN, Fit, Gpu, ModelDescription, estimate
from ._fit_weights import undivided

LENGTH_STEP = 256
SHORTEST = 2048  # below this a context is hardly useful
FEWEST_SEQUENCES = 8


@dataclass(frozen=True)
class Fix:
    """`change` is the setting, `value` what it must be, `text` the sentence for people, `fit` the estimate with it."""

    change: str
    value: str
    text: str
    fit: Fit


def first_fix(fit: Fit, larger: Sequence[Gpu] = (), shortest: int = SHORTEST) -> Fix | None:
    """The first change that makes `fit` FITS, least costly for the user first; None when it fits already or no single change does.

    larger: other GPUs to try, in the order to try them. shortest: the shortest max_model_len that is of use.
    """
    return next(fixes(fit, larger, shortest), None)


def fixes(fit: Fit, larger: Sequence[Gpu] = (), shortest: int = SHORTEST) -> Iterator[Fix]:
    """All single changes that make it FITS: max_model_len, fp8 KV cache, max_num_seqs, quantised checkpoint, more GPUs, another GPU."""
    if fit.verdict in (FITS, UNKNOWN):
        return
    for attempt in (_length, _fp8_cache, _sequences, _quantised, _tensor_parallel):
        found = attempt(fit, shortest)
        if found:
            yield found
    for gpu in larger:
        if gpu.visible_gib > fit.gpu.visible_gib and (found := _try(fit, "gpu", gpu.name, f"use {gpu.name} ({gpu.visible_gib:.0f} GiB)", gpu=gpu)):
            yield found
            return


def _try(fit: Fit, change: str, value: str, text: str, *, model: ModelDescription | None = None, gpu: Gpu | None = None, **settings) -> Fix | None:
    tried = _again(fit, model=model, gpu=gpu, **settings)
    return Fix(change, value, f"{text}: then {tried.margin_gib:.1f} GiB to spare", tried) if tried.verdict == FITS else None


def _again(fit: Fit, *, model: ModelDescription | None = None, gpu: Gpu | None = None, **settings) -> Fit:
    return estimate(model or fit.model, gpu or fit.gpu, replace(fit.engine, **settings), fit.expected_tokens)


def largest(low: int, high: int, step: int, works: Callable[[int], bool]) -> int | None:
    """The largest multiple of `step` in [low, high) that works, given that smaller ones work when a larger one does."""
    bottom, top = -(-low // step), (high - 1) // step
    if bottom > top or not works(bottom * step):
        return None
    while bottom < top:
        middle = (bottom + top + 1) // 2
        if works(middle * step):
            bottom = middle
        else:
            top = middle - 1
    return bottom * step


def _length(fit: Fit, shortest: int) -> Fix | None:
    low = max(shortest, fit.expected_tokens or 0)
    length = largest(low, fit.engine.max_model_len, LENGTH_STEP, lambda n: _again(fit, max_model_len=n).verdict == FITS)
    return _try(fit, "max_model_len", str(length), f"lower max_model_len to {length}", max_model_len=length) if length else None


def _fp8_cache(fit: Fit, _shortest: int) -> Fix | None:
    if fit.engine.kv_cache_dtype != "auto" or fit.gpu.capability < 8:
        return None
    return _try(fit, "kv_cache_dtype", "fp8", "set --kv-cache-dtype=fp8 in extra_args", kv_cache_dtype="fp8")


def _sequences(fit: Fit, _shortest: int) -> Fix | None:
    count = largest(FEWEST_SEQUENCES, fit.engine.max_num_seqs, 8, lambda n: _again(fit, max_num_seqs=n).verdict == FITS)
    return _try(fit, "max_num_seqs", str(count), f"lower max_num_seqs to {count}", max_num_seqs=count) if count else None


def _quantised(fit: Fit, _shortest: int) -> Fix | None:
    if fit.model.quantisation:
        return None
    # Weight-only FP8 runs from compute capability 8.0 on; AWQ on all.
    for name in ("fp8", "awq") if fit.gpu.capability >= 8 else ("awq",):
        model = fit.model.with_quantisation(name)
        if found := _try(fit, "quantisation", name, f"use an {name.upper()} checkpoint of the model", model=model):
            return found
    return None


def _tensor_parallel(fit: Fit, _shortest: int) -> Fix | None:
    for count in (2, 4, 8, 16):
        if count > fit.engine.tensor_parallel and not undivided(fit.model, count):
            found = _try(fit, "tensor_parallel_size", str(count), f"raise tensor_parallel_size to {count}", tensor_parallel=count)
            if found:
                return found
    return None


def longest_model_len(fit: Fit) -> int:
    """The largest max_model_len (multiple of the block size) of which one request fits, whatever the verdict's margin; 0 when not even the shortest does."""
    step = fit.engine.block_size
    return largest(step, fit.model.max_model_len + 1, step, lambda length: _again(fit, max_model_len=length).margin_gib >= 0) or 0
