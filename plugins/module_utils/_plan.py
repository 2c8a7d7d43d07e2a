# SPDX-License-Identifier: GPL-3.0-or-later
"""From the user's model list to planned models (docs/architecture.md, "The model list"). Pure: no cluster, no AWS, no clock."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import yaml
from ansible.module_utils.common.dict_transformations import dict_merge

from ..modules import llm_plan as documented
from . import _data, _instances, _vllm_args
from ._problems import problem
from ._schema import Rows, cast, nearest

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")
SOURCE = re.compile(r"(?P<scheme>s3|hf|pvc)://(?P<place>[^/@]+)(?P<rest>/[^@]*)?(?:@(?P<revision>[A-Za-z0-9._-]+))?")
MARKER = ".llmops-weights.json"  # written last by the role model_weights: the copy beside it is complete and verified
GBIT_PER_GIB = 8.59
GRACE_MARGIN = 30  # vLLM exits up to 15 s after its last stream; the rest is for a slow kubelet
SCHEMA: dict[str, Any] = yaml.safe_load(documented.DOCUMENTATION)["options"]["models"]["suboptions"]
# To remove a model its name is enough.
LEAVING_SCHEMA = {key: {**option, "required": key == "name"} for key, option in SCHEMA.items()}


def plan(models: list[Any], defaults: Mapping[str, Any], namespace: str) -> tuple[list[dict[str, Any]], Rows]:
    """Return (planned models, problems). With an error among the problems the models are incomplete and must not be used."""
    planned: list[dict[str, Any]] = []
    rows: Rows = []
    for index, item in enumerate(models):
        subject = str(item.get("name") or f"model {index + 1}") if isinstance(item, Mapping) else f"model {index + 1}"
        merged = dict_merge(copy.deepcopy(dict(defaults)), dict(item)) if isinstance(item, Mapping) else item
        leaving = isinstance(merged, Mapping) and merged.get("state") == "absent"
        model, problems = cast(LEAVING_SCHEMA if leaving else SCHEMA, merged, subject)
        if not problems:
            problems = _names(model) if leaving else _complete(model, namespace)
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
    return planned, rows


def _complete(model: dict[str, Any], namespace: str) -> Rows:
    """Fill in everything computed, in place, and return what cannot work."""
    name, explain = model["name"], {}
    model["explain"] = explain
    rows = _names(model)
    model["image"] = model["image"] or _data.load("vllm")["image"]
    model["gpus"] = model["tensor_parallel_size"] * model["pipeline_parallel_size"]
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs", "max_model_len"):
        if model[key] is not None and model[key] < 1:
            rows.append(problem("range", name, f"{key} = {model[key]}", "at least 1", f"correct {key}"))
    if not 0.1 <= model["gpu_memory_utilization"] <= 1:
        rows.append(
            problem("range", name, f"gpu_memory_utilization = {model['gpu_memory_utilization']}", "a share between 0.1 and 1", "vLLM's default is 0.92")
        )
    rows += _source(model)
    if rows:
        return rows
    rows += _vllm_args.check_image(name, model["image"]) + _vllm_args.check_extra_args(name, model["extra_args"])
    rows += _instance_types(model, explain) + _replicas(model, namespace) + _budgets(model)
    if any(row["severity"] == "error" for row in rows):
        return rows
    model["budgets"]["startup"] = model["startup_seconds"] or _startup_seconds(model, explain)
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


def _instance_types(model: dict[str, Any], explain: dict[str, list[str]]) -> Rows:
    """Set instance_types, gpu_names, weights.size_gib and resources from what the user allows."""
    name, gpus, weights, table = model["name"], model["gpus"], model["weights"], _instances.table()
    unknown = [t for t in model["instance_types"] if t not in table]
    known_gpus = sorted({i.gpu_name for i in table.values()})
    rows = [
        problem("instance_type", name, f"instance type {t}", "an EC2 type with a whole NVIDIA GPU", f"correct instance_types{nearest(t, list(table))}")
        for t in unknown
    ]
    rows += [
        problem("gpu_name", name, f"GPU {g}", f"one of {', '.join(known_gpus)}", f"correct gpu_names{nearest(g, known_gpus)}")
        for g in model["gpu_names"]
        if g not in known_gpus
    ]
    if rows:
        return rows
    # Beside the weights each GPU holds activations, CUDA graphs and some KV cache: under 1.5 GiB no model starts.
    needed_mib = (weights["size_gib"] / model["gpu_memory_utilization"] + 1.5 * gpus) * 1024 if weights["size_gib"] else 0
    if model["instance_types"]:
        allowed = [table[t] for t in model["instance_types"]]
        fitting = [i for i in allowed if i.gpu_count >= gpus and i.gpu_memory_mib * gpus >= needed_mib]
        where = f"instance_types {', '.join(model['instance_types'])}"
    else:
        allowed = [i for i in table.values() if i.gpu_name in model["gpu_names"]]
        fitting = _instances.candidates(gpus, model["gpu_names"], needed_mib)
        where = f"gpu_names {', '.join(model['gpu_names'])}"
    if not fitting:
        most = max(allowed, key=lambda i: (i.gpu_count, i.gpu_memory_mib))
        if most.gpu_count < gpus:
            return [
                problem(
                    "gpus",
                    name,
                    f"{gpus} GPUs a replica (tensor_parallel_size {model['tensor_parallel_size']} x pipeline_parallel_size {model['pipeline_parallel_size']})",
                    f"at most {most.gpu_count}, the most of any allowed type ({most.name}, {where})",
                    "allow a larger type or lower the parallel sizes",
                )
            ]
        return [
            problem(
                "gpu_memory",
                name,
                f"{weights['size_gib'] or 0:g} GiB of weights on {gpus} GPU(s)",
                f"a type among {where} with {needed_mib / gpus / 1024:.1f} GiB a GPU and {_instances.vcpus_needed(gpus)} vCPU for the replica",
                "raise tensor_parallel_size, allow a GPU with more memory or use a quantised checkpoint",
            )
        ]
    model["instance_types"] = [i.name for i in fitting]
    model["gpu_names"] = sorted({i.gpu_name for i in fitting})
    if not weights["size_gib"]:
        smallest = min(fitting, key=lambda i: i.gpu_memory_mib)
        weights["size_gib"] = round(smallest.gpu_memory_mib * gpus / 1024, 1)
        explain["weights.size_gib"] = [f"not given: at most the GPU memory of a replica, {gpus} x {smallest.gpu_memory_mib} MiB ({smallest.name})"]
    _resources(model, fitting, explain)
    return []


def _resources(model: dict[str, Any], fitting: list[_instances.Instance], explain: dict[str, list[str]]) -> None:
    gpus, resources, size = model["gpus"], model["resources"], model["weights"]["size_gib"]
    shares = {i.name: i.share(gpus) for i in fitting}
    tightest_cpu, tightest_memory = min(shares, key=lambda n: shares[n][0]), min(shares, key=lambda n: shares[n][1])
    shm_gib = max(2, math.ceil(1 + 0.5 * model["tensor_parallel_size"]))
    wanted_cpu = _instances.vcpus_needed(gpus) * 1000
    # A CUDA process holds up to 3 GiB of host memory; server and engine core 8 GiB; page cache for the weights speeds the load.
    wanted_memory = int((8 + 3 * gpus + shm_gib + 1.1 * size) * 1024)
    cpu, memory = min(wanted_cpu, shares[tightest_cpu][0]), min(wanted_memory, shares[tightest_memory][1])
    resources["shm"] = resources["shm"] or f"{shm_gib}Gi"
    if not resources["cpu"]:
        resources["cpu"] = str(cpu // 1000) if cpu % 1000 == 0 else f"{cpu}m"  # as the API server writes it back
        explain["resources.cpu"] = [
            f"2 x (2 + {gpus} GPU) vCPU = {wanted_cpu}m",
            f"share of the smallest type {tightest_cpu} beside its daemonsets: {shares[tightest_cpu][0]}m",
        ]
    if not resources["memory"]:
        resources["memory"] = f"{memory}Mi"
        explain["resources.memory"] = [
            f"8 GiB server + {gpus} x 3 GiB worker + {shm_gib} GiB shm + 1.1 x {size:g} GiB weights = {wanted_memory}Mi",
            f"share of the smallest type {tightest_memory} beside its daemonsets: {shares[tightest_memory][1]}Mi",
        ]
    explain["resources.shm"] = [f"max(2, 1 + 0.5 x tensor_parallel_size {model['tensor_parallel_size']}) GiB"]


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
    concurrency = scaling["concurrency_per_replica"] or max(1, int(0.6 * model["max_num_seqs"]))
    if concurrency < 1:
        rows.append(
            problem("range", name, f"autoscaling.concurrency_per_replica = {concurrency}", "at least 1", "correct it, or leave it out for 60 % of max_num_seqs")
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


def _startup_seconds(model: dict[str, Any], explain: dict[str, list[str]]) -> int:
    """Time for imports, weights and compilation on the slowest allowed type, with a margin: the startup probe's budget."""
    weights, facts, table = model["weights"], _data.load("vllm")["startup"], _instances.table()
    if weights["mode"] == "stream":
        slowest = min((table[t] for t in model["instance_types"]), key=lambda i: i.network_gbps)
        rate = slowest.network_gbps / GBIT_PER_GIB * facts["stream_nic_share"]
        how = f"{facts['stream_nic_share']:.0%} of {slowest.network_gbps:g} Gbit/s ({slowest.name})"
    else:
        rate, how = facts["volume_gib_per_second"], "a shared volume"
    seconds = facts["import_seconds"] + weights["size_gib"] / rate + facts["compile_seconds"]
    explain["budgets.startup"] = [
        f"imports {facts['import_seconds']} s + {weights['size_gib']:g} GiB at {rate:.2f} GiB/s ({how}) + compile and graphs {facts['compile_seconds']} s,"
        f" times {facts['safety']}, in steps of 30 s"
    ]
    return math.ceil(facts["safety"] * seconds / 30) * 30
