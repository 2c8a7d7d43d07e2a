# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates of AWX: survey answers are text, nobody answers a prompt, the login is a bearer token. The real run is in molecule/site."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import awx
import pytest
import yaml
from site_runs import Site

SURVEY = {"llm_cluster_name": "sandbox", "llm_region": "us-east-1", "llm_namespace": "llm-serving"}


@pytest.fixture(scope="module")
def login(site: Site) -> Iterator[dict[str, str]]:
    with awx.credential(site.env) as login:
        yield {**site.env, **login}


@pytest.fixture
def job(site: Site, login: dict[str, str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run a job template that must not write: a check, or one that is refused."""

    def run(arguments: str = "", playbook: str = "site.yml", **survey: Any) -> dict[str, Any]:
        with site.nothing_written():
            return awx.run(tmp_path, login, {**SURVEY, **survey}, arguments, playbook)

    return run


def test_job_of_type_check_with_answers_as_text(job):
    done = job(
        "--check --diff",
        llm_model_defaults={"drain_seconds": awx.Unsafe("30"), "replicas": {"max": awx.Unsafe("3")}, "gpu_names": ["l4"]},
        karpenter_gpu_fast_image_pull="false", karpenter_gpu_gpu_limit="6", vllm_spare_gpus="1", keda_scaler_verify="true", eks_gpu_nodegroup_karpenter="true",
    )  # fmt: skip
    assert done["status"] == "successful", done["output"][-3000:]
    assert done["stats"]["failures"] == 0
    assert done["stats"]["changed"] > 5
    assert {"Install the CRDs", "Install the controller"} <= set(done["changed"])
    assert done["failed"] == []
    # The answers arrived as what they mean.
    assert "--shutdown-timeout=30" in done["output"]
    assert "maxReplicaCount: 3" in done["output"]
    assert "nvidia.com/gpu: 6" in done["output"].replace("'6'", "6").replace('"6"', "6")
    # A check has no endpoints to hand on, but the plan.
    assert list(done["artifacts"]) == ["llm_plan_summary"]


def test_templates_in_an_answer_stay_text(job, tmp_path):
    done = job("--check", llm_namespace="{{ lookup('ansible.builtin.pipe', 'touch " + str(tmp_path / "taken") + "') }}")
    assert done["status"] == "failed"
    assert not (tmp_path / "taken").exists()
    # Whoever refuses it has got the text: in the address of a request, for one.
    assert "lookup('ansible.builtin.pipe', 'touch " in unquote(done["output"]), done["output"][-3000:]


@pytest.mark.parametrize(
    ("playbook", "survey", "says"),
    [
        ("site.yml", {"llm_model_defaults": "fast"}, ["llm_model_defaults", "dict"]),
        ("site.yml", {"llm_models": "llama"}, ["llm_models", "dict"]),
        ("playbooks/teardown.yml", {"llm_teardown_data": "perhaps"}, ["llm_teardown_data", "perhaps", "bool"]),
        ("playbooks/check.yml", {"llm_models": ""}, ["llm_models"]),
    ],
)
def test_wrong_answer_is_refused_by_name(job, playbook, survey, says):
    done = job(playbook=playbook, **survey)
    assert done["status"] == "failed"
    assert done["stats"]["failures"] == len(done["failed"]) == 1
    # Before any task of the play.
    assert "Plan the models" not in done["output"], done["output"]
    for word in says:
        assert word in done["output"]


def test_missing_answer_is_named(site: Site):
    """The plain command line, because AWX itself would not start a job without a required answer."""
    with site.nothing_written():
        run = site.run(llm_models=None)
    assert run.code == 2
    assert "llm_models" in run.failure


def test_survey_answers_are_marked_unsafe(tmp_path):
    """The mark is what Ansible honours: without it the test of templates above would prove nothing."""
    assert yaml.safe_dump({"a": awx.Unsafe("{{ b }}")}) == "a: !unsafe '{{ b }}'\n"
    assert json.loads(json.dumps({"a": awx.Unsafe("x")})) == {"a": "x"}
