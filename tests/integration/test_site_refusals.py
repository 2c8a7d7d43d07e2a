# SPDX-License-Identifier: GPL-3.0-or-later
"""Broken input of `ansible-playbook site.yml`: refused with found, needed and fix before the first write, at Kubernetes and at AWS."""

from __future__ import annotations

import re
from typing import Any

import pytest
from site_runs import MODEL, Site

GROUP = {"name": "gpu-a", "subnets": ["subnet-1"]}


def models(*changes: dict[str, Any]) -> dict[str, Any]:
    """Variables of a site with one model for each change."""
    return {"llm_models": [{**MODEL, **change} for change in changes]}


# What is wrong: (variables, subject, found, needed, fix)
REFUSED: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "AL2 AMI of a node group": (
        {**models({}), "eks_gpu_nodegroup_groups": [{**GROUP, "ami_type": "AL2_x86_64_GPU"}]},
        "gpu-a", "ami_type AL2_x86_64_GPU", "AL2023_x86_64_NVIDIA or BOTTLEROCKET_x86_64_NVIDIA", "set ami_type",
    ),
    "AL2 AMI of Karpenter's nodes": (
        {**models({}), "karpenter_gpu_ami_alias": "al2@v20251126"},
        "karpenter_gpu_ami_alias", "al2@v20251126", "al2023@RELEASE or bottlerocket@RELEASE", "set karpenter_gpu_ami_alias",
    ),
    "unknown flag": (
        models({"extra_args": ["--kv-cache-type=fp8"]}),
        "m", "extra_args: --kv-cache-type=fp8", "a flag of vLLM 0.33", "did you mean --kv-cache-dtype?",
    ),
    "more GPUs than any allowed instance has": (
        models({"tensor_parallel_size": 8, "instance_types": ["g6.2xlarge", "g6.12xlarge"]}),
        "m", "8 GPUs a replica", "at most 4, the most of any allowed type (g6.12xlarge", "allow a larger type or lower the parallel sizes",
    ),
    "two models of one name": (models({}, {"max_model_len": 4096}), "m", "2 models of this name", "each name once", "rename all but one"),
    "query on a label that vLLM does not have": (
        models({"replicas": {"max": 2}, "autoscaling": {"query": 'sum(vllm:num_requests_running{model="m"})'}}),
        "m", "autoscaling.query selects vllm:num_requests_running by label model", "a label of that series", "use model_name",
    ),
    "minimum above maximum": (models({"replicas": {"min": 3, "max": 2}}), "m", "replicas.min 3 > replicas.max 2", "min <= max", "swap them or raise max"),
    "scale to zero on a vLLM metric": (
        models({"replicas": {"min": 0, "max": 2}}),
        "m", "replicas.min 0 with a metric that vLLM itself exports", "a metric that exists without a running replica", "autoscaling.mode: http_zero",
    ),
    "grace period shorter than the drain": (
        models({"drain_seconds": 120, "pre_stop_seconds": 15, "termination_grace_seconds": 60}),
        "m", "termination_grace_seconds 60", "at least 165 = pre_stop_seconds 15 + drain_seconds 120 + 30", "raise termination_grace_seconds",
    ),
    "unknown key": (models({"max_model_length": 8192}), "m", "max_model_length", "one of api_key_secret", "did you mean max_model_len?"),
    "text where a number is needed": (models({"max_num_seqs": "many"}), "m", "max_num_seqs = 'many'", "a whole number", "give max_num_seqs a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", REFUSED)
def test_refused_before_any_write(site: Site, wrong):
    variables, subject, found, needed, fix = REFUSED[wrong]
    with site.nothing_written():
        run = site.run(**variables)
    assert run.code == 2
    assert run.stats["failures"] == 1
    # One line a problem; this one is whole, and it is the only one.
    lines = re.findall(r"[^\n]*found .*", run.failure)
    assert len(lines) == 1, run.failure
    match = re.fullmatch(r"(?:  - )?(?P<subject>\S+): found (?P<found>.+); needed (?P<needed>.+); fix: (?P<fix>.+)", lines[0])
    assert match, lines[0]
    assert match["subject"] == subject
    assert found in match["found"]
    assert needed in match["needed"]
    assert fix in match["fix"]


def test_all_problems_of_the_models_at_once(site: Site):
    broken = [v["llm_models"][-1] for name, (v, *_rest) in REFUSED.items() if "AMI" not in name and "two models" not in name]
    with site.nothing_written():
        run = site.run(llm_models=[{**model, "name": f"m{number}"} for number, model in enumerate(broken)])
    assert run.code == 2
    assert f"The model list has {len(broken)} problem(s); nothing was written." in run.failure
    assert re.findall(r"  - (m\d+): found", run.failure) == [f"m{number}" for number in range(len(broken))]


def test_numbers_and_truths_as_a_survey_sends_them_are_cast(site: Site):
    """All of it as text; the plan is the one of the same numbers."""
    text = {"tensor_parallel_size": "1", "max_num_seqs": "32", "max_model_len": "8192", "gpu_memory_utilization": "0.9", "drain_seconds": "60",
            "weights": {"size_gib": "15"}, "replicas": {"min": "1", "max": "3"}, "autoscaling": {"spare_replicas": "0"}}  # fmt: skip
    numbers = {"tensor_parallel_size": 1, "max_num_seqs": 32, "max_model_len": 8192, "gpu_memory_utilization": 0.9, "drain_seconds": 60,
               "weights": {"size_gib": 15}, "replicas": {"min": 1, "max": 3}, "autoscaling": {"spare_replicas": 0}}  # fmt: skip
    switches = {"keda_scaler_verify": "false", "karpenter_gpu_fast_image_pull": "true", "karpenter_gpu_gpu_limit": "8", "eks_gpu_nodegroup_karpenter": "yes"}
    with site.nothing_written():
        survey = site.run("--tags", "check", **models(text), **switches)
        plain = site.run("--tags", "check", **models(numbers))
    assert (survey.code, survey.failure) == (0, "")
    assert (plain.code, plain.failure) == (0, "")
    (planned,) = survey.of("Plan the models")["models"]
    assert planned == plain.of("Plan the models")["models"][0]
    assert (planned["replicas"]["max"], planned["budgets"]["drain"]) == (3, 60)
    assert "--max-model-len=8192" in planned["args"]


# Of an early role and of the last one that looks: each says it before anything is written.
@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [("karpenter_gpu_gpu_limit", "eight", "int"), ("keda_scaler_verify", "perhaps", "bool")],
)
def test_wrong_value_of_a_roles_variable_is_refused_before_any_write(site: Site, variable, value, says):
    with site.nothing_written():
        run = site.run(**models({}), **{variable: value})
    assert run.code == 2
    assert variable in run.failure
    assert says in run.failure
