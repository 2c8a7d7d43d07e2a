# SPDX-License-Identifier: GPL-3.0-or-later
"""Planned models for tests of what people see of a plan."""

from __future__ import annotations

from ansible_collections.llmops.eks.plugins.module_utils import _data, _instances
from ansible_collections.llmops.eks.plugins.module_utils._fit import FITS, Engine, ModelDescription, estimate, find_gpu
from ansible_collections.llmops.eks.plugins.module_utils._fit_fix import first_fix
from ansible_collections.llmops.eks.plugins.module_utils._fit_roofline import dollars_per_million, throughput
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan

EXPECTED = 1280


def fit_dict(fit, source):
    fix = first_fix(fit)
    return {
        "verdict": fit.verdict,
        "source": source,
        "gpu": fit.gpu.name,
        "visible_gib": fit.gpu.visible_gib,
        "tensor_parallel_size": fit.engine.tensor_parallel,
        "pipeline_parallel_size": fit.engine.pipeline_parallel,
        "budget_gib": fit.limiting.budget_gib,
        "terms": [{"name": t.name, "gib": t.gib, "why": t.why} for t in fit.terms],
        "weights_gib": fit.weights_gib,
        "kv_gib": fit.available_gib,
        "needed_gib": fit.needed_gib,
        "margin_gib": fit.margin_gib,
        "kv_tokens": fit.kv_tokens,
        "kv_blocks": fit.kv_blocks,
        "concurrency": fit.concurrency,
        "concurrency_expected": fit.concurrency_expected,
        "expected_tokens": fit.expected_tokens,
        "max_model_len": fit.engine.max_model_len,
        "fix": {"change": fix.change, "value": fix.value, "text": fix.text} if fix else None,
        "explain": fit.explain(),
    }


def candidate(description, instance, model):
    gpu = find_gpu(instance.gpu_name, memory_mib=instance.gpu_memory_mib)
    engine = Engine(tensor_parallel=model["tensor_parallel_size"], max_model_len=model["max_model_len"], max_num_seqs=model["max_num_seqs"])
    fit = estimate(description, gpu, engine, EXPECTED)
    rate = throughput(fit, 1024, 256, 64)
    cpu, memory = instance.share(model["gpus"])
    return fit, {
        "instance_type": instance.name,
        "gpu_name": gpu.name,
        "gpu_label": instance.gpu_name,
        "gpus_on_node": instance.gpu_count,
        "tensor_parallel_size": model["tensor_parallel_size"],
        "pipeline_parallel_size": 1,
        "verdict": fit.verdict,
        "margin_gib": fit.margin_gib,
        "kv_tokens": fit.kv_tokens,
        "concurrent_requests": min(64, int(fit.concurrency_expected)),
        "usd_per_hour": {"on_demand": instance.price, "spot": None},
        "price_source": f"table of {_data.load('instances')['as_of']}, us-east-1",
        "tokens_per_second": {"expected": rate.output_tokens_s, "low": rate.low, "high": rate.high} if rate else None,
        "usd_per_million_tokens": {
            "low": dollars_per_million(instance.price, rate.high, 1.0),
            "high": dollars_per_million(instance.price, rate.low, 0.25),
            "utilisation": [1.0, 0.25],
        }
        if rate
        else None,
        "startup_seconds": 95,
        "pod": {"cpu_m": cpu, "memory_mib": memory},
        "why": "cheapest that fits",
    }


def planned(name, table_name, **settings):
    models, rows = plan([{"name": name, **settings}], {}, "llm-serving")
    assert [r for r in rows if r["severity"] == "error"] == []
    model = models[0] | {"capacity_types": ["on-demand"]}
    description = ModelDescription.from_table(table_name)
    if not description:
        return model | {"fit": None, "choice": None, "alternatives": [], "rejected": []}
    found = []
    rejected = {}
    for instance in _instances.table().values():
        if instance.gpu_name not in ("t4", "l4", "a10g", "l40s", "h100") or instance.price is None:
            continue
        if instance.gpu_count < model["gpus"]:
            rejected.setdefault(f"{instance.gpu_count} GPU(s), a replica needs {model['gpus']}", []).append(instance.name)
            continue
        fit, row = candidate(description, instance, model)
        if fit.verdict == FITS:
            found.append((fit, row))
        else:
            rejected.setdefault(f"{fit.verdict}: {fit.margin_gib:.1f} GiB on {instance.gpu_name}", []).append(instance.name)
    found.sort(key=lambda item: item[1]["usd_per_hour"]["on_demand"])
    return model | {
        "fit": fit_dict(found[0][0], f"config of {table_name} in the built-in table"),
        "choice": found[0][1],
        "alternatives": [row for _, row in found[1:6]],
        "rejected": [{"instance_types": types, "reason": reason} for reason, types in rejected.items()],
    }


def served_models():
    """(models, problems)"""
    models = [
        planned(
            "llama-3-1-8b",
            "meta-llama/Llama-3.1-8B-Instruct",
            source="s3://acme-models/llama-3.1-8b/",
            weights={"size_gib": 15},
            max_model_len=16384,
            replicas={"min": 1, "max": 4},
        ),
        planned(
            "qwen3-32b",
            "Qwen/Qwen3-32B",
            source="s3://acme-models/qwen3-32b/",
            tensor_parallel_size=4,
            weights={"mode": "volume", "size_gib": 61, "revision": "v1"},
            max_model_len=32768,
        ),
        planned("a-model-that-nobody-knows-with-a-very-long-name", "x/y", source="s3://acme-models/novel/", weights={"size_gib": 15}, max_model_len=16384),
        {"name": "old", "state": "absent"},
    ]
    problems = [
        {
            "check": "model_unknown",
            "severity": "warning",
            "subject": models[2]["name"],
            "found": "architecture NovelForCausalLM",
            "needed": "a model whose memory is understood",
            "fix": "start it once and pin the KV cache size that it logs",
        }
    ]
    return models, problems
