# SPDX-License-Identifier: GPL-3.0-or-later
"""Dashboards that Grafana can load and whose every expression Prometheus understands. Grafana itself is not run here."""

import json
import re

import pytest
from rendering import metric_names, write_rules


@pytest.fixture
def dashboards(objects) -> dict[str, dict]:
    """Dashboard by uid, read out of the ConfigMaps."""
    found = [json.loads(text) for o in objects() if "grafana_dashboard" in o["metadata"]["labels"] for text in o["data"].values()]
    assert len({d["uid"] for d in found}) == len(found) == 2
    return {d["uid"]: d for d in found}


def targets(dashboards):
    return [(f"{uid}: {p['title']}", t) for uid, d in dashboards.items() for p in d["panels"] for t in p["targets"]]


def plain(expr: str) -> str:
    """The expression with Grafana's variables filled in."""
    return re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", "5m"))


def test_uids_are_stable(dashboards):
    assert set(dashboards) == {"llm-vllm", "llm-gpu"}


def test_the_data_source_is_a_variable_everywhere(dashboards):
    for uid, dashboard in dashboards.items():
        assert dashboard["schemaVersion"] >= 39, uid
        assert dashboard["templating"]["list"][0]["type"] == "datasource", uid
        queries = [v for v in dashboard["templating"]["list"] if v["type"] == "query"]
        for part in [*queries, *dashboard["panels"], *(t for p in dashboard["panels"] for t in p["targets"])]:
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, part.get("title", part.get("name"))


def test_every_panel_says_what_it_shows_in_which_unit(dashboards):
    for uid, dashboard in dashboards.items():
        for panel in dashboard["panels"]:
            assert panel["title"], uid
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["type"] in ("timeseries", "stat"), panel["title"]
        assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"]), uid


def test_panels_do_not_overlap(dashboards):
    for uid, dashboard in dashboards.items():
        cells = [
            (x, y)
            for p in dashboard["panels"]
            for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
            for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
        ]
        assert len(set(cells)) == len(cells), uid
        assert max(x for x, _ in cells) < 24, uid


def test_prometheus_parses_every_expression(promtool, dashboards, tmp_path):
    rules = [{"record": f"panel:{n}", "expr": plain(t["expr"])} for n, (_, t) in enumerate(targets(dashboards))]
    out = promtool("check", "rules", write_rules(tmp_path / "panels.yml", [{"name": "panels", "rules": rules}]))
    assert f"{len(rules)} rules found" in out


def test_panels_use_series_that_exist(dashboards, allowed_metrics):
    for panel, target in targets(dashboards):
        assert metric_names(plain(target["expr"])) <= allowed_metrics, panel
    for dashboard in dashboards.values():
        for variable in dashboard["templating"]["list"][1:]:
            source = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert metric_names(plain(source[1])) <= allowed_metrics, variable["name"]


def test_variables_and_panels_belong_together(dashboards):
    for uid, dashboard in dashboards.items():
        names = {v["name"] for v in dashboard["templating"]["list"]}
        text = json.dumps(dashboard)
        used = set(re.findall(r"\$\{?([a-z]\w*)", text))
        assert used == names, uid


def test_no_panel_reads_what_exporters_changed(dashboards):
    for panel, target in targets(dashboards):
        assert not re.search(r"(?i)hostname|err_code|DCGM_FI_DEV_FB|instance", json.dumps(target)), panel


def test_rates_follow_the_resolution(dashboards):
    for panel, target in targets(dashboards):
        assert re.findall(r"\[(.*?)\]", target["expr"]) == ["$__rate_interval"] * target["expr"].count("rate("), panel
