# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus makes of the rules: syntax, names, and which alerts fire when."""

import re

import pytest
import yaml
from rendering import DATA, ROLE, metric_names, template, write_rules

SCENARIOS = [s for f in sorted(DATA.glob("scenarios_*.yml")) for s in yaml.safe_load(f.read_text())]
# Labels that tell alerts of one kind apart. Scenarios name all of them that an alert carries.
IDENTITY = (
    "alertname, severity, namespace, pod, model_name, node, gpu, xid, clock_event, reason, deployment, horizontalpodautoscaler, scaledObject, name, container"
)


def alerts(groups: list) -> dict[str, dict]:
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_promtool_accepts_every_rule_without_a_remark(promtool, rule_groups, tmp_path):
    out = promtool("check", "rules", "--lint=all", "--lint-fatal", write_rules(tmp_path / "rules.yml", rule_groups()))
    assert f"{sum(len(g['rules']) for g in rule_groups())} rules found" in out


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s["name"])
def test_exactly_these_alerts_fire(promtool, rule_groups, tmp_path, scenario):
    write_rules(tmp_path / "rules.yml", rule_groups())
    (tmp_path / "guide.yml").write_text((DATA / "guide.rules.yml").read_text())
    series = dict(scenario["series"])
    assert not [v for v in series.values() if re.search(r"(?<![+\w])0x", str(v))], "0x60 is the number 96 once, not sixty zeros: write 0+0x60"
    if scenario.get("cluster_metrics", True):
        series |= {'kube_node_status_capacity{node="cpu-1", resource="cpu"}': "4x600"}
    # ALERTS does not contain the annotations, so a scenario need not repeat them.
    expr = f'group by ({IDENTITY}) (ALERTS{{alertstate="firing", alertname!~"Guide.*"}})'
    test = {
        "rule_files": ["rules.yml", "guide.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": scenario["name"],
                "interval": "1m",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [
                    {"expr": expr, "eval_time": scenario["at"], "exp_samples": [{"labels": f"{{{labels}}}", "value": 1} for labels in scenario["firing"]]},
                    *scenario.get("values", []),
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test, sort_keys=False))
    promtool("test", "rules", tmp_path / "test.yml")


def test_every_alert_fires_in_some_scenario(rule_groups):
    fired = {re.search(r'alertname="(\w+)"', labels)[1] for s in SCENARIOS for labels in s["firing"]}
    assert fired == set(alerts(rule_groups()))


def test_every_alert_is_silent_on_a_healthy_server_that_has_all_its_inputs(rule_groups):
    healthy = next(s for s in SCENARIOS if s["name"] == "healthy busy server")
    assert healthy["firing"] == []
    records = {r["record"]: metric_names(r["expr"]) for g in rule_groups() for r in g["rules"] if "record" in r}
    present = {name.split("{")[0] for name in healthy["series"]}
    for name, rule in alerts(rule_groups()).items():
        for metric in metric_names(rule["expr"]):
            assert records.get(metric, {metric}) & present, f"{name} is silent only because {metric} is missing from the scenario"


def test_names_come_from_the_exporters_lists(rule_groups, allowed_metrics):
    for group in rule_groups():
        for rule in group["rules"]:
            assert metric_names(rule["expr"]) <= allowed_metrics, rule.get("alert") or rule["record"]


def test_alerts_say_how_bad_what_to_do_and_where(rule_groups):
    fired = {re.search(r'alertname="(\w+)"', labels)[1]: set(re.findall(r"(\w+)=", labels)) for s in SCENARIOS for labels in s["firing"]}
    for name, rule in alerts(rule_groups()).items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["labels"]["action"], name
        assert rule["annotations"]["description"].endswith("."), name
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert used - {"UUID", "modelName"} <= fired[name], f"{name} prints labels that it does not carry"


def test_no_rule_reads_a_label_that_exporters_changed(rule_groups):
    text = " ".join(rule["expr"] for group in rule_groups() for rule in group["rules"])
    assert not re.search(r"(?i)hostname|driver_version|err_code|DCGM_FI_DEV_FB_(USED|FREE)\s*[<>]", text)


def test_a_rule_set_can_be_left_out(rule_groups):
    assert {g["name"] for g in rule_groups(gpu_monitoring_rules=["vllm"])} == {"llm-vllm-records", "llm-vllm-alerts"}


def test_thresholds_reach_the_rules(promtool, rule_groups, tmp_path):
    groups = rule_groups(
        gpu_monitoring_ttft_seconds="5",
        gpu_monitoring_ttft_objective="0.99",
        gpu_monitoring_model_namespaces=["a", "b"],
        gpu_monitoring_start_budget_seconds="600",
    )
    promtool("check", "rules", write_rules(tmp_path / "rules.yml", groups))
    found = alerts(groups)
    assert "> 0.144" in found["VLLMTTFTBudgetBurnFast"]["expr"]
    assert "99 % within 5.0 s" in found["VLLMTTFTBudgetBurnFast"]["annotations"]["description"]
    assert 'namespace=~"a|b"' in found["VLLMModelDown"]["expr"]
    assert "offset 600s" in found["VLLMModelDown"]["expr"]
    assert 'le="5.0"' in str(groups)


def test_xid_lists_follow_nvidias_catalogue():
    """Data: buckets of the catalogue, reduced. What differs from them is explained in the role's argument_specs."""
    buckets = yaml.safe_load((DATA / "xid_buckets.yml").read_text())["buckets"]
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    replace, restart = set(defaults["gpu_monitoring_xids_replace_node"]), set(defaults["gpu_monitoring_xids_restart_pod"])
    assert restart == set(buckets["RESTART_APP"]) | {45, 109}
    assert set(buckets["RESET_GPU"]) - {109} | {n for b in ("RESTART_BM", "RESTART_VM", "WORKFLOW_NVLINK5_ERR") for n in buckets[b]} <= replace
    assert not replace & (set(buckets["RESTART_APP"]) | set(buckets["IGNORE"]))
    assert not restart & set(buckets["IGNORE"])


def test_ttft_buckets_are_those_of_the_real_page():
    page = DATA.parents[4] / "shared" / "facts" / "data" / "vllm_metrics_0.33.0.txt"
    if not page.exists():
        pytest.skip(f"{page} is not here; the buckets were taken from it")
    found = [float(b) for b in re.findall(r'time_to_first_token_seconds_bucket\{[^}]*le="([0-9.]+)"', page.read_text())]
    assert template("gpu_monitoring_ttft_buckets") == found
