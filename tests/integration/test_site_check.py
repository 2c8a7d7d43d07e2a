# SPDX-License-Identifier: GPL-3.0-or-later
"""`ansible-playbook site.yml --check` on an empty cluster and an empty account: it passes and says what it would make."""

from __future__ import annotations

import re

from site_runs import Site

# (kind, name) of what serves two models, one of them scaled; the AWS side are the tasks below.
OBJECTS = {
    ("Namespace", "llm-serving"), ("Deployment", "llm-serving/llama-3-1-8b"), ("Deployment", "llm-serving/qwen3-32b"), ("Service", "llm-serving/qwen3-32b"),
    ("Secret", "llm-serving/llama-3-1-8b-api-key"), ("NetworkPolicy", "llm-serving/llama-3-1-8b"), ("PodDisruptionBudget", "llm-serving/llama-3-1-8b"),
    ("PersistentVolumeClaim", "llm-serving/qwen3-32b-weights"), ("ScaledObject", "llm-serving/llama-3-1-8b"), ("NodePool", "llm-gpu"),
    ("EC2NodeClass", "llm-gpu"), ("PodMonitor", "llm-serving/llm-vllm"), ("PrometheusRule", "llm-serving/llm-vllm"),
}  # fmt: skip
TASKS = {
    "Say that the stack would change", "Give the controller its role", "Let its nodes join the cluster", "Install the CRDs",
    "Install the controller", "Install the operator", "Install KEDA", "Allow reading exactly the models' prefixes", "Keep the role that the pods assume",
    "Give it to the pods that read S3",
}  # fmt: skip


def test_lists_what_it_would_create(site: Site):
    with site.nothing_written():
        predicted = site.run("--check")
    assert (predicted.code, predicted.failure) == (0, "")
    listed = set(re.findall(r"would be created: (\S+) (\S+)", predicted.text))
    assert OBJECTS - listed == set()
    assert re.findall(r"would be (?!created)\w+: .*", predicted.text) == []
    changed = {task.split(" : ")[-1] for task, result in predicted.results if result.get("changed")}
    assert TASKS - changed == set()


def test_diff_shows_each_object_instead(site: Site):
    """One role is enough: the list would say it twice."""
    with site.nothing_written():
        run = site.run("--check", "--diff", "--tags", "karpenter_gpu")
    assert (run.code, run.failure) == (0, "")
    assert "would be created" not in run.text
    headers = [diff["after_header"] for diff in run.of("Apply EC2NodeClass and NodePools")["diff"]]
    assert {"EC2NodeClass llm-gpu", "NodePool llm-gpu"} <= {header.split(" (")[0] for header in headers}
