# SPDX-License-Identifier: GPL-3.0-or-later
"""Which EC2 instance serves a model: every GPU type and tensor parallel size with its verdict, price, speed and rank. Pure.

    ranking = rank(description, Engine(max_model_len=16384), Wish(gpu_names=("l4", "a10g")), Prices.table())
    ranking.candidates[0].row()  ->  {"instance_type": "g6.2xlarge", "verdict": "FITS", "usd_per_hour": {...}, "why": "cheapest of 9 that fit ...", ...}

The order: FITS before TIGHT, what holds the wanted requests before what does not, then the price of the node, then tokens per second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from . import _fit_fix, _instances, _startup
from ._fit import FITS, NO, TIGHT, UNKNOWN, Engine, Fit, Gpu, ModelDescription, estimate, find_gpu
from ._fit_engine import resolve
from ._fit_roofline import Throughput, dollars_per_million, throughput
from ._fit_weights import undivided
from ._instances import Instance
from ._prices import Price, Prices

UTILISATION = (1.0, 0.25)  # fully used, and used a quarter of the time: cost a token is stated for both
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16)
# Fewer sequences than this are hardly a server; with more, each token waits longer for the host (80 us a running request) than users like.
LEAST_SEQUENCES, MOST_SEQUENCES, SEQUENCES_STEP = 8, 256, 8
# Where nobody says max_model_len a shorter one than this is taken only when the model itself is shorter.
LEAST_LENGTH, LENGTH_STEP = 8192, 1024
_ORDER = {FITS: 0, TIGHT: 1, UNKNOWN: 2, NO: 3}


@dataclass(frozen=True)
class Wish:
    """What the user allows and expects. None means: to be chosen.

    instance_types, when given, replaces gpu_names and is taken at its word (small and bare metal types too). Lengths in tokens; concurrent_requests are
    those of one replica. weights: "stream" or "volume"; weights_gib: the checkpoint. any_memory: the pod's memory is set by hand.
    """

    gpu_names: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    capacity_types: tuple[str, ...] = ("on-demand",)
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int = 1
    prompt_tokens: int = 1024
    answer_tokens: int = 256
    concurrent_requests: int | None = None
    weights: str = "stream"
    weights_gib: float = 0.0
    any_memory: bool = False

    @property
    def expected_tokens(self) -> int:
        return self.prompt_tokens + self.answer_tokens

    def allows(self, instance: Instance) -> bool:
        return instance.name in self.instance_types if self.instance_types else instance.gpu_name in self.gpu_names

    def sizes(self, model: ModelDescription) -> tuple[int, ...]:
        """Tensor parallel sizes to try."""
        if self.tensor_parallel_size:
            return (self.tensor_parallel_size,)
        return tuple(size for size in TENSOR_PARALLEL_SIZES if not undivided(model, size))

    def limits(self) -> str:
        if self.instance_types:
            return f"instance_types {', '.join(self.instance_types)}"
        return f"gpu_names {', '.join(self.gpu_names)}"


@dataclass(frozen=True)
class Candidate:
    """One instance type with one way to cut the model. `best` is the price that counts (Prices.best)."""

    instance: Instance
    fit: Fit
    price: Price
    best: float | None
    rate: Throughput | None
    startup_seconds: int
    holds: int
    wanted: int | None
    why: str = ""

    @property
    def tensor_parallel(self) -> int:
        return self.fit.engine.tensor_parallel

    @property
    def enough(self) -> bool:
        """Whether it holds the requests that are wanted at once."""
        return self.wanted is None or self.holds >= self.wanted

    @property
    def key(self) -> tuple:
        rate = self.rate.output_tokens_s if self.rate else 0.0
        # Without a price the fewest GPUs are the best guess at the cheapest.
        cost = float(self.instance.gpu_count) if self.best is None else self.best
        return _ORDER[self.fit.verdict], not self.enough, self.best is None, cost, -rate, self.fit.engine.gpus, self.instance.name

    def row(self) -> dict[str, Any]:
        """As the plan shows it (docs/architecture.md, "A candidate")."""
        cpu_m, memory_mib = self.instance.share(self.fit.engine.gpus)
        speed, cost = None, None
        if self.rate:
            speed = {"expected": round(self.rate.output_tokens_s), "low": round(self.rate.low), "high": round(self.rate.high)}
            if self.best is not None:
                full, part = (round(dollars_per_million(self.best, self.rate.output_tokens_s, share), 2) for share in UTILISATION)
                cost = {"low": full, "high": part, "utilisation": list(UTILISATION)}
        return {
            "instance_type": self.instance.name,
            "gpu_name": self.fit.gpu.name,
            "gpu_label": self.instance.gpu_name,
            "gpus_on_node": self.instance.gpu_count,
            "tensor_parallel_size": self.tensor_parallel,
            "pipeline_parallel_size": self.fit.engine.pipeline_parallel,
            "verdict": self.fit.verdict,
            "margin_gib": round(self.fit.margin_gib, 2),
            "kv_tokens": self.fit.kv_tokens,
            "concurrent_requests": self.holds,
            "max_model_len": self.fit.engine.max_model_len,
            "max_num_seqs": self.fit.engine.max_num_seqs,
            "usd_per_hour": {"on_demand": self.price.on_demand, "spot": self.price.spot},
            "price_source": self.price.source,
            "tokens_per_second": speed,
            "usd_per_million_tokens": cost,
            "startup_seconds": self.startup_seconds,
            "pod": {"cpu_m": cpu_m, "memory_mib": memory_mib},
            "why": self.why,
        }


@dataclass(frozen=True)
class Ranking:
    """candidates: FITS, TIGHT (and UNKNOWN) in order. nearest: of those that do not fit, the one that lacks least. rejected: reason -> types."""

    candidates: tuple[Candidate, ...]
    nearest: Candidate | None
    rejected: dict[str, tuple[str, ...]]
    elsewhere: Candidate | None


def rank(model: ModelDescription, engine: Engine, wish: Wish, prices: Prices) -> Ranking:
    """Rank every EC2 GPU type for `model`. `engine` holds the settings that are fixed; max_model_len and max_num_seqs may be None, then they are chosen."""
    work = _Work(model, engine, wish, prices)
    allowed = [instance for instance in _instances.table().values() if wish.allows(instance)]
    placements, reasons = work.placements(allowed)
    found = [work.candidate(instance, size) for instance, size in placements]
    fitting = sorted((c for c in found if not work.obstacle(c)), key=lambda c: c.key)
    failing = [c for c in found if work.obstacle(c)]
    # Of several sizes on a node the largest, which lacks least, tells why.
    reasons |= {c.instance.name: work.obstacle(c) for c in failing}
    elsewhere = work.elsewhere(fitting[0] if fitting else None)
    reasons = {name: reason for name, reason in reasons.items() if name not in {c.instance.name for c in fitting}} | work.outside(elsewhere)
    return Ranking(_explained(fitting), max(failing, key=lambda c: c.fit.margin_gib, default=None), _grouped(reasons), elsewhere)


def settle(model: ModelDescription, gpu: Gpu, engine: Engine, wish: Wish) -> Fit:
    """The estimate on one GPU type, with max_num_seqs and max_model_len chosen where they are None.

    max_num_seqs: as many requests of the expected length as the KV cache holds at once, at least 8, at most 256 or as are wanted, without a worse verdict.
    max_model_len: the model's own where that FITS, else the longest that does, at least 8192 (or what a request needs). Where something else than the KV
    cache keeps all of them from FITS, the longest with the margin that FITS asks for.
    """

    def tried(**settings: Any) -> Fit:
        return estimate(model, gpu, replace(engine, **settings), wish.expected_tokens, wish.weights)

    floor = engine.max_model_len or min(model.max_model_len, max(LEAST_LENGTH, wish.expected_tokens))
    sequences = engine.max_num_seqs
    if not sequences:
        least = tried(max_model_len=floor, max_num_seqs=LEAST_SEQUENCES)
        defaults = resolve(engine, model, gpu)
        # The server is told the number, so that vLLM's default for the GPU limits only what nobody asked for; a batch must hold a token of each.
        limit = defaults.max_num_batched_tokens if wish.concurrent_requests else defaults.max_num_seqs
        most = min(-(-(wish.concurrent_requests or MOST_SEQUENCES) // SEQUENCES_STEP) * SEQUENCES_STEP, limit)

        def works(count: int) -> bool:
            fit = tried(max_model_len=floor, max_num_seqs=count)
            return fit.verdict == least.verdict and (fit.concurrency_expected or 0) >= count

        sequences = _fit_fix.largest(LEAST_SEQUENCES, most + 1, SEQUENCES_STEP, works) or LEAST_SEQUENCES
    if engine.max_model_len:
        return tried(max_num_seqs=sequences)
    fit = tried(max_model_len=model.max_model_len, max_num_seqs=sequences)
    if fit.verdict in (FITS, UNKNOWN) or floor >= model.max_model_len:
        return fit

    def longest(works: Callable[[Fit], bool]) -> int | None:
        return _fit_fix.largest(floor, model.max_model_len, LENGTH_STEP, lambda n: works(tried(max_model_len=n, max_num_seqs=sequences)))

    length = longest(lambda each: each.verdict == FITS)
    if not length and fit.roomy:
        return fit
    return tried(max_model_len=length or longest(lambda each: each.roomy) or floor, max_num_seqs=sequences)


def first_fix(fit: Fit, wish: Wish) -> _fit_fix.Fix | None:
    """The first change that makes it FITS and that was not tried already: sizes that nobody fixed were, and no node has more of these GPUs than the largest."""
    allowed = [instance for instance in _instances.table().values() if wish.allows(instance)]
    most = max((i.gpu_count for i in allowed if find_gpu(i.gpu_name, memory_mib=i.gpu_memory_mib).name == fit.gpu.name), default=0)

    def possible(fix: _fit_fix.Fix) -> bool:
        if fix.change != "tensor_parallel_size":
            return True
        return wish.tensor_parallel_size is not None and int(fix.value) * fit.engine.pipeline_parallel <= most

    return next(filter(possible, _fit_fix.fixes(fit)), None)


class _Work:
    """One ranking's inputs, and its estimates by GPU and size, because many instance types carry the same GPU."""

    def __init__(self, model: ModelDescription, engine: Engine, wish: Wish, prices: Prices) -> None:
        self.model, self.engine, self.wish, self.prices = model, engine, wish, prices
        self.fit = functools.cache(self._fit)
        self.rate = functools.cache(self._rate)
        self.reason = functools.cache(self._reason)

    def _fit(self, label: str, memory_mib: int, size: int) -> Fit:
        engine = replace(self.engine, tensor_parallel=size, pipeline_parallel=self.wish.pipeline_parallel_size)
        return settle(self.model, find_gpu(label, memory_mib=memory_mib), engine, self.wish)

    def _rate(self, label: str, memory_mib: int, size: int) -> Throughput | None:
        fit, wish = self.fit(label, memory_mib, size), self.wish
        return throughput(fit, wish.prompt_tokens, wish.answer_tokens, wish.concurrent_requests or fit.engine.max_num_seqs)

    def _reason(self, label: str, memory_mib: int, size: int) -> str:
        """Why it does not fit, with the first change that would do."""
        fit = self.fit(label, memory_mib, size)
        refused = [row for row in fit.problems if row["severity"] == "error"]
        if refused:
            return "; ".join(f"{row['found']}, needed {row['needed']}" for row in refused)
        fix = first_fix(fit, self.wish)
        change = f"first change that fits: {fix.text}" if fix else "no single change makes it fit"
        return f"NO, {-fit.margin_gib:.1f} GiB a GPU short on {fit.gpu.name} with tensor_parallel_size {size}; {change}"

    def candidate(self, instance: Instance, size: int) -> Candidate:
        kind = instance.gpu_name, instance.gpu_memory_mib, size
        fit, price = self.fit(*kind), self.prices.of(instance.name)
        seconds, _how = _startup.estimate(self.wish.weights_gib, self.wish.weights, instance)
        holds = int(min(fit.engine.max_num_seqs, fit.concurrency_expected or 0))
        rate = self.rate(*kind) if fit.verdict != NO else None
        return Candidate(instance, fit, price, self.best(instance), rate, round(seconds), holds, self.wish.concurrent_requests)

    def best(self, instance: Instance) -> float | None:
        return self.prices.best(instance.name, self.wish.capacity_types)

    def obstacle(self, candidate: Candidate) -> str:
        """Why this candidate is none; empty if it is."""
        instance, fit = candidate.instance, candidate.fit
        if fit.verdict == NO:
            return self.reason(instance.gpu_name, instance.gpu_memory_mib, candidate.tensor_parallel)
        _cpu, memory = instance.share(fit.engine.gpus)
        if memory < fit.host.request_gib * 1024 and not self.wish.any_memory:
            return f"leaves {memory} MiB for the pod; the server needs {fit.host.request_gib} GiB"
        return ""

    def placements(self, instances: list[Instance]) -> tuple[list[tuple[Instance, int]], dict[str, str]]:
        """(each instance with each size that it is the smallest node for, why not by name of those with none).

        Only the smallest number of GPUs that is enough is taken: Karpenter packs pending pods into as few nodes as it can, so with larger types
        allowed two servers would come to share one large node that costs more than one of each size.
        """
        taken: list[tuple[Instance, int]] = []
        reasons: dict[str, str] = {}
        for size in self.wish.sizes(self.model):
            gpus = size * self.wish.pipeline_parallel_size
            refused = {instance.name: _shape(instance, gpus, strict=not self.wish.instance_types) for instance in instances}
            usable = [instance for instance in instances if not refused[instance.name]]
            for instance in instances:
                if refused[instance.name]:
                    reasons.setdefault(instance.name, refused[instance.name])
                elif instance.gpu_count == min(other.gpu_count for other in usable if other.gpu_name == instance.gpu_name):
                    taken.append((instance, size))
                else:
                    reasons[instance.name] = f"{instance.gpu_count} GPUs; smaller nodes with the same GPU are enough for a replica on {gpus}"
        return taken, {name: reason for name, reason in reasons.items() if name not in {instance.name for instance, _size in taken}}

    def elsewhere(self, best: Candidate | None) -> Candidate | None:
        """The cheapest that fits among the types that are not allowed, when that is cheaper than the best of the allowed; None if there is none."""
        table = [i for i in _instances.table().values() if not self.wish.allows(i) and self.best(i)]
        for instance in sorted(table, key=lambda i: (self.best(i), i.name)):
            price = self.best(instance)
            if best and best.fit.verdict == FITS and (best.best is None or price >= best.best):
                return None
            for size in self.wish.sizes(self.model):
                gpus = size * self.wish.pipeline_parallel_size
                # A node is filled: a smaller one carries the smaller sizes.
                if _shape(instance, gpus, strict=True) or (not self.wish.tensor_parallel_size and gpus * 2 <= instance.gpu_count):
                    continue
                candidate = self.candidate(instance, size)
                if candidate.fit.verdict == FITS and candidate.enough and not self.obstacle(candidate):
                    return candidate
        return None

    def outside(self, elsewhere: Candidate | None) -> dict[str, str]:
        """Reasons of the types that are not allowed."""
        reason = f"not allowed by {self.wish.limits()}"
        reasons = {instance.name: reason for instance in _instances.table().values() if not self.wish.allows(instance)}
        if elsewhere:
            price = f"{elsewhere.best:.2f} USD/h with tensor_parallel_size {elsewhere.tensor_parallel}"
            reasons[elsewhere.instance.name] = f"{reason}; it would fit for {price}"
        return reasons


def _shape(instance: Instance, gpus: int, strict: bool) -> str:
    """Why a replica on `gpus` GPUs cannot be on that instance whatever the model; strict: nor should it be."""
    if instance.gpu_count < gpus:
        return f"{instance.gpu_count} GPU(s), fewer than the {gpus} of a replica"
    if not strict:
        return ""
    if instance.bare_metal:
        return "bare metal, which takes many minutes to start"
    if instance.arch != "x86_64":
        return f"{instance.arch}; the images and node pools here are x86_64"
    cpus = instance.vcpu * gpus / instance.gpu_count
    if cpus < _instances.vcpus_needed(gpus):
        return f"{cpus:g} vCPU for {gpus} GPU(s); vLLM keeps {_instances.vcpus_needed(gpus)} busy"
    return ""


def _explained(ranked: list[Candidate]) -> tuple[Candidate, ...]:
    """The same with `why`: against the first, and for the first against the next."""
    return tuple(replace(candidate, why=_why(candidate, index, ranked)) for index, candidate in enumerate(ranked))


def _why(candidate: Candidate, index: int, ranked: list[Candidate]) -> str:
    first, parts = ranked[0], []
    if candidate.fit.verdict == TIGHT:
        parts.append(f"TIGHT, {candidate.fit.margin_gib:.1f} GiB a GPU to spare" + ("" if index == 0 else ": ranks below all that FIT"))
    if not candidate.enough:
        parts.append(f"holds {candidate.holds} of the {candidate.wanted} wanted requests at once")
    if candidate.best is None:
        parts.append("no price known: ranks last")
    elif index == 0:
        rivals = sum(c.fit.verdict == candidate.fit.verdict and c.enough == candidate.enough for c in ranked)
        what = {FITS: "fit", TIGHT: "fit tightly"}.get(candidate.fit.verdict, "may fit")
        what += f" and hold {candidate.wanted} requests" if candidate.wanted and candidate.enough else ""
        parts.append(
            f"cheapest of {rivals} that {what}" if rivals > 1 else "the only one that does" if candidate.fit.verdict == FITS else "the only one that may"
        )
        following = next((c for c in ranked[1:] if c.best is not None), None)
        if following and following.best == candidate.best:
            parts.append(f"same price as {_name(following)}, {_tie(candidate, following)}")
        elif following and following.best > candidate.best:
            parts.append(f"the next, {_name(following)}, costs {following.best / candidate.best - 1:.0%} more an hour")
    elif first.best is not None:
        parts.append(_against(candidate, first))
    if candidate.instance.gpu_count >= 2 * candidate.fit.engine.gpus:
        parts.append(f"{candidate.instance.gpu_count // candidate.fit.engine.gpus} replicas fill the node, which is counted whole here")
    return "; ".join(parts)


def _against(candidate: Candidate, first: Candidate) -> str:
    change = candidate.best / first.best - 1
    text = f"same price as {_name(first)}, {_tie(candidate, first)}" if not change else f"{change:+.0%} an hour against {_name(first)}"
    if change and candidate.rate and first.rate:
        faster = candidate.rate.output_tokens_s / first.rate.output_tokens_s
        a_token = (1 + change) / faster - 1
        text += f" for {faster:.1f} x its tokens/s ({a_token:+.0%} a token)"
    return text


def _tie(candidate: Candidate, other: Candidate) -> str:
    """What decides between two of the same price."""
    one, two = (c.rate.output_tokens_s if c.rate else 0.0 for c in (candidate, other))
    if round(one) != round(two):
        return f"{'more' if one > two else 'fewer'} tokens/s ({one:.0f} and {two:.0f})"
    if candidate.fit.engine.gpus != other.fit.engine.gpus:
        return f"{'fewer' if candidate.fit.engine.gpus < other.fit.engine.gpus else 'more'} GPUs a replica"
    return "as fast: by name"


def _name(candidate: Candidate) -> str:
    return f"{candidate.instance.name} with tensor_parallel_size {candidate.tensor_parallel}"


def _grouped(reasons: dict[str, str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for name, reason in sorted(reasons.items()):
        groups[reason] = (*groups.get(reason, ()), name)
    return groups


def distinct(ranked: Iterable[Candidate]) -> list[Candidate]:
    """Of the instances with the same GPUs and size, which serve alike, only the first."""
    firsts: dict[tuple, Candidate] = {}
    for candidate in ranked:
        firsts.setdefault((candidate.fit.gpu.name, candidate.instance.gpu_memory_mib, candidate.instance.gpu_count, candidate.tensor_parallel), candidate)
    return list(firsts.values())


def same_setup(ranking: Ranking, chosen: Candidate, weights: str) -> list[Candidate]:
    """What may stand in for `chosen` without another plan: the same size on as many GPUs a node, with the same verdict, in the order of their rank.

    max_model_len and max_num_seqs of `chosen` are tried on each: a GPU on which they no longer reach the verdict is left out.
    """

    def agrees(candidate: Candidate) -> bool:
        if (candidate.tensor_parallel, candidate.instance.gpu_count, candidate.fit.verdict) != (
            chosen.tensor_parallel,
            chosen.instance.gpu_count,
            chosen.fit.verdict,
        ):
            return False
        return candidate.fit.gpu == chosen.fit.gpu or with_settings(candidate, chosen, weights).verdict == chosen.fit.verdict

    return [candidate for candidate in ranking.candidates if agrees(candidate)]


def with_settings(candidate: Candidate, chosen: Candidate, weights: str) -> Fit:
    """The estimate on `candidate`'s GPU with the length and sequences that were settled on for `chosen`."""
    engine = replace(candidate.fit.engine, max_model_len=chosen.fit.engine.max_model_len, max_num_seqs=chosen.fit.engine.max_num_seqs)
    return estimate(candidate.fit.model, candidate.fit.gpu, engine, candidate.fit.expected_tokens, weights)
