# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

STREAMED = {"name": "llama", "source": "s3://acme/llama/", "weights": {"size_gib": 15}, "replicas": {"min": 1, "max": 4}}
COPIED = {"name": "qwen", "source": "hf://Qwen/Qwen3-32B@v1", "tensor_parallel_size": 4, "weights": {"size_gib": 61}}


def by_kind(objects, kind, name):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


@pytest.fixture
def servers(render, planned):
    return lambda *models, **variables: render("vllm", "servers.yaml.j2", __vllm_present=planned(*models), **variables)


def pod(objects, name):
    return by_kind(objects, "Deployment", name)["spec"]["template"]["spec"]


def test_objects_of_one_model(servers):
    assert [(o["kind"], o["metadata"]["name"]) for o in servers(STREAMED)] == [
        ("Namespace", "llm-serving"),
        ("ServiceAccount", "llama"),
        ("NetworkPolicy", "llama"),
        ("Service", "llama"),
        ("PodDisruptionBudget", "llama"),
        ("Deployment", "llama"),
    ]


def test_replicas_belong_to_the_autoscaler_where_there_is_one(servers):
    objects = servers(STREAMED, COPIED)
    assert "replicas" not in by_kind(objects, "Deployment", "llama")["spec"]
    assert by_kind(objects, "Deployment", "qwen")["spec"]["replicas"] == 1


def test_surge_only_with_a_spare_gpu(servers):
    assert by_kind(servers(COPIED, vllm_spare_gpus=3), "Deployment", "qwen")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert by_kind(servers(COPIED, vllm_spare_gpus="4"), "Deployment", "qwen")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_probes_and_grace_add_up(servers):
    spec = pod(servers(STREAMED), "llama")
    server = spec["containers"][0]
    assert server["startupProbe"]["failureThreshold"] * server["startupProbe"]["periodSeconds"] == 480
    assert server["startupProbe"]["terminationGracePeriodSeconds"] == server["livenessProbe"]["terminationGracePeriodSeconds"] == 30
    assert {"name": "VLLM_ENGINE_READY_TIMEOUT_S", "value": "480"} in server["env"]
    drain = next(int(a.split("=")[1]) for a in server["args"] if a.startswith("--shutdown-timeout="))
    assert spec["terminationGracePeriodSeconds"] >= server["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + 30


def test_the_server_runs_without_privileges_on_a_read_only_root(servers):
    spec = pod(servers(STREAMED), "llama")
    server = spec["containers"][0]
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsUser"] == 2000
    assert server["securityContext"]["readOnlyRootFilesystem"] is True
    assert {m["mountPath"] for m in server["volumeMounts"]} == {"/dev/shm", "/home/vllm", "/tmp"}
    assert "command" not in server
    assert server["resources"]["limits"] == {"memory": "28293Mi", "nvidia.com/gpu": "1"}


def test_the_key_comes_from_a_secret(servers, render, planned):
    server = pod(servers(STREAMED), "llama")["containers"][0]
    assert {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "llama-api-key", "key": "api-key"}}} in server["env"]
    keys = render("vllm", "api_keys.yaml.j2", __vllm_present=planned(STREAMED, COPIED), vllm_api_keys={"qwen": 1234})
    assert by_kind(keys, "Secret", "qwen-api-key")["stringData"] == {"api-key": "1234"}
    assert len(by_kind(keys, "Secret", "llama-api-key")["stringData"]["api-key"]) == 40


def test_a_secret_of_the_user_is_neither_made_nor_removed(render, planned):
    models = planned({**STREAMED, "api_key_secret": {"name": "mine"}})
    assert [o["kind"] for o in render("vllm", "api_keys.yaml.j2", __vllm_present=models)] == ["Namespace"]
    assert "Secret" not in [o["kind"] for o in render("vllm", "leaving.yaml.j2", __vllm_leaving=models)]


def test_a_copied_model_waits_for_its_marker_and_reads_only(servers):
    spec = pod(servers(COPIED), "qwen")
    assert spec["initContainers"][0]["command"] == ["test", "-f", "/models/qwen/v1/.llmops-weights.json"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "qwen-weights", "readOnly": True}} in spec["volumes"]


@pytest.fixture
def let_in(servers):
    """let_in(model, variable=value) -> [(namespaces, pod labels or None)] of the sources that the NetworkPolicy lets in; None when there is no rule."""

    def call(model, **variables):
        rules = by_kind(servers(model, **variables), "NetworkPolicy", "llama")["spec"]["ingress"]
        if not rules:
            return None
        (rule,) = rules
        assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
        return [
            (s["namespaceSelector"]["matchExpressions"][0]["values"], s["podSelector"]["matchLabels"] if "podSelector" in s else None) for s in rule["from"]
        ]

    return call


SCRAPER = (["monitoring"], {"app.kubernetes.io/name": "prometheus"})


def test_only_named_namespaces_and_the_scraper_get_in(let_in):
    assert let_in(STREAMED) == [(["llm-serving"], None), SCRAPER]
    assert let_in(STREAMED, vllm_client_namespaces=["chat"]) == [(["chat"], None), SCRAPER]
    assert let_in(STREAMED, vllm_client_namespaces=[]) == [SCRAPER]
    assert let_in(STREAMED, vllm_scraper_namespaces=["o11y"], vllm_scraper_pod_labels={}) == [(["llm-serving"], None), (["o11y"], {})]
    assert let_in(STREAMED, vllm_scraper_namespaces=[]) == [(["llm-serving"], None)]
    assert let_in(STREAMED, vllm_client_namespaces=[], vllm_scraper_namespaces=[]) is None


def test_the_interceptor_gets_in_where_requests_come_through_it(let_in):
    zero = {**STREAMED, "replicas": {"min": 0, "max": 2}, "autoscaling": {"mode": "http_zero"}}
    assert let_in(zero, vllm_interceptor_namespace="kedify") == [(["llm-serving", "kedify"], None), SCRAPER]


def test_the_region_has_the_names_that_both_kinds_of_sdk_read(servers):
    env = {e["name"]: e.get("value") for e in pod(servers(STREAMED, vllm_region="eu-central-1"), "llama")["containers"][0]["env"]}
    assert env["AWS_REGION"] == env["AWS_DEFAULT_REGION"] == "eu-central-1"
    assert "AWS_REGION" not in {e["name"] for e in pod(servers(STREAMED), "llama")["containers"][0]["env"]}


def test_only_a_model_that_may_be_at_zero_may_have_no_replica(render, planned):
    zero = {**STREAMED, "replicas": {"min": 0, "max": 2}, "autoscaling": {"mode": "http_zero"}}
    (rows,) = render("vllm", "endpoints.yaml.j2", __vllm_present=planned(COPIED, zero))
    assert [row["idle_allowed"] for row in rows] == [False, True]


def test_what_is_removed_is_what_was_made(servers, render, planned):
    made = {(o["kind"], o["metadata"]["name"]) for o in servers(STREAMED)} | {("Secret", "llama-api-key")}
    removed = render("vllm", "leaving.yaml.j2", __vllm_leaving=planned({"name": "llama", "state": "absent"}))
    assert {(o["kind"], o["metadata"]["name"]) for o in removed} == made


def test_every_environment_value_is_text(servers):
    server = pod(servers({**STREAMED, "env": {"NCCL_DEBUG": "INFO", "N": 3, "ON": True}}), "llama")["containers"][0]
    assert all(isinstance(e.get("value", ""), str) for e in server["env"])
    assert {"name": "ON", "value": "true"} in server["env"]


def test_the_wait_lasts_as_long_as_replacing_all_replicas_one_after_another(value, planned):
    llama, _qwen = models = planned(STREAMED, {**COPIED, "replicas": {"min": 1, "max": 1}})
    one = {m["name"]: m["budgets"]["startup"] + m["budgets"]["grace"] for m in models}
    assert int(value("vllm", "__vllm_rollout_seconds", __vllm_present=[llama], vllm_node_start_seconds="900")) == 900 + 4 * one["llama"]
    assert int(value("vllm", "__vllm_rollout_seconds", __vllm_present=models)) == 900 + max(4 * one["llama"], one["qwen"])


def test_a_model_that_only_left_the_list_is_seen(value, planned):
    found = {"resources": [{"metadata": {"name": name}} for name in ("llama", "qwen", "old")]}
    lists = {"__vllm_present": planned(STREAMED), "__vllm_leaving": planned({"name": "qwen", "state": "absent"})}
    assert value("vllm", "__vllm_unlisted", __vllm_found=found, **lists) == ["old"]
    assert value("vllm", "__vllm_unlisted", __vllm_found={"resources": []}, **lists) == []
