# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

MODEL = {"name": "llama", "source": "s3://acme/llama/", "max_num_seqs": 40, "weights": {"size_gib": 15}, "replicas": {"min": 1, "max": 4}}
ZERO = {**MODEL, "replicas": {"min": 0, "max": 2}, "autoscaling": {"mode": "http_zero"}}


@pytest.fixture
def scalers(render, planned):
    def call(model, **variables):
        known = {"__keda_scaler_scaled": planned(model), "keda_scaler_prometheus_url": "http://prometheus.monitoring.svc:9090"}
        return {o["kind"]: o for o in render("keda_scaler", "scalers.yaml.j2", **known, **variables)}

    return call


def test_the_trigger_counts_demand_and_a_spare(scalers):
    (trigger,) = scalers(MODEL)["ScaledObject"]["spec"]["triggers"]
    assert trigger["metricType"] == "AverageValue"
    assert trigger["metadata"]["threshold"] == "24"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["query"].endswith(" + 24")
    assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold", "ignoreNullValues"}
    assert "authenticationRef" not in trigger


def test_with_a_minimum_of_one_there_is_a_fallback_and_no_polling(scalers):
    spec = scalers(MODEL)["ScaledObject"]["spec"]
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher"}
    assert {"pollingInterval", "cooldownPeriod"} & set(spec) == set()
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0


def test_zero_goes_through_the_http_addon(scalers):
    objects = scalers(ZERO, keda_scaler_idle_seconds=60)
    assert list(objects) == ["InterceptorRoute", "ScaledObject"]
    spec = objects["ScaledObject"]["spec"]
    assert "fallback" not in spec
    assert spec["cooldownPeriod"] == 540  # the start budget of 480 s and a minute
    assert spec["triggers"][0]["metadata"]["query"].endswith("or vector(0)")
    assert spec["triggers"][1]["metadata"]["interceptorRoute"] == "llama"
    assert objects["InterceptorRoute"]["spec"]["target"] == {"service": "llama", "port": 8000}


def test_schedules_become_minimums(scalers):
    schedule = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "replicas": 3, "timezone": "Europe/Berlin"}
    trigger = scalers({**MODEL, "autoscaling": {"schedules": [schedule]}})["ScaledObject"]["spec"]["triggers"][1]
    assert trigger["metadata"] == {"timezone": "Europe/Berlin", "start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "desiredReplicas": "3"}


def test_a_login_comes_with_its_modes(scalers):
    objects = scalers(MODEL, keda_scaler_prometheus_auth="basic", keda_scaler_prometheus_secret="prom")
    assert [t["parameter"] for t in objects["TriggerAuthentication"]["spec"]["secretTargetRef"]] == ["username", "password"]
    trigger = objects["ScaledObject"]["spec"]["triggers"][0]
    assert (trigger["metadata"]["authModes"], trigger["authenticationRef"]) == ("basic", {"name": "llm-prometheus"})


def test_amazon_managed_prometheus_is_signed_for_its_region(scalers):
    objects = scalers(MODEL, keda_scaler_prometheus_auth="sigv4", keda_scaler_region="eu-west-1")
    assert objects["TriggerAuthentication"]["spec"] == {"podIdentity": {"provider": "aws"}}
    assert objects["ScaledObject"]["spec"]["triggers"][0]["metadata"]["awsRegion"] == "eu-west-1"


def test_what_is_of_no_use_any_more_is_removed(render, planned):
    def leaving(*scaled, **variables):
        known = {"__keda_scaler_scaled": planned(*scaled), "__keda_scaler_others": []}
        return [o["kind"] for o in render("keda_scaler", "leaving.yaml.j2", **known, **variables)]

    assert leaving(MODEL) == ["TriggerAuthentication", "InterceptorRoute"]
    assert leaving(ZERO, keda_scaler_prometheus_auth="bearer") == []


def test_the_check_knows_which_models_need_the_addon(render, planned):
    (rows,) = render("keda_scaler", "queries.yaml.j2", __keda_scaler_scaled=planned(MODEL, {**ZERO, "name": "zero"}))
    assert [(row["name"], row["min"], row["http_route"]) for row in rows] == [("llama", 1, False), ("zero", 0, True)]


def test_what_is_shown(render):
    asked = [{"name": "a", "value": 38.0, "threshold": 8.0, "replicas": 5}, {"name": "b", "value": None, "threshold": 8.0, "replicas": None}]
    (lines,) = render("keda_scaler", "shown.yaml.j2", __keda_scaler_asked={"scalers": asked})
    assert lines == ["a: 38 at 8 a replica, so 5 wanted now", "b: nothing reports, it is at zero"]


def test_what_is_removed_is_what_was_made(scalers, render, planned):
    made = set(scalers(ZERO))
    removed = render("keda_scaler", "leaving.yaml.j2", __keda_scaler_others=planned({"name": "llama", "state": "absent"}), __keda_scaler_scaled=[])
    assert {o["kind"] for o in removed} == made | {"TriggerAuthentication"}
