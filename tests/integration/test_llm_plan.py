# SPDX-License-Identifier: GPL-3.0-or-later
"""llm_plan as a task against the AWS double: descriptions from the sample bucket, prices that the test sets, what is asked and how often."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from action_runner import Runner
from botocore.client import BaseClient

from sandbox.aws.running import RunningAws, running_aws
from sandbox.settings import ROOT

LLAMA = {"name": "llama-3-1-8b", "source": "s3://llm-weights/llama-3.1-8b/", "max_model_len": 16384, "gpu_names": ["l4", "a10g"]}
QWEN = {"name": "qwen3-32b", "source": "s3://llm-weights/qwen3-32b/", "weights": {"mode": "volume"}, "tensor_parallel_size": 4, "max_model_len": 16384}


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    with running_aws(tmp_path_factory.mktemp("aws"), settle_seconds=0) as running:
        yield running


@pytest.fixture
def plan(double: RunningAws, tmp_path, monkeypatch) -> Callable[..., dict[str, Any]]:
    """plan(model, ..., option=value): the task's result."""
    double.control.reset(resources=True)
    for name, value in double.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    runner = Runner(tmp_path / "no-kubeconfig", None)
    return lambda *models, **options: runner("llm_plan", models=list(models), **options)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Names of the operations that boto3 clients call, as they come."""
    operations: list[str] = []
    send = BaseClient._make_api_call

    def note(self: BaseClient, operation: str, params: dict[str, Any]) -> Any:
        operations.append(operation)
        return send(self, operation, params)

    monkeypatch.setattr(BaseClient, "_make_api_call", note)
    return operations


def test_the_description_comes_from_the_bucket_and_prices_from_aws(plan, double):
    double.control.price("g5.2xlarge", 0.5)
    result = plan(LLAMA)
    (model,) = result["models"]
    assert model["fit"]["source"] == "config.json and model.safetensors.index.json in s3://llm-weights/llama-3.1-8b"
    choice = model["choice"]
    assert (choice["instance_type"], choice["usd_per_hour"]["on_demand"]) == ("g5.2xlarge", 0.5)
    assert 0.35 * 0.5 <= choice["usd_per_hour"]["spot"] <= 0.6 * 0.5
    assert choice["price_source"].startswith("on demand: AWS price list for us-east-1, read 20")
    assert model["instance_types"][:2] == ["g5.2xlarge", "g6.2xlarge"]
    assert result["problems"] == []


def test_spot_decides_where_it_is_allowed(plan, double):
    double.control.price("g5.2xlarge", 2.0)
    dear = plan({**LLAMA, "capacity_types": ["spot"]})["models"][0]["choice"]
    assert dear["instance_type"] == "g6.2xlarge"
    double.control.price("g5.2xlarge", 0.6)
    cheap = plan({**LLAMA, "capacity_types": ["spot"]})["models"][0]["choice"]
    assert cheap["instance_type"] == "g5.2xlarge"
    assert cheap["usd_per_million_tokens"]["low"] < dear["usd_per_million_tokens"]["low"]


def test_a_missing_permission_is_one_row_with_the_iam_action_and_the_dated_table_stands_in(plan, double):
    double.control.deny("pricing:GetProducts")
    result = plan(LLAMA)
    assert "failed" not in result
    (row,) = result["problems"]
    assert (row["check"], row["severity"]) == ("prices", "warning")
    assert "pricing:GetProducts" in row["needed"]
    choice = result["models"][0]["choice"]
    assert choice["usd_per_hour"]["on_demand"] == 0.9776
    assert choice["price_source"].startswith("on demand: table of ")
    assert choice["usd_per_hour"]["spot"] is not None


def test_prices_are_asked_once_for_all_models(plan, asked):
    plan(LLAMA, QWEN)
    assert asked.count("GetProducts") == asked.count("DescribeSpotPriceHistory") == 1
    assert asked.count("ListObjectsV2") == 2  # the folders of two models


def test_without_live_nothing_is_asked_and_the_answer_says_so(plan, asked):
    result = plan(LLAMA, live=False)
    assert asked == []
    assert result["models"][0]["choice"]["price_source"] == "on demand: table of 2026-07-20 for us-east-1; spot: not asked"
    assert [row["check"] for row in result["problems"]] == ["model_taken_for"]


def test_a_removal_asks_nothing_and_does_not_stumble(plan, asked):
    result = plan({**LLAMA, "source": "s3://no-such-bucket/x/", "gpu_names": ["t4"], "max_model_len": 10**7}, state="absent")
    assert "failed" not in result
    assert asked == []


def test_a_bucket_that_does_not_exist_stops_the_plan(plan):
    result = plan({**LLAMA, "source": "s3://no-such-bucket/x/"})
    assert result["failed"]
    assert [row["check"] for row in result["problems"]] == ["source_missing"]


def test_the_sandboxs_own_models_fit(plan):
    variables = yaml.safe_load((ROOT / "inventories" / "sandbox" / "group_vars" / "all" / "models.yml").read_text())
    result = plan(*variables["llm_models"], defaults=variables["llm_model_defaults"])
    assert {model["name"]: (model["fit"]["verdict"], model["instance_types"][0]) for model in result["models"]} == {
        "llama-3-1-8b": ("FITS", "g6.2xlarge"),
        "qwen3-32b": ("FITS", "g6.12xlarge"),
    }
    # The sample's own sizes, not those of its files.
    assert [model["weights"]["size_gib"] for model in result["models"]] == [15.0, 61.0]


def test_it_is_quick(plan):
    plan(LLAMA)  # boto3's models are read
    started = time.process_time()
    plan(LLAMA, QWEN)
    assert time.process_time() - started < 2


def test_no_way_to_aws_is_told_and_the_tables_stand_in(plan, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_PRICING"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    started = time.monotonic()
    result = plan({**LLAMA, "config": "meta-llama/Llama-3.1-8B-Instruct"})
    assert time.monotonic() - started < 30
    assert "failed" not in result
    assert [row["check"] for row in result["problems"] if row["severity"] == "warning"] == ["prices", "prices"]
    assert result["models"][0]["choice"]["price_source"].startswith("on demand: table of ")


def test_a_config_beside_the_inventory_is_read(plan, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    result = plan({**LLAMA, "config": str(tmp_path / "config.json")}, live=True)
    assert result["failed"]
    assert [row["check"] for row in result["problems"]] == ["config_incomplete"]
    assert "hidden_size" in result["problems"][0]["found"]
