# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM arguments: which exist in the release this collection knows, and the complete list for one model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from . import _data
from ._problems import problem
from ._schema import Rows, nearest

# Set from keys of the model; a second value by extra_args would silently win or lose.
OWN_FLAGS = {
    "--model": "source",
    "--served-model-name": "served_model_name",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    # Further engines or nodes of one server would need GPUs that the plan does not count.
    **dict.fromkeys(("--data-parallel-size", "--data-parallel-size-local", "--data-parallel-rank", "--data-parallel-start-rank"), "replicas"),
    "--prefill-context-parallel-size": "tensor_parallel_size, which the GPUs of a replica are counted by",
    "--nnodes": "nothing: a replica runs on one node",
    "--max-model-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--device-memory-utilization": "gpu_memory_utilization",
    "--load-format": "weights.mode",
    "--shutdown-timeout": "drain_seconds",
    "--port": "nothing: the Service and the probes use 8000",
    "--host": "nothing: the server listens on all addresses of its pod",
    "--config": "nothing: all arguments are visible in the plan",
    "--api-key": "api_key_secret, because a key in the arguments can be read by everyone who may list pods",
    "--model-loader-extra-config": "weights.mode",
}
# Environment that carries a secret, and what to use instead: values of `env` are readable in the Deployment and in the plan.
SECRETS = {
    "VLLM_API_KEY": "name your Secret in api_key_secret, or leave it out to have a key made",
    "HF_TOKEN": "remove it, the server reads no hub; for gated weights set model_weights_hf_token_secret",
    "HUGGING_FACE_HUB_TOKEN": "remove it, the server reads no hub; for gated weights set model_weights_hf_token_secret",
    "AWS_SECRET_ACCESS_KEY": "remove it, the pods get a role by EKS Pod Identity or IRSA (model_weights_identity)",
    "AWS_SESSION_TOKEN": "remove it, the pods get a role by EKS Pod Identity or IRSA (model_weights_identity)",
}
# Labels that a scrape adds to each series, in addition to vLLM's own.
SCRAPE_LABELS = ("namespace", "pod", "container", "job", "instance", "node", "service", "endpoint", "cluster")


def version_of(image: str) -> tuple[int, int, int] | None:
    """(major, minor, patch) from the image tag (v0.33.0, 0.32.1-cu129 ...), or None when the tag does not say."""
    match = re.search(r":v?(\d+)\.(\d+)(?:\.(\d+))?[^/:@]*(?:@.*)?$", image)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def check_image(name: str, image: str) -> Rows:
    """Refuse releases with known holes; say when the tag does not tell or is newer or older than the flags known here."""
    known = _data.load("vllm")
    version, floor = version_of(image), tuple(int(p) for p in known["floor"]["version"].split("."))
    if version is None:
        return [
            problem(
                "image_version",
                name,
                f"image {image} without a version in its tag",
                "a tag such as v0.33.0",
                "pin the release: 'latest' changes under a running fleet",
                "warning",
            )
        ]
    if version < floor:
        return [problem("image_floor", name, f"image {image}", f"vLLM >= {known['floor']['version']}: {known['floor']['reason']}", f"use {known['image']}")]
    if version[:2] != tuple(int(p) for p in known["version"].split("."))[:2]:
        return [
            problem(
                "image_version",
                name,
                f"image {image}",
                f"vLLM {known['version']}, the release whose flags are checked here",
                "make sure that the arguments exist in it",
                "warning",
            )
        ]
    return []


def table_flag(flag: str) -> str:
    """The flag as vllm.json has it: without the key of a dotted one (--compilation-config.mode), and --no-enable-x and --no-disable-x as their opposites."""
    flag = flag.split(".")[0]
    for old, new in (("--no-enable-", "--disable-"), ("--no-disable-", "--enable-")):
        if flag.startswith(old) and (opposite := new + flag.removeprefix(old)) in _data.load("vllm")["flags"]:
            return opposite
    return flag


def check_extra_args(name: str, extra_args: list[str]) -> Rows:
    """Refuse what is no full flag, unknown, removed, set elsewhere, or without its value or with a value outside its choices."""
    known = _data.load("vllm")
    flags, rows = known["flags"], []
    for argument in extra_args:
        given, has_value, value = argument.partition("=")
        flag, where = table_flag(given), f"extra_args: {argument}"
        kind = flags.get(flag)
        if not flag.startswith("--"):
            rows.append(problem("flag_form", name, where, "--flag=value or --flag in one item", "write each argument as one list item with its full name"))
        elif flag in OWN_FLAGS:
            rows.append(problem("flag_owned", name, where, f"set through {OWN_FLAGS[flag]}", "remove it from extra_args"))
        elif flag in known["removed"]:
            rows.append(problem("flag_removed", name, where, f"a flag of vLLM {known['version']}", f"it was removed; use instead: {known['removed'][flag]}"))
        elif kind is None:
            rows.append(problem("flag_unknown", name, where, f"a flag of vLLM {known['version']}", f"remove or correct it{nearest(given, list(flags))}"))
        elif kind == "switch" and has_value:
            rows.append(problem("flag_value", name, where, f"{given} without a value", "remove the value"))
        elif kind != "switch" and not has_value:
            rows.append(problem("flag_value", name, where, f"{given}=VALUE in one item", "give the value after an equals sign"))
        elif isinstance(kind, list) and value not in kind:
            rows.append(problem("flag_value", name, where, f"one of {', '.join(map(str, kind))}", f"correct the value{nearest(value, [str(c) for c in kind])}"))
        elif flag == "--trust-remote-code":
            rows.append(
                problem(
                    "trust_remote_code",
                    name,
                    where,
                    "only code that the image brings",
                    "leave it out unless you have read the code in the checkpoint",
                    "warning",
                )
            )
    return rows


def check_env(name: str, env: Mapping[str, Any]) -> Rows:
    """Refuse secrets in plain text. The value is not repeated."""
    return [problem("env_secret", name, f"a secret in env ({key})", "no secret outside of a Secret", fix) for key, fix in SECRETS.items() if key in env]


def check_query(name: str, query: str) -> Rows:
    """Refuse a selector on a vLLM series with a label that vLLM does not have: it matches nothing, and nothing reads as 0."""
    allowed = [*_data.load("vllm")["metric_labels"], *SCRAPE_LABELS]
    rows = []
    for series, selector in re.findall(r"(vllm:\w+)\s*\{([^}]*)\}", query):
        for label in re.findall(r"([A-Za-z_]\w*)\s*(?:=~|!~|!=|=)", re.sub(r'"(?:[^"\\]|\\.)*"', '""', selector)):
            if label not in allowed:
                fix = "use model_name" if label == "model" else f"remove the label or correct it{nearest(label, allowed)}"
                rows.append(
                    problem(
                        "query_label",
                        name,
                        f"autoscaling.query selects {series} by label {label}",
                        f"a label of that series ({', '.join(allowed[:4])} ... or of the scrape)",
                        fix,
                    )
                )
    return rows


def render(model: dict[str, Any], path: str) -> list[str]:
    """All arguments for the image's entrypoint `vllm serve`, full names only: an abbreviation with a typo would pass silently."""
    args = [
        path,
        f"--served-model-name={model['served_model_name']}",
        "--port=8000",
        f"--tensor-parallel-size={model['tensor_parallel_size']}",
        f"--gpu-memory-utilization={model['gpu_memory_utilization']}",
        f"--max-num-seqs={model['max_num_seqs']}",
        f"--shutdown-timeout={model['drain_seconds']}",
        "--disable-fastapi-docs",
        "--disable-access-log-for-endpoints=/health,/metrics",
    ]
    if model["pipeline_parallel_size"] > 1:
        args.append(f"--pipeline-parallel-size={model['pipeline_parallel_size']}")
    # Of a model that is not known vLLM finds the longest context that fits; else the plan says it, so that clients can rely on it.
    args.append(f"--max-model-len={model['max_model_len'] or 'auto'}")
    if model["weights"]["mode"] == "stream":
        # One reader a 4 GiB of weights fills the NIC; more only costs memory (AWS, ml-inference-fast-model-loading).
        readers = min(32, max(4, math.ceil(model["weights"]["size_gib"] / 4)))
        loader = {"concurrency": readers}
        if model["weights"].get("buffer_gib"):
            loader["memory_limit"] = model["weights"]["buffer_gib"] * 2**30  # without it a worker may hold a whole file in the pod's memory
        args += ["--load-format=runai_streamer", f"--model-loader-extra-config={json.dumps(loader, separators=(',', ':'))}"]
    else:
        # A network volume is read much faster front to back than by the page faults of a lazy mmap.
        args.append("--safetensors-load-strategy=prefetch")
    return args + list(model["extra_args"])
