# SPDX-License-Identifier: GPL-3.0-or-later
"""The model list as a user writes it, and what the plan makes of it."""

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _data, _instances, _vllm_args
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan

STREAMED = {
    "name": "llama-3-1-8b",
    "source": "s3://acme-models/llama-3.1-8b/",
    "max_model_len": 16384,
    "replicas": {"min": 1, "max": 4},
}
COPIED = {"name": "qwen3-32b", "source": "hf://Qwen/Qwen3-32B@9216db5", "tensor_parallel_size": 4}
UNKNOWN = {"name": "own", "source": "s3://acme-models/own-model/", "weights": {"size_gib": 15}, "replicas": {"min": 1, "max": 4}}


def planned(*models, defaults=None):
    result, rows = plan(list(models), defaults or {}, "llm-serving")
    assert [row for row in rows if row["severity"] == "error"] == []
    return result[0] if len(result) == 1 else result


def refused(check, *models, defaults=None):
    """The one row with this check; there must be no other error."""
    _models, rows = plan(list(models), defaults or {}, "llm-serving")
    assert [row["check"] for row in rows if row["severity"] == "error"] == [check]
    return next(row for row in rows if row["check"] == check)


def test_streamed_model_on_one_gpu():
    model = planned(STREAMED)
    assert model["instance_types"][0] == "g6.2xlarge"  # 4 vCPU types are too small for the server's busy loops
    assert model["args"][0] == "s3://acme-models/llama-3.1-8b/"
    assert {"--load-format=runai_streamer", "--max-model-len=16384", "--shutdown-timeout=120", "--served-model-name=llama-3-1-8b"} < set(model["args"])
    # The server 2, a worker 4, the streaming buffer 4 GiB; g6.2xlarge leaves 28293Mi.
    assert model["resources"] == {"cpu": "6", "memory": "10Gi", "memory_limit": "20Gi", "shm": "1Gi"}
    assert '--model-loader-extra-config={"concurrency":4,"memory_limit":4294967296}' in model["args"]
    assert model["budgets"] == {"startup": 480, "drain": 120, "pre_stop": 15, "grace": 165}
    assert model["api_key_secret"] == {"name": "llama-3-1-8b-api-key", "key": "api-key", "generate": True}


def test_copied_model_on_four_gpus():
    model = planned(COPIED)
    assert model["gpus"] == 4
    assert model["instance_types"][0] == "g6.12xlarge"
    expected = {"mode": "volume", "claim": "qwen3-32b-weights", "path": "/models/qwen3-32b/9216db5", "revision": "9216db5", "populate": True}
    assert model["weights"] | expected == model["weights"]
    assert model["args"][0] == "/models/qwen3-32b/9216db5"
    assert model["resources"]["shm"] == "2240Mi"  # 2 x (160 + 4 x 240)
    assert model["resources"]["memory_limit"] == "88Gi"  # 20.2 + 61 / 0.9: page cache of the whole checkpoint
    assert "--safetensors-load-strategy=prefetch" in model["args"]


def test_claim_of_somebody_else_is_not_copied_to():
    weights = planned({"name": "m", "source": "pvc://shared/llama/v1"})["weights"]
    assert (weights["claim"], weights["path"], weights["populate"]) == ("shared", "/models/llama/v1", False)


def test_g5_xlarge_requests_fit_when_the_user_insists():
    model = planned({**STREAMED, "instance_types": ["g5.xlarge"]})
    assert model["resources"]["cpu"] == "3600m"  # 3920m allocatable
    assert model["resources"]["memory"] == "10Gi"
    assert model["resources"]["memory_limit"] == "13138Mi"  # 14162Mi allocatable


def test_a_model_about_which_nothing_is_known_is_placed_by_its_size_and_that_is_said():
    models, rows = plan([UNKNOWN], {}, "llm-serving")
    (row,) = rows
    assert (row["check"], row["severity"]) == ("model_unknown", "warning")
    model = models[0]
    assert (model["fit"], model["choice"], model["alternatives"], model["rejected"]) == (None, None, [], [])
    assert (model["tensor_parallel_size"], model["max_num_seqs"], model["max_model_len"]) == (1, 64, None)
    assert model["instance_types"][0] == "g6.2xlarge"
    assert "--max-model-len=auto" in model["args"]
    assert model["resources"] == {"cpu": "6", "memory": "28293Mi", "memory_limit": "28293Mi", "shm": "2Gi"}
    assert model["autoscaling"]["concurrency"] == 38


def test_unknown_size_takes_the_gpu_memory_and_says_so():
    model = planned({"name": "m", "source": "s3://b/p"})
    assert model["weights"]["size_gib"] == pytest.approx(22.4, abs=0.1)
    assert "not given" in model["explain"]["weights.size_gib"][0]


def test_scaler_counts_running_and_waiting_and_a_spare():
    scaling = planned({**STREAMED, "max_num_seqs": 16})["autoscaling"]
    assert scaling["threshold"] == 9  # 60 % of 16
    assert scaling["query"] == (
        'sum(vllm:num_requests_running{namespace="llm-serving",model_name="llama-3-1-8b"})'
        ' + sum(vllm:num_requests_waiting_by_reason{namespace="llm-serving",model_name="llama-3-1-8b",reason="capacity"}) + 9'
    )
    assert scaling["enabled"] is True
    assert planned(COPIED)["autoscaling"]["enabled"] is False


def test_zero_with_the_http_addon_has_no_spare():
    model = planned({**STREAMED, "replicas": {"min": 0, "max": 2}, "autoscaling": {"mode": "http_zero"}})
    assert model["autoscaling"]["query"].endswith('reason="capacity"})')
    assert model["replicas"]["first"] == 1


def test_survey_strings_are_cast():
    model = planned({**STREAMED, "max_model_len": "8192", "tensor_parallel_size": "1", "replicas": {"min": "1", "max": "2"}})
    assert model["max_model_len"] == 8192
    assert model["replicas"]["max"] == 2


def test_defaults_are_merged_under_every_model_and_the_model_wins():
    one, two = planned(STREAMED, COPIED, defaults={"replicas": {"max": 3}, "drain_seconds": 60, "env": {"A": 1}})
    assert (one["replicas"]["max"], two["replicas"]["max"]) == (4, 3)
    assert one["budgets"]["grace"] == 105
    assert two["env"] == {"A": "1"}


def test_a_leaving_model_needs_only_its_name():
    assert planned({"name": "old", "state": "absent"})["weights"]["claim"] == "old-weights"


@pytest.mark.parametrize(
    ("check", "change", "found", "fix"),
    [
        ("unknown_key", {"max_model_length": 1}, "max_model_length", "did you mean max_model_len?"),
        ("unknown_key", {"replicas": {"maximum": 2}}, "replicas.maximum", "remove or correct"),
        ("type", {"max_model_len": "16k"}, "'16k'", "a whole number"),
        ("type", {"max_num_seqs": 1.5}, "1.5", "a whole number"),
        ("choice", {"weights": {"mode": "strem"}}, "strem", "did you mean stream?"),
        ("flag_unknown", {"extra_args": ["--max-model-length=4"]}, "--max-model-length=4", "did you mean --max-model-len?"),
        ("flag_removed", {"extra_args": ["--swap-space=4"]}, "--swap-space", "--kv-offloading-size"),
        ("flag_owned", {"extra_args": ["--api-key=x"]}, "--api-key", "remove it from extra_args"),
        ("flag_value", {"extra_args": ["--kv-cache-dtype=fp9"]}, "fp9", "did you mean fp8?"),
        ("flag_value", {"extra_args": ["--kv-cache-dtype"]}, "--kv-cache-dtype", "equals sign"),
        ("flag_value", {"extra_args": ["--compilation-config.mode"]}, "--compilation-config.mode", "equals sign"),
        ("flag_owned", {"extra_args": ["--model-loader-extra-config.concurrency=4"]}, "--model-loader-extra-config.concurrency=4", "remove it from extra_args"),
        ("flag_owned", {"extra_args": ["--data-parallel-size=2"]}, "--data-parallel-size=2", "remove it from extra_args"),
        ("flag_owned", {"extra_args": ["--nnodes=2"]}, "--nnodes=2", "remove it from extra_args"),
        ("flag_unknown", {"extra_args": ["--no-enable-nonsense"]}, "--no-enable-nonsense", "remove or correct"),
        ("gpus", {"tensor_parallel_size": 16}, "16 GPUs", "larger type"),
        ("gpu_memory", {"source": "s3://b/own", "weights": {"size_gib": 60}}, "60 GiB of weights on 1 GPU", "tensor_parallel_size"),
        ("gpus", {"source": "s3://b/own", "tensor_parallel_size": 16}, "16 GPUs", "larger type"),
        ("fit", {"max_model_len": 131072, "tensor_parallel_size": 1, "gpu_names": ["l4"]}, "too little on g6.", "lower max_model_len to 2"),
        ("tensor_parallel", {"tensor_parallel_size": 3}, "tensor_parallel_size 3 with 32 attention heads", "change tensor_parallel_size"),
        ("max_model_len", {"max_model_len": 200000}, "max_model_len 200000", "131072"),
        ("range", {"traffic": {"answer_tokens": 0}}, "traffic.answer_tokens = 0", "correct traffic.answer_tokens"),
        ("range", {"capacity_types": []}, "capacity_types with nothing in it", "on-demand"),
        ("choice", {"capacity_types": ["sport"]}, "sport", "did you mean spot?"),
        ("config", {"config": "acme/does-not-exist"}, "acme/does-not-exist", "config.json"),
        ("host_memory", {"instance_types": ["g5.xlarge"], "config": "Qwen/Qwen3-VL-2B-Instruct"}, "13138Mi", "resources.memory"),
        ("instance_type", {"gpu_names": ["t4g"]}, "arm64", "allow further GPUs"),
        ("instance_type", {"instance_types": ["g6.3xlarge"]}, "g6.3xlarge", "did you mean g6.xlarge?"),
        ("gpu_name", {"gpu_names": ["a10"]}, "a10", "did you mean"),
        ("replicas", {"replicas": {"min": 3, "max": 2}}, "min 3 > replicas.max 2", "swap"),
        ("scale_to_zero", {"replicas": {"min": 0, "max": 2}}, "vLLM itself exports", "http_zero"),
        ("grace", {"termination_grace_seconds": 100}, "100", "raise termination_grace_seconds"),
        ("drain", {"drain_seconds": 0}, "drain_seconds = 0", "longest answer"),
        ("query_label", {"autoscaling": {"query": 'sum(vllm:num_requests_waiting{model="llama"})'}}, "by label model", "use model_name"),
        ("schedule", {"autoscaling": {"schedules": [{"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "replicas": 9}]}}, "9 replicas", "raise replicas.max"),
        ("env_secret", {"env": {"VLLM_API_KEY": "sk-1", "VLLM_USE_V1": "1"}}, "VLLM_API_KEY", "name your Secret in api_key_secret"),
        ("env_secret", {"env": {"HF_TOKEN": "sk-1"}}, "HF_TOKEN", "model_weights_hf_token_secret"),
        ("env_secret", {"env": {"AWS_SESSION_TOKEN": "sk-1"}}, "AWS_SESSION_TOKEN", "EKS Pod Identity"),
        ("image_floor", {"image": "vllm/vllm-openai:v0.6.0"}, "v0.6.0", "v0.33.0"),
        ("source", {"source": "/models/llama"}, "/models/llama", "correct the source"),
        ("weights_mode", {"source": "hf://a/b", "weights": {"mode": "stream"}}, "hf://a/b", "copy the weights to S3"),
        ("name", {"name": "Llama_8B"}, "Llama_8B", "served_model_name"),
        ("range", {"max_num_seqs": 0}, "max_num_seqs = 0", "correct max_num_seqs"),
    ],
)
def test_what_cannot_work_is_refused_with_a_fix(check, change, found, fix):
    row = refused(check, {**STREAMED, **change})
    assert found in row["found"]
    assert fix in row["fix"]
    assert "sk-1" not in str(row)


@pytest.mark.parametrize("namespace", ["", "LLM", "{{ team }}", "a" * 64, "-a"])
def test_a_namespace_that_no_cluster_takes_is_refused_by_name(namespace):
    _models, rows = plan([STREAMED], {}, namespace)
    assert [(row["check"], row["found"]) for row in rows if row["severity"] == "error"] == [("namespace", repr(namespace))]


def test_duplicate_names_are_refused():
    assert refused("duplicate_name", STREAMED, STREAMED)["found"] == "2 models of this name"


def test_missing_source_and_a_non_mapping():
    assert refused("missing_key", {"name": "m"})["fix"] == "set source"
    assert refused("type", "llama")["needed"] == "a mapping"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("vllm/vllm-openai:v0.33.0", (0, 33, 0)),
        ("localhost:5000/vllm/vllm-openai:0.32.1-cu129@sha256:abc", (0, 32, 1)),
        ("vllm/vllm-openai:latest", None),
        ("localhost:5000/vllm", None),
    ],
)
def test_version_is_read_from_the_tag(image, version):
    assert _vllm_args.version_of(image) == version


def test_an_image_without_version_is_a_warning():
    _models, rows = plan([{**STREAMED, "image": "vllm/vllm-openai:latest"}], {}, "llm-serving")
    assert [(row["check"], row["severity"]) for row in rows] == [("image_version", "warning"), ("model_taken_for", "info")]


@pytest.mark.parametrize(
    "argument",
    ["--compilation-config.mode=3", "--speculative-config.method=mtp", "--no-enforce-eager", "--no-enable-prefix-caching", "--no-disable-cascade-attn"],
)
def test_arguments_as_vllm_accepts_them(argument):
    assert _vllm_args.check_extra_args("m", [argument]) == []


def test_every_rendered_flag_exists_in_vllm():
    flags = _data.load("vllm")["flags"]
    for model in planned(STREAMED, {**COPIED, "pipeline_parallel_size": 2}):
        for argument in model["args"][1:]:
            assert argument.split("=")[0] in flags


def test_query_with_scrape_labels_and_quoted_text_is_accepted():
    assert _vllm_args.check_query("m", 'max(vllm:kv_cache_usage_perc{model_name=~"a=b.*",pod!="x"})') == []


def test_share_of_a_node_leaves_room_for_daemonsets():
    instance = _instances.table()["g6.12xlarge"]
    assert instance.share(4) == (47500, 178933 - 1024)
    assert instance.share(1)[0] * 4 <= 47810 - 300


def test_a_replica_gets_the_node_with_the_fewest_gpus_that_are_enough():
    table = _instances.table()
    for model, count in ((STREAMED, 1), (COPIED, 4), ({**COPIED, "tensor_parallel_size": 2}, 4)):
        assert {table[name].gpu_count for name in planned(model)["instance_types"]} == {count}
