# SPDX-License-Identifier: GPL-3.0-or-later
"""From the user's model list to planned models (docs/architecture.md, "The model list"). Pure: what is read elsewhere comes through `readers` and `prices`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.module_utils.common.dict_transformations import dict_merge

from ..modules import llm_plan as documented
from . import _data, _instances, _startup, _vllm_args
from ._model_source import Readers
from ._plan_place import DEFAULT_SEQUENCES, place, unplaced
from ._prices import Prices
from ._problems import errors, problem
from ._schema import Rows, cast

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SOURCE = re.compile(r"(?P<scheme>s3|hf|pvc)://(?P<place>[^/@]+)(?P<rest>/[^@]*)?(?:@(?P<revision>[A-Za-z0-9._-]+))?")
MARKER = ".llmops-weights.json"  # written last by the role model_weights: the copy beside it is complete and verified
BUSY_SHARE = 0.6  # of the requests that a replica can hold: more replicas are asked for before it is full
GRACE_MARGIN = 30  # vLLM exits up to 15 s after its last stream; the rest is for a slow kubelet
SCHEMA: dict[str, Any] = yaml.safe_load(documented.DOCUMENTATION)["options"]["models"]["suboptions"]
# To remove a model its name is enough.
LEAVING_SCHEMA = {key: {**option, "required": key == "name"} for key, option in SCHEMA.items()}


def plan(
    models: list[Any], defaults: Mapping[str, Any], namespace: str, readers: Readers | None = None, prices: Prices | None = None, removing: bool = False
) -> tuple[list[dict[str, Any]], Rows]:
    """Return (planned models, problems). With an error among the problems the models are incomplete and must not be used.

    readers: where models' descriptions are read from; prices: of the region. Without them nothing is read: the built-in tables have to do.
    removing: all models leave, so nothing but their names and places matters, and what could not be served is no problem.
    """
    readers, prices = readers or Readers.none(), prices or Prices.table()
    planned: list[dict[str, Any]] = []
    rows: Rows = []
    if not NAMESPACE.fullmatch(namespace):
        needed, fix = "a DNS label of at most 63 characters: a-z, 0-9 and - inside", "correct llm_namespace (option namespace)"
        rows.append(problem("namespace", "namespace", repr(namespace), needed, fix))
    for index, item in enumerate(models):
        subject = str(item.get("name") or f"model {index + 1}") if isinstance(item, Mapping) else f"model {index + 1}"
        merged = dict_merge(copy.deepcopy(dict(defaults)), dict(item)) if isinstance(item, Mapping) else item
        leaving = isinstance(merged, Mapping) and merged.get("state") == "absent"
        model, problems = cast(LEAVING_SCHEMA if leaving else SCHEMA, merged, subject)
        if not problems:
            problems = _names(model) if leaving else _complete(model, namespace, readers, prices, removing)
        rows += problems
        planned.append(model)
    names = [model.get("name") for model in planned]
    rows += [
        problem(
            "duplicate_name",
            str(name),
            f"{names.count(name)} models of this name",
            "each name once",
            "rename all but one; one model at two sizes needs two names",
        )
        for name in sorted({n for n in names if n and names.count(n) > 1})
    ]
    return planned, rows + prices.rows


def _complete(model: dict[str, Any], namespace: str, readers: Readers, prices: Prices, removing: bool) -> Rows:
    """Fill in everything computed, in place, and return what cannot work."""
    name, explain = model["name"], {}
    model["explain"] = explain
    rows = _names(model)
    model["image"] = model["image"] or _data.load("vllm")["image"]
    limits = {key: model[key] for key in ("tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_model_len")}
    limits |= {f"traffic.{key}": value for key, value in model["traffic"].items()}
    rows += [problem("range", name, f"{key} = {value}", "at least 1", f"correct {key}") for key, value in limits.items() if value is not None and value < 1]
    if not model["capacity_types"]:
        rows.append(problem("range", name, "capacity_types with nothing in it", "on-demand, spot or both", "leave it out for on-demand"))
    if not 0.1 <= model["gpu_memory_utilization"] <= 1:
        rows.append(
            problem("range", name, f"gpu_memory_utilization = {model['gpu_memory_utilization']}", "a share between 0.1 and 1", "vLLM's default is 0.92")
        )
    rows += _source(model)
    if removing:
        unplaced(model)
        _replicas(model, namespace)
        _budgets(model)
        return [row for row in rows if row["check"] in ("name", "source")]
    if rows:
        return rows
    rows += _vllm_args.check_image(name, model["image"]) + _vllm_args.check_extra_args(name, model["extra_args"]) + _vllm_args.check_env(name, model["env"])
    if not errors(rows):
        rows += place(model, readers, prices)
    rows += _replicas(model, namespace) + _budgets(model)
    if errors(rows):
        return rows
    weights, table = model["weights"], _instances.table()
    seconds, how = _startup.budget(weights["size_gib"], weights["mode"], [table[name] for name in model["instance_types"]])
    model["budgets"]["startup"] = model["startup_seconds"] or seconds
    explain["budgets.startup"] = [how]
    model["args"] = _vllm_args.render(model, model["weights"]["path"])
    # Values are text: Kubernetes refuses a number in an environment variable.
    model["env"] = {
        key: value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value) for key, value in model["env"].items()
    }
    return rows


def _names(model: dict[str, Any]) -> Rows:
    """Set the names that are derived from the model's own."""
    name = model["name"]
    model["served_model_name"] = model["served_model_name"] or name
    model["weights"]["claim"] = model["weights"]["claim"] or f"{name}-weights"
    # A Secret that the user names is the user's: only one without a given name is made, and removed, by the role vllm.
    model["api_key_secret"]["generate"] = not model["api_key_secret"]["name"]
    model["api_key_secret"]["name"] = model["api_key_secret"]["name"] or f"{name}-api-key"
    if NAME.fullmatch(name):
        return []
    return [
        problem(
            "name",
            name,
            f"name {name}",
            "a DNS label of at most 50 characters: a-z, 0-9 and - inside",
            "rename the model; clients can keep their name through served_model_name",
        )
    ]


def _source(model: dict[str, Any]) -> Rows:
    """Understand `source` and set weights.{mode, uri, path, claim, revision}."""
    name, weights = model["name"], model["weights"]
    match = SOURCE.fullmatch(model["source"])
    if not match or (match["scheme"] in ("hf", "pvc") and not (match["rest"] or "").strip("/")):
        return [problem("source", name, f"source {model['source']}", "s3://bucket/prefix, hf://org/model@revision or pvc://claim/path", "correct the source")]
    scheme, rest = match["scheme"], (match["rest"] or "").strip("/")
    if weights["mode"] == "auto":
        weights["mode"] = "stream" if scheme == "s3" else "volume"
    if weights["mode"] == "stream" and scheme != "s3":
        return [
            problem(
                "weights_mode",
                name,
                f"weights.mode stream with source {model['source']}",
                "an s3:// source",
                "copy the weights to S3, or use weights.mode volume",
            )
        ]
    weights["uri"] = model["source"]
    weights["revision"] = weights["revision"] or match["revision"] or "main"
    if weights["mode"] == "stream":
        weights["path"] = model["source"]
    elif scheme == "pvc":
        weights["claim"], weights["path"] = match["place"], f"/models/{rest}"
    else:
        weights["path"] = f"/models/{name}/{weights['revision']}"
        weights["marker"] = f"{weights['path']}/{MARKER}"
    # The role model_weights fills a claim only from these; a pvc:// source is somebody else's.
    weights["populate"] = weights["mode"] == "volume" and scheme != "pvc"
    return []


def _replicas(model: dict[str, Any], namespace: str) -> Rows:
    name, replicas, scaling = model["name"], model["replicas"], model["autoscaling"]
    if replicas["max"] is None:
        replicas["max"] = max(1, replicas["min"])
    low, high = replicas["min"], replicas["max"]
    rows: Rows = []
    if low < 0 or high < 1:
        rows.append(
            problem("replicas", name, f"replicas min {low}, max {high}", "min >= 0 and max >= 1", "correct replicas; to stop serving set state: absent")
        )
    if low > high:
        rows.append(problem("replicas", name, f"replicas.min {low} > replicas.max {high}", "min <= max", "swap them or raise max"))
    if low == 0 and scaling["mode"] != "http_zero":
        rows.append(
            problem(
                "scale_to_zero",
                name,
                "replicas.min 0 with a metric that vLLM itself exports",
                "a metric that exists without a running replica: at 0 nothing reports demand, and a busy server with an empty queue looks idle",
                "set autoscaling.mode: http_zero (KEDA HTTP add-on holds and counts the requests), or replicas.min: 1",
            )
        )
    concurrency = scaling["concurrency_per_replica"]
    if concurrency is None:
        concurrency = _busy(model)
    if concurrency < 1:
        rows.append(
            problem("range", name, f"autoscaling.concurrency_per_replica = {concurrency}", "at least 1", "correct it, or leave it out to have it computed")
        )
    rows += [
        problem(
            "schedule",
            name,
            f"a schedule with {s['replicas']} replicas",
            f"between replicas.min {low} and replicas.max {high}",
            "correct the schedule or raise replicas.max",
        )
        for s in scaling["schedules"]
        if not low <= s["replicas"] <= high
    ]
    spare = 0 if scaling["mode"] == "http_zero" else scaling["spare_replicas"]
    selector = f'namespace="{namespace}",model_name="{model["served_model_name"]}"'
    demand = f'sum(vllm:num_requests_running{{{selector}}}) + sum(vllm:num_requests_waiting_by_reason{{{selector},reason="capacity"}})'
    if scaling["query"]:
        rows += _vllm_args.check_query(name, scaling["query"])
    scaling["query"] = scaling["query"] or (f"{demand} + {spare * concurrency}" if spare else demand)
    scaling["threshold"] = scaling["concurrency"] = concurrency
    scaling["spare_replicas"] = spare
    scaling["enabled"] = high > low
    replicas["first"] = max(1, low)
    return rows


def _busy(model: dict[str, Any]) -> int:
    """Requests that a replica should carry: a share of what it can hold at once, which max_num_seqs or the KV cache limits."""
    seats, fit = model["max_num_seqs"] or DEFAULT_SEQUENCES, model.get("fit")
    held, why = seats, f"max_num_seqs {seats}"
    if fit and fit["concurrency_expected"] is not None and fit["concurrency_expected"] < seats:
        held, why = fit["concurrency_expected"], f"{fit['concurrency_expected']:g} requests of {fit['expected_tokens']} tokens, which the KV cache holds"
    model["explain"]["autoscaling.concurrency"] = [f"{BUSY_SHARE:.0%} of {why}"]
    return max(1, int(BUSY_SHARE * held))


def _budgets(model: dict[str, Any]) -> Rows:
    name, drain, pre_stop = model["name"], model["drain_seconds"], model["pre_stop_seconds"]
    least = pre_stop + drain + GRACE_MARGIN
    grace = model["termination_grace_seconds"] or least
    rows: Rows = []
    if drain < 1:
        rows.append(
            problem(
                "drain",
                name,
                f"drain_seconds = {drain}",
                "at least 1: with 0 vLLM aborts running requests at SIGTERM",
                "set it to the longest answer you expect",
            )
        )
    if grace < least:
        rows.append(
            problem(
                "grace",
                name,
                f"termination_grace_seconds {grace}",
                f"at least {least} = pre_stop_seconds {pre_stop} + drain_seconds {drain} + {GRACE_MARGIN}",
                "raise termination_grace_seconds or lower drain_seconds: streams that outlive the grace period are cut by SIGKILL",
            )
        )
    model["budgets"] = {"drain": drain, "pre_stop": pre_stop, "grace": grace}
    return rows
