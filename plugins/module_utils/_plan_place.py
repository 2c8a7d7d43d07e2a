# SPDX-License-Identifier: GPL-3.0-or-later
"""On which instances a planned model runs, on how many GPUs, how long its context is and how many requests it takes: from the fit arithmetic.

A model that is not known, or whose architecture is not understood, is placed by the size of its weights instead. Pure: what is read, is read by `readers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import _choice, _instances, _model_source
from ._choice import Candidate, Ranking, Wish
from ._fit import FITS, NO, TIGHT, Engine, Fit, ModelDescription, estimate, find_gpu
from ._fit_gpu import GIB
from ._fit_weights import checkpoint_formula_bytes
from ._plan_engine import engine_of
from ._plan_resources import set_resources
from ._prices import Prices
from ._problems import errors, problem
from ._schema import Rows, nearest

MOST_ALTERNATIVES = 12
DEFAULT_SEQUENCES = 64  # of a model about which nothing is known
SIZE_TOLERANCE = 0.1
DEARER = "fits, but costs more than a type with the same GPUs, which serves as fast"


def place(model: dict[str, Any], readers: _model_source.Readers, prices: Prices) -> Rows:
    """Set instance_types, gpu_names, gpus, resources, fit, choice, alternatives, rejected and what was left open of sizes and limits, in place."""
    model |= {"fit": None, "choice": None, "alternatives": [], "rejected": []}
    rows = _known_names(model)
    if rows:
        return rows
    found = _model_source.find(model, readers)
    rows += found.rows
    if errors(rows):
        return rows
    if not found.description:
        return rows + _by_size(model)
    engine, description, more = engine_of(model, found.description)
    guessed = any(row["check"] == "model_taken_for" for row in rows)
    contradiction = _size(model, description, found.origin, guessed)
    if contradiction and guessed:
        # Nothing but a folder's name said what it is, and the size says it is something else.
        return [row for row in rows if row["check"] != "model_taken_for"] + contradiction + _by_size(model)
    rows += more + contradiction + _traffic(model, description)
    if errors(rows):
        return rows
    if description.unknown:
        return rows + _by_size(model, description, engine, found.origin)
    return rows + _by_fit(model, description, engine, found.origin, prices)


def unplaced(model: dict[str, Any]) -> None:
    """Fill in the same keys for a model that is only removed."""
    model |= {"fit": None, "choice": None, "alternatives": [], "rejected": []}
    model["tensor_parallel_size"] = model["tensor_parallel_size"] or 1
    model["max_num_seqs"] = model["max_num_seqs"] or DEFAULT_SEQUENCES
    model["gpus"] = model["tensor_parallel_size"] * model["pipeline_parallel_size"]


def _known_names(model: dict[str, Any]) -> Rows:
    name, table = model["name"], _instances.table()
    known_gpus = sorted({i.gpu_name for i in table.values()})
    return [
        problem("instance_type", name, f"instance type {t}", "an EC2 type with a whole NVIDIA GPU", f"correct instance_types{nearest(t, list(table))}")
        for t in model["instance_types"]
        if t not in table
    ] + [
        problem("gpu_name", name, f"GPU {g}", f"one of {', '.join(known_gpus)}", f"correct gpu_names{nearest(g, known_gpus)}")
        for g in model["gpu_names"]
        if g not in known_gpus
    ]


def _size(model: dict[str, Any], description: ModelDescription, origin: str, guessed: bool) -> Rows:
    """Set weights.size_gib when it is not given; say so when what is given cannot be that model."""
    weights = model["weights"]
    counted = (description.checkpoint_bytes or checkpoint_formula_bytes(description)) / GIB
    how = "bytes of the checkpoint" if description.checkpoint_bytes else "parameters counted from config.json"
    if not weights["size_gib"]:
        weights["size_gib"] = round(counted, 1)
        model["explain"]["weights.size_gib"] = [f"{counted:.2f} GiB: {how} ({origin})"]
        return []
    if abs(weights["size_gib"] / counted - 1) <= SIZE_TOLERANCE or description.unknown:
        return []
    found, needed = f"weights.size_gib {weights['size_gib']:g}", f"about {counted:.1f} GiB: {how} ({origin})"
    if guessed:
        return [problem("model_unknown", model["name"], found, needed, "set config to what the model is, or leave weights.size_gib out", "warning")]
    return [problem("weights_size", model["name"], found, needed, "leave weights.size_gib out, or correct source or config", "warning")]


def _traffic(model: dict[str, Any], description: ModelDescription) -> Rows:
    """vLLM answers 400 to a prompt that leaves no room for its answer."""
    traffic, length = model["traffic"], model["max_model_len"] or description.max_model_len
    tokens = traffic["prompt_tokens"] + traffic["answer_tokens"]
    if tokens <= length or not (model["max_model_len"] or description.length_stated):
        return []
    found = f"traffic.prompt_tokens {traffic['prompt_tokens']} + traffic.answer_tokens {traffic['answer_tokens']} = {tokens}"
    fix = "lower traffic, or raise max_model_len" if model["max_model_len"] else "lower traffic, or use a model with a longer context"
    return [problem("traffic", model["name"], found, f"at most max_model_len {length}", fix)]


def wish_of(model: dict[str, Any]) -> Wish:
    traffic = model["traffic"]
    return Wish(
        gpu_names=tuple(model["gpu_names"]),
        instance_types=tuple(model["instance_types"]),
        capacity_types=tuple(model["capacity_types"]),
        tensor_parallel_size=model["tensor_parallel_size"],
        pipeline_parallel_size=model["pipeline_parallel_size"],
        prompt_tokens=traffic["prompt_tokens"],
        answer_tokens=traffic["answer_tokens"],
        concurrent_requests=traffic["concurrent_requests"],
        weights=model["weights"]["mode"],
        weights_gib=model["weights"]["size_gib"] or 0.0,
        any_memory=bool(model["resources"]["memory"]),
    )


def _by_fit(model: dict[str, Any], description: ModelDescription, engine: Engine, origin: str, prices: Prices) -> Rows:
    wish = wish_of(model)
    ranking = _choice.rank(description, engine, wish, prices)
    model["rejected"] = _rejected(ranking.rejected)
    if not ranking.candidates:
        return _nothing_fits(model, ranking, wish, origin)
    chosen = ranking.candidates[0]
    group = _choice.same_setup(ranking, chosen, wish.weights)
    shown = _choice.distinct(ranking.candidates)[: 1 + MOST_ALTERNATIVES]
    model["alternatives"] = [candidate.row() for candidate in shown[1:]]
    named = {candidate.instance.name for candidate in [*shown, *group]}
    model["rejected"] += _rejected({DEARER: sorted({candidate.instance.name for candidate in ranking.candidates} - named)})
    model["choice"] = chosen.row()
    fit = min((_choice.with_settings(candidate, chosen, wish.weights) for candidate in group), key=lambda each: each.margin_gib)
    fix = _choice.first_fix(fit, wish)
    model["fit"] = fit_row(fit, origin, fix)
    given = {key: model[key] is not None for key in ("tensor_parallel_size", "max_num_seqs", "max_model_len")}
    model |= {"tensor_parallel_size": fit.engine.tensor_parallel, "max_num_seqs": fit.engine.max_num_seqs, "max_model_len": fit.engine.max_model_len}
    model["gpus"] = fit.engine.gpus
    instances = [candidate.instance for candidate in group]
    _set_types(model, instances)
    model["weights"]["buffer_gib"] = fit.host.stream_gib
    _explain(model, given, fit, chosen, description)
    set_resources(model, instances, fit.host)
    rows = [dict(row, subject=model["name"]) for row in fit.problems if row["severity"] == "warning"]
    return rows + _settled(model, given, fit, chosen, description, fix)


def _rejected(reasons: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    return [{"instance_types": list(types), "reason": reason} for reason, types in reasons.items() if types]


def _settled(model: dict[str, Any], given: dict[str, bool], fit: Fit, chosen: Candidate, description: ModelDescription, fix: Any) -> Rows:
    """Rows about a choice that works, but not as one may think."""
    name, rows = model["name"], []
    if fit.verdict == TIGHT and fit.margin_gib < 1:
        found = f"{fit.margin_gib:.1f} GiB a GPU to spare on {fit.gpu.name} with tensor_parallel_size {fit.engine.tensor_parallel}: TIGHT"
        needed = "1.0 GiB, because the estimate may be that much too high"
        rows.append(problem("fit", name, found, needed, fix.text if fix else "allow a GPU with more memory", "warning"))
    if not chosen.enough:
        found = f"{chosen.holds} requests of {fit.expected_tokens} tokens at once on {chosen.instance.name}"
        needed = f"traffic.concurrent_requests {chosen.wanted}"
        fix_text = "allow a GPU with more memory, or lower traffic.concurrent_requests and raise replicas.max"
        rows.append(problem("concurrency", name, found, needed, fix_text, "warning"))
    if not given["max_model_len"] and model["max_model_len"] < description.max_model_len:
        found = f"max_model_len not given; {model['max_model_len']} tokens {'FIT' if fit.verdict == FITS else 'are TIGHT'} on {chosen.instance.name}"
        needed = f"{description.max_model_len} tokens for the model's own length"
        rows.append(problem("max_model_len", name, found, needed, "set max_model_len to what your requests need; a larger one may ask for more GPUs", "info"))
    return rows


def _explain(model: dict[str, Any], given: dict[str, bool], fit: Fit, chosen: Candidate, description: ModelDescription) -> None:
    explain = model["explain"]
    explain["instance_types"] = [f"{chosen.instance.name}: {chosen.why}", *fit.explain()]
    if not given["tensor_parallel_size"]:
        explain["tensor_parallel_size"] = [f"{fit.engine.tensor_parallel}: of {chosen.instance.name}, which ranks first: {chosen.why}"]
    if not given["max_num_seqs"]:
        held = f"{fit.concurrency_expected:.1f} requests of {fit.expected_tokens} tokens fit into the KV cache of {fit.gpu.name} at once"
        wanted = f"traffic.concurrent_requests {chosen.wanted}" if chosen.wanted else f"{_choice.MOST_SEQUENCES}"
        explain["max_num_seqs"] = [f"{held}; at most {wanted}, in steps of {_choice.SEQUENCES_STEP}"]
    if not given["max_model_len"]:
        text = f"the model's own {description.max_model_len}"
        if model["max_model_len"] < description.max_model_len:
            found = f"the longest that FITS on {chosen.instance.name}" if fit.verdict == FITS else f"TIGHT on {chosen.instance.name}, where none FITS"
            text = f"{found} in steps of {_choice.LENGTH_STEP}; {text}"
        explain["max_model_len"] = [text]


def _nothing_fits(model: dict[str, Any], ranking: Ranking, wish: Wish, origin: str) -> Rows:
    name, nearest_one = model["name"], ranking.nearest
    if not nearest_one:
        return _no_node(model, wish)
    fit = nearest_one.fit
    fix = _choice.first_fix(fit, wish)
    model["fit"] = fit_row(fit, origin, fix)
    refused = [dict(row, subject=name) for row in fit.problems if row["severity"] == "error"]
    if refused:
        return refused
    way = fix.text if fix else ""
    if other := ranking.elsewhere:
        price = f" for {other.best:.2f} USD/h" if other.best else ""
        allow = f"allow {other.instance.name} (gpu_names {other.instance.gpu_name}), where tensor_parallel_size {other.tensor_parallel} FITS{price}"
        way = f"{way}; or {allow}" if way else allow
    way = way or "use a smaller or a quantised checkpoint"
    if fit.verdict != NO:
        _cpu, memory = nearest_one.instance.share(fit.engine.gpus)
        found = f"{memory}Mi for the pod on {nearest_one.instance.name}"
        return [
            problem("host_memory", name, found, f"{fit.host.request_gib}Gi: {fit.host.explain[0]}", "allow a type with more memory, or set resources.memory")
        ]
    found = f"{-fit.margin_gib:.1f} GiB a GPU too little on {nearest_one.instance.name} ({fit.gpu.name}) with tensor_parallel_size {fit.engine.tensor_parallel}"
    needed = (
        f"{fit.needed_gib:.2f} GiB of KV cache for one request of {fit.engine.max_model_len} tokens; {fit.limiting.budget_gib:.1f} GiB"
        f" less weights {fit.weights_gib:.1f} GiB and what else is held leaves {fit.available_gib:.1f} GiB"
    )
    return [problem("fit", name, found, needed, way)]


def _no_node(model: dict[str, Any], wish: Wish) -> Rows:
    """No allowed type is a node for the replica, whatever the model's memory."""
    name = model["name"]
    allowed = [i for i in _instances.table().values() if wish.allows(i)]
    most = max(allowed, key=lambda i: (i.gpu_count, i.gpu_memory_mib))
    gpus = (wish.tensor_parallel_size or 1) * wish.pipeline_parallel_size
    if most.gpu_count < gpus:
        sizes = f"tensor_parallel_size {wish.tensor_parallel_size or 1} x pipeline_parallel_size {wish.pipeline_parallel_size}"
        found, needed = f"{gpus} GPUs a replica ({sizes})", f"at most {most.gpu_count}, the most of any allowed type ({most.name}, {wish.limits()})"
        return [problem("gpus", name, found, needed, "allow a larger type or lower the parallel sizes")]
    found = "; ".join(
        f"{row['reason']} ({', '.join(row['instance_types'])})" for row in model["rejected"] if set(row["instance_types"]) & {i.name for i in allowed}
    )
    return [problem("instance_type", name, found, f"a type among {wish.limits()} that can be a node", "allow further GPUs, or name types in instance_types")]


def fit_row(fit: Fit, origin: str, fix: Any) -> dict[str, Any]:
    """A fit as the plan shows it (docs/architecture.md, "`fit`")."""
    return {
        "verdict": fit.verdict,
        "source": origin,
        "gpu": fit.gpu.name,
        "visible_gib": round(fit.gpu.visible_gib, 2),
        "budget_gib": round(fit.limiting.budget_gib, 2),
        "tensor_parallel_size": fit.engine.tensor_parallel,
        "pipeline_parallel_size": fit.engine.pipeline_parallel,
        "max_model_len": fit.engine.max_model_len,
        "terms": [{"name": term.name, "gib": round(term.gib, 3), "why": term.why} for term in fit.terms],
        "weights_gib": round(fit.weights_gib, 2),
        "kv_gib": round(fit.available_gib, 2),
        "needed_gib": round(fit.needed_gib, 2),
        "margin_gib": round(fit.margin_gib, 2),
        "kv_tokens": fit.kv_tokens,
        "kv_blocks": fit.kv_blocks,
        "concurrency": round(fit.concurrency, 2),
        "concurrency_expected": round(fit.concurrency_expected, 1) if fit.concurrency_expected is not None else None,
        "expected_tokens": fit.expected_tokens,
        "fix": {"change": fix.change, "value": fix.value, "text": fix.text} if fix else None,
        "explain": fit.explain(),
    }


def _set_types(model: dict[str, Any], instances: list[_instances.Instance]) -> None:
    model["instance_types"] = [instance.name for instance in instances]
    model["gpu_names"] = sorted({instance.gpu_name for instance in instances})


def _by_size(model: dict[str, Any], description: ModelDescription | None = None, engine: Engine | None = None, origin: str = "") -> Rows:
    """Place a model by nothing but the size of its weights: rough, and said to be so."""
    weights, explain = model["weights"], model["explain"]
    model["tensor_parallel_size"] = model["tensor_parallel_size"] or 1
    model["max_num_seqs"] = model["max_num_seqs"] or DEFAULT_SEQUENCES
    gpus = model["gpus"] = model["tensor_parallel_size"] * model["pipeline_parallel_size"]
    # Beside the weights each GPU holds activations, CUDA graphs and some KV cache: under 1.5 GiB no model starts.
    needed_mib = (weights["size_gib"] / model["gpu_memory_utilization"] + 1.5 * gpus) * 1024 if weights["size_gib"] else 0
    wish, table = wish_of(model), _instances.table()
    if model["instance_types"]:
        fitting = [i for i in map(table.__getitem__, model["instance_types"]) if i.gpu_count >= gpus and i.gpu_memory_mib * gpus >= needed_mib]
    else:
        fitting = _instances.candidates(gpus, model["gpu_names"], needed_mib)
    if not fitting:
        if gpus > max(i.gpu_count for i in table.values() if wish.allows(i)):
            return _no_node(model, wish)
        found = f"{weights['size_gib'] or 0:g} GiB of weights on {gpus} GPU(s)"
        needed = f"a type among {wish.limits()} with {needed_mib / gpus / 1024:.1f} GiB a GPU and {_instances.vcpus_needed(gpus)} vCPU for the replica"
        fix = "raise tensor_parallel_size, allow a GPU with more memory or use a quantised checkpoint"
        return [problem("gpu_memory", model["name"], found, needed, fix)]
    _set_types(model, fitting)
    smallest = min(fitting, key=lambda i: i.gpu_memory_mib)
    if not weights["size_gib"]:
        weights["size_gib"] = round(smallest.gpu_memory_mib * gpus / 1024, 1)
        explain["weights.size_gib"] = [f"not given: at most the GPU memory of a replica, {gpus} x {smallest.gpu_memory_mib} MiB ({smallest.name})"]
    host = None
    rows: Rows = []
    if description and engine:
        gpu = find_gpu(smallest.gpu_name, memory_mib=smallest.gpu_memory_mib)
        settings = {
            "tensor_parallel": model["tensor_parallel_size"],
            "pipeline_parallel": model["pipeline_parallel_size"],
            "max_num_seqs": model["max_num_seqs"],
        }
        fit = estimate(description, gpu, replace(engine, **settings), wish.expected_tokens, wish.weights)
        model["fit"], host = fit_row(fit, origin, None), fit.host
        model["weights"]["buffer_gib"] = host.stream_gib
        rows = [dict(row, subject=model["name"]) for row in fit.problems]
    set_resources(model, fitting, host)
    return rows
