# SPDX-License-Identifier: GPL-3.0-or-later
import pytest

ROLE = "gpu_operator"
ON = {"enabled": True}
OFF = {"enabled": False}


def node(name="gpu-1", kind="al2023", state="ready", taints=("nvidia.com/gpu",)):
    return {"name": name, "ami_kind": kind, "state": state, "taints": [{"key": key} for key in taints]}


def nodes(*found):
    return {"nodes": list(found)}


def classes(*aliases, auto_mode=False):
    """What the two look-ups for nodes to come return."""
    found = [{"spec": {"amiSelectorTerms": [{"alias": alias}]}} for alias in aliases]
    return {"results": [{"resources": found, "api_found": bool(aliases)}, {"resources": [], "api_found": auto_mode}]}


@pytest.mark.parametrize(
    ("variables", "kinds"),
    [
        ({"__gpu_operator_nodes": nodes(node(), node("gpu-2"))}, ["al2023"]),
        ({"__gpu_operator_nodes": nodes(node(kind="bottlerocket")), "llm_ami_alias": "al2023@v20260714"}, ["bottlerocket"]),
        ({"__gpu_operator_nodes": nodes(node(kind="auto"))}, ["auto_mode"]),
        ({"__gpu_operator_nodes": nodes(node(), node("gpu-2", "ubuntu"))}, ["al2023", "ubuntu"]),
        ({"__gpu_operator_nodes": nodes(node()), "gpu_operator_ami_kind": "ubuntu"}, ["ubuntu"]),
        ({"__gpu_operator_classes": classes("bottlerocket@1.61.0")}, ["bottlerocket"]),
        ({"__gpu_operator_classes": classes("bottlerocket@1.61.0", auto_mode=True)}, ["bottlerocket"]),
        ({"__gpu_operator_classes": classes(auto_mode=True)}, ["auto_mode"]),
        ({"__gpu_operator_classes": classes()}, ["al2023"]),
        ({"__gpu_operator_classes": classes(), "llm_ami_alias": "bottlerocket@1.61.0"}, ["bottlerocket"]),
        ({"__gpu_operator_classes": classes(), "gpu_operator_planned_ami_kind": "ubuntu"}, ["ubuntu"]),
        ({"__gpu_operator_classes": {"skipped": True}}, ["al2023"]),
    ],
)
def test_the_kind_is_that_of_the_nodes_present_or_planned(value, variables, kinds):
    assert value(ROLE, "__gpu_operator_kinds", **{"__gpu_operator_nodes": nodes(), **variables}) == kinds


@pytest.mark.parametrize(
    ("kind", "driver", "toolkit", "plugin"),
    [("al2023", OFF, OFF, ON), ("bottlerocket", OFF, OFF, OFF), ("ubuntu", ON, ON, ON)],
)
def test_values_switch_on_what_the_image_lacks(value, kind, driver, toolkit, plugin):
    values = value(ROLE, "__gpu_operator_values", __gpu_operator_kind=kind)
    assert (values["driver"], values["toolkit"], values["devicePlugin"]) == (driver, toolkit, plugin)


def test_every_taint_is_tolerated_by_the_daemonsets_and_by_feature_discovery(value):
    own = {"key": "team", "operator": "Exists"}
    values = value(ROLE, "__gpu_operator_values", __gpu_operator_kind="al2023", gpu_operator_tolerations=[own])
    assert values["daemonsets"]["tolerations"] == values["node-feature-discovery"]["worker"]["tolerations"]
    assert [toleration["key"] for toleration in values["daemonsets"]["tolerations"]] == ["nvidia.com/gpu", "team"]


def exporter(value, **variables):
    return value(ROLE, "__gpu_operator_values.dcgmExporter", __gpu_operator_kind="al2023", **variables)


def test_a_monitor_is_made_only_on_demand_because_gpu_monitoring_has_one(value):
    monitor = exporter(value, gpu_operator_monitoring_release="prom")["serviceMonitor"]
    assert (monitor["enabled"], monitor["additionalLabels"]) == (True, {"release": "prom"})
    assert exporter(value, llm_monitoring_release="prom")["serviceMonitor"]["enabled"] is False


def test_the_exporter_reads_the_roles_counters_or_others(value):
    config = exporter(value)["config"]
    # The chart puts the text under the key dcgm-metrics.csv; a map would end its template.
    assert (config["create"], config["name"]) == (True, "llm-dcgm-metrics")
    assert isinstance(config["data"], str)
    assert "config" not in exporter(value, gpu_operator_dcgm_counters="false")
    own = {"dcgmExporter": {"config": {"create": False, "name": "own"}}}
    assert exporter(value, gpu_operator_dcgm_counters=False, gpu_operator_values=own)["config"] == {"create": False, "name": "own"}


@pytest.mark.parametrize("profiling", [True, False])
def test_every_counter_line_has_the_three_fields_that_the_exporter_wants(value, profiling):
    csv = exporter(value, gpu_operator_dcgm_profiling=profiling)["config"]["data"]
    lines = [line.split(",") for line in csv.splitlines() if not line.startswith("#")]
    assert all(len(fields) == 3 and fields[1].strip() in ("gauge", "counter") for fields in lines), lines
    assert len({fields[0] for fields in lines}) == len(lines)
    assert any(fields[0].startswith("DCGM_FI_PROF_") for fields in lines) is profiling
    assert "DCGM_FI_PROF_PIPE_FP64_ACTIVE" not in [fields[0] for fields in lines]


@pytest.fixture
def problems(render, value):
    def call(**variables) -> list[str]:
        known = {"__gpu_operator_nodes": nodes(), "__gpu_operator_classes": {"skipped": True}, "__gpu_operator_release": {"status": {}}, **variables}
        known["__gpu_operator_kind"] = value(ROLE, "__gpu_operator_kinds | first", **known)
        rows = render(ROLE, "problems.yaml.j2", **known)
        return [f"{row['subject']}: found {row['found']}; needed {row['needed']}; fix: {row['fix']}" for row in (rows[0] if rows else [])]

    return call


def release(chart):
    return {"status": {"chart": chart}}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"__gpu_operator_nodes": nodes(node(kind="al2"))},
            "gpu-1: found AMI kind al2; needed al2023, bottlerocket or ubuntu, because AL2 ended on 2025-11-26",
        ),
        ({"__gpu_operator_nodes": nodes(node(kind="unknown"))}, "gpu-1: found AMI kind unknown"),
        ({"gpu_operator_planned_ami_kind": "al2"}, "gpu_operator_planned_ami_kind: found AMI kind al2"),
        ({"__gpu_operator_nodes": nodes(node(), node("gpu-2", "ubuntu"))}, "found kinds al2023, ubuntu; needed one kind"),
        ({"__gpu_operator_nodes": nodes(node()), "gpu_operator_ami_kind": "ubuntu"}, "gpu-1: found AMI kind al2023; needed ubuntu"),
        ({"gpu_operator_values": {"driver": {"enabled": True}}}, "found driver.enabled is True instead of False; needed what al2023 nodes lack"),
        ({"gpu_operator_ami_kind": "bottlerocket", "gpu_operator_values": {"devicePlugin": ON}}, "found devicePlugin.enabled is True instead of False"),
        ({"gpu_operator_ami_kind": "ubuntu", "gpu_operator_values": {"toolkit": OFF}}, "found toolkit.enabled is False instead of True"),
        ({"__gpu_operator_release": release("gpu-operator-v25.3.4")}, "found release 25.3 installed; needed the same major or the one before 26.7"),
        ({"__gpu_operator_release": release("gpu-operator-v25.3.4")}, "in steps over 25.10, 26.3, or"),
        # Older than the list, and newer than the list.
        ({"__gpu_operator_release": release("gpu-operator-v23.9.2")}, "in steps over 24.6, 24.9, 25.3, 25.10, 26.3, or"),
        ({"__gpu_operator_release": release("gpu-operator-v26.3.3"), "gpu_operator_chart_version": "v26.10.0"}, "in steps over 26.7, or"),
        ({"__gpu_operator_release": release("gpu-operator-v26.7.1"), "gpu_operator_chart_version": "v26.3.3"}, "the operator cannot go back"),
        ({"gpu_operator_chart_version": ""}, "found no version; needed a version such as"),
    ],
)
def test_what_cannot_work_is_refused(problems, variables, says):
    (found,) = problems(**variables)
    assert says in found


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"__gpu_operator_nodes": nodes(node())},
        {"__gpu_operator_nodes": nodes(node(kind="auto"))},
        # Only a part of the nodes is of another kind: the user has labelled them.
        {"__gpu_operator_nodes": nodes(node(), node("gpu-2", "bottlerocket")), "gpu_operator_ami_kind": "al2023"},
        {"__gpu_operator_nodes": nodes(node(kind="unknown")), "gpu_operator_ami_kind": "ubuntu"},
        {"gpu_operator_values": {"driver": {"enabled": False}, "migManager": {"enabled": True}}},
        {"__gpu_operator_release": release("gpu-operator-v26.7.0")},
        {"__gpu_operator_release": release("gpu-operator-v26.3.3")},
        {"__gpu_operator_release": release("gpu-operator-v26.7.2"), "gpu_operator_chart_version": "v26.10.0"},
        {"__gpu_operator_release": release("gpu-operator-v25.3.4"), "gpu_operator_ami_kind": "auto_mode"},
    ],
)
def test_what_can_work_is_accepted(problems, variables):
    assert problems(**variables) == []


@pytest.fixture
def rollouts(render):
    def call(*found, kind="al2023", **variables):
        rows = render(ROLE, "rollouts.yaml.j2", __gpu_operator_nodes=nodes(*found), __gpu_operator_kind=kind, **variables)
        return rows[0] if rows else []

    return call


def test_the_policy_is_waited_for_by_state_and_reason(rollouts):
    (policy,) = rollouts()
    assert policy["condition"] == {"type": "Ready", "status": "True", "reason": ["Reconciled", "NoGPUNodes"]}
    assert policy["fields"] == [{"path": ["status", "state"], "value": "ready"}]


def test_with_gpu_nodes_no_policy_may_say_that_there_are_none(rollouts):
    assert rollouts(node())[0]["condition"]["reason"] == ["Reconciled"]
    assert rollouts(gpu_operator_expect_gpu_nodes=True)[0]["condition"]["reason"] == ["Reconciled"]
    # A node that is not Ready, or only planned, says nothing.
    assert rollouts(node(state="not_ready"), node(state="planned"))[0]["condition"]["reason"] == ["Reconciled", "NoGPUNodes"]


def test_a_node_without_gpus_is_waited_for_and_its_taints_are_told(rollouts):
    found = rollouts(node(), node("gpu-2", state="no_device_plugin", taints=("nvidia.com/gpu", "team")))
    assert [(row["kind"], row["name"]) for row in found] == [("ClusterPolicy", "cluster-policy"), ("Node", "gpu-2")]
    (field,) = found[1]["fields"]
    assert field["path"] == ["status", "allocatable", "nvidia.com/gpu"]
    assert "its taints nvidia.com/gpu, team must be in gpu_operator_tolerations" in field["fix"]


def test_auto_mode_has_no_policy_but_nodes(rollouts):
    assert rollouts(node(kind="auto"), kind="auto_mode") == []
    assert [row["kind"] for row in rollouts(node(state="no_device_plugin"), kind="auto_mode")] == ["Node"]


def test_the_live_spec_is_compared_where_the_chart_keeps_the_names(render):
    values = {
        "driver": {"nvidiaDriverCRD": {"enabled": False}, "upgradePolicy": {"autoUpgrade": False}, "version": "580.173.02"},
        "devicePlugin": {"config": {"create": True, "name": "sharing", "data": {"a": "x"}, "default": "a"}},
        "operator": {"logging": {"level": "debug"}},
    }
    (policy,) = render(ROLE, "policy.json.j2", __gpu_operator_kind="al2023", gpu_operator_values=values)
    assert policy["driver"] == {"enabled": False, "version": "580.173.02"}
    assert policy["devicePlugin"] == {"enabled": True, "config": {"name": "sharing", "default": "a"}}
    assert policy["daemonsets"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert policy["validator"]["plugin"]["env"] == [{"name": "WITH_WORKLOAD", "value": "false"}]
    assert not {"operator", "node-feature-discovery"} & set(policy)
