# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for tests of what people see of them, as the built-in tables give them: nothing is asked of AWS, the hub or a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils._plan import plan

# The example of docs/plan.md: a well-known guide's instance, length and number of sequences.
GUIDES = {
    "name": "llama-3-1-8b",
    "source": "s3://acme-models/Llama-3.1-8B-Instruct/",
    "config": "meta-llama/Llama-3.1-8B-Instruct",
    "instance_types": ["g5.xlarge"],
    "max_model_len": 8192,
    "max_num_seqs": 64,
    "replicas": {"min": 1, "max": 4},
}
FOUR_GPUS = {"name": "qwen3-32b", "source": "hf://Qwen/Qwen3-32B@main", "tensor_parallel_size": 4, "max_model_len": 16384}
UNKNOWN = {
    "name": "a-model-that-nobody-knows-with-a-very-long-name",
    "source": "s3://acme-models/novel/",
    "weights": {"size_gib": 15},
    "max_model_len": 16384,
}
LEAVING = {"name": "old", "state": "absent"}


def planned(*models: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """(planned models, problems); fails on any error."""
    result, rows = plan(list(models), {}, "llm-serving")
    assert [row for row in rows if row["severity"] == "error"] == []
    return result, rows
