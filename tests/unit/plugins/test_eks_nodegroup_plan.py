# SPDX-License-Identifier: GPL-3.0-or-later
"""What eks_nodegroup decides: options in, calls out. No AWS."""

import re

import botocore.session
import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _eks_nodegroup_options as options
from ansible_collections.llmops.eks.plugins.module_utils import _eks_nodegroup_plan as planner
from ansible_collections.llmops.eks.plugins.module_utils._eks import Call
from botocore.validate import validate_parameters

IDENT = {"clusterName": "demo", "nodegroupName": "gpu"}
ROLE = "arn:aws:iam::123456789012:role/nodes"
GPU_TAINT = {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}
# As the API shows a group for which only the necessary was ever said: no updateConfig, no nodeRepairConfig, no taints.
LIVE = {
    **IDENT,
    "nodegroupArn": "arn:aws:eks:us-east-1:123456789012:nodegroup/demo/gpu/1",
    "status": "ACTIVE",
    "amiType": "AL2023_x86_64_NVIDIA",
    "instanceTypes": ["g6.2xlarge", "g6.4xlarge"],
    "subnets": ["subnet-a", "subnet-b"],
    "nodeRole": ROLE,
    "diskSize": 200,
    "version": "1.35",
    "releaseVersion": "1.35.6-20260714",
    "scalingConfig": {"minSize": 1, "maxSize": 4, "desiredSize": 3},
    "labels": {"Team/Name": "ML"},
    "tags": {"CostCenter": "7"},
}
TEMPLATE = {"id": "lt-1", "name": "gpu", "version": "3"}


def want(**params):
    return options.wanted(params)


def plan(live=LIVE, **params):
    more = {k: params.pop(k) for k in ("purge_tags", "force") if k in params}
    return planner.plan_present(live, want(**params), "demo", "gpu", **more)


def operations(result):
    return [c.operation for c in result.calls]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ami_type": "AL2023_x86_64_NVIDIA", "capacity_type": "ON_DEMAND", "node_role": ROLE, "disk_size": 200},
        {"version": "1.35", "release_version": "1.35.6-20260714"},
        {"subnets": ["subnet-b", "subnet-a"], "instance_types": ["g6.4xlarge", "g6.2xlarge"]},
        {"scaling": {"min_size": 1, "max_size": 4, "desired_size": 1}},
        {"labels": {"Team/Name": "ML"}, "taints": [], "tags": {"CostCenter": 7}},
        {"update_config": {"max_unavailable": 1, "update_strategy": "DEFAULT"}},
        {"node_repair": {"enabled": False}},
        {"node_repair": {"enabled": False, "overrides": []}},
        {"remote_access": {}},
    ],
    ids=lambda p: ",".join(p) or "nothing",
)
def test_equal_is_unchanged_even_where_the_api_shows_nothing(params):
    result = plan(**params)
    assert result.calls == []
    assert result.problems == []
    assert result.before == result.after


@pytest.mark.parametrize(
    ("params", "operation", "change"),
    [
        ({"labels": {"Team/Name": "Ops", "new": True}}, "UpdateNodegroupConfig", {"labels": {"addOrUpdateLabels": {"Team/Name": "Ops", "new": "true"}}}),
        ({"labels": {}}, "UpdateNodegroupConfig", {"labels": {"removeLabels": ["Team/Name"]}}),
        (
            {"taints": [{"key": "nvidia.com/gpu", "value": True, "effect": "NoSchedule"}]},
            "UpdateNodegroupConfig",
            {"taints": {"addOrUpdateTaints": [GPU_TAINT]}},
        ),
        ({"scaling": {"min_size": 2, "max_size": 4, "desired_size": 2}}, "UpdateNodegroupConfig", {"scalingConfig": {"minSize": 2, "maxSize": 4}}),
        ({"scaling": {"min_size": 4, "max_size": 5}}, "UpdateNodegroupConfig", {"scalingConfig": {"minSize": 4, "maxSize": 5, "desiredSize": 4}}),
        ({"scaling": {"min_size": 0, "max_size": 2}}, "UpdateNodegroupConfig", {"scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 2}}),
        ({"update_config": {"max_unavailable_percentage": 20}}, "UpdateNodegroupConfig", {"updateConfig": {"maxUnavailablePercentage": 20}}),
        ({"update_config": {"update_strategy": "MINIMAL"}}, "UpdateNodegroupConfig", {"updateConfig": {"maxUnavailable": 1, "updateStrategy": "MINIMAL"}}),
        ({"node_repair": {"enabled": True}}, "UpdateNodegroupConfig", {"nodeRepairConfig": {"enabled": True}}),
        ({"version": "1.36"}, "UpdateNodegroupVersion", {"version": "1.36"}),
        ({"release_version": "1.35.6-20260917"}, "UpdateNodegroupVersion", {"version": "1.35", "releaseVersion": "1.35.6-20260917"}),
        ({"release_version": "1.36.2-20260917"}, "UpdateNodegroupVersion", {"version": "1.36", "releaseVersion": "1.36.2-20260917"}),
    ],
)
def test_one_difference_is_one_call_with_only_that(params, operation, change):
    assert plan(**params).calls == [Call(operation, {**IDENT, **change})]


def test_taints_are_known_by_key_and_effect():
    live = {**LIVE, "taints": [GPU_TAINT, {"key": "old", "effect": "NO_EXECUTE"}, {"key": "same", "effect": "NO_SCHEDULE"}]}
    result = plan(live, taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}, {"key": "same", "effect": "NoSchedule"}])
    assert result.calls[0].params["taints"] == {
        "addOrUpdateTaints": [{**GPU_TAINT, "value": "present"}],
        "removeTaints": [{"key": "old", "effect": "NO_EXECUTE"}],
    }


def test_node_repair_keeps_what_is_not_mentioned_and_exchanges_count_and_percentage():
    live = {**LIVE, "nodeRepairConfig": {"enabled": True, "maxParallelNodesRepairedCount": 1, "maxUnhealthyNodeThresholdCount": 2}}
    result = plan(live, node_repair={"enabled": True, "max_unhealthy_node_threshold_percentage": 30})
    assert result.calls[0].params["nodeRepairConfig"] == {"enabled": True, "maxParallelNodesRepairedCount": 1, "maxUnhealthyNodeThresholdPercentage": 30}


def test_node_repair_overrides_have_no_order():
    one = {
        "node_monitoring_condition": "AcceleratedHardwareReady",
        "node_unhealthy_reason": "NvidiaXID64Error",
        "min_repair_wait_time_mins": 5,
        "repair_action": "Replace",
    }
    two = {**one, "node_unhealthy_reason": "NvidiaXID79Error"}
    shown = want(node_repair={"enabled": True, "overrides": [one, two]})["nodeRepairConfig"]
    assert shown["nodeRepairConfigOverrides"][0] == {
        "nodeMonitoringCondition": "AcceleratedHardwareReady",
        "nodeUnhealthyReason": "NvidiaXID64Error",
        "minRepairWaitTimeMins": 5,
        "repairAction": "Replace",
    }
    live = {**LIVE, "nodeRepairConfig": shown}
    assert plan(live, node_repair={"enabled": True, "overrides": [two, one]}).calls == []
    assert plan(live, node_repair={"enabled": True, "overrides": []}).calls[0].params["nodeRepairConfig"] == {"enabled": True, "nodeRepairConfigOverrides": []}


def test_tags_then_configuration_then_version():
    result = plan(tags={"CostCenter": "8"}, labels={}, version="1.36", force=True)
    assert operations(result) == ["TagResource", "UpdateNodegroupConfig", "UpdateNodegroupVersion"]
    assert result.calls[-1].params["force"] is True
    assert result.after["tags"] == {"CostCenter": "8"}
    assert "releaseVersion" not in result.after  # known only after the update


def test_tags_are_purged_only_when_asked_and_never_those_of_aws():
    live = {**LIVE, "tags": {"aws:cloudformation:stack-name": "x", "CostCenter": "7"}}
    assert plan(live, tags={}).calls == [Call("UntagResource", {"resourceArn": LIVE["nodegroupArn"], "tagKeys": ["CostCenter"]})]
    assert plan(live, tags={}, purge_tags=False).calls == []


def test_a_template_version_pins_kubernetes_and_image():
    live = {**LIVE, "launchTemplate": TEMPLATE}
    result = plan(live, launch_template={"name": "gpu", "version": "4"})
    assert result.calls == [
        Call("UpdateNodegroupVersion", {**IDENT, "version": "1.35", "releaseVersion": "1.35.6-20260714", "launchTemplate": {"id": "lt-1", "version": "4"}})
    ]
    assert plan(live, launch_template={"name": "gpu"}).calls == []
    assert plan(live, version="1.36").calls[0].params["launchTemplate"] == {"id": "lt-1", "version": "3"}


def test_a_custom_image_is_updated_by_the_template_alone():
    live = {**LIVE, "launchTemplate": TEMPLATE, "amiType": "CUSTOM", "releaseVersion": "ami-1"}
    assert plan(live, launch_template={"id": "lt-1", "version": "4"}).calls[0].params == {**IDENT, "launchTemplate": {"id": "lt-1", "version": "4"}}
    assert [p["subject"] for p in plan(live, version="1.36").problems] == ["version, release_version"]


@pytest.mark.parametrize(
    ("live", "params", "subject"),
    [
        ({}, {"ami_type": "BOTTLEROCKET_x86_64_NVIDIA"}, "ami_type"),
        ({}, {"capacity_type": "SPOT"}, "capacity_type"),
        ({}, {"instance_types": ["g6.2xlarge"]}, "instance_types"),
        ({}, {"subnets": ["subnet-a", "subnet-c"]}, "subnets"),
        ({}, {"node_role": ROLE + "2"}, "node_role"),
        ({}, {"disk_size": 100}, "disk_size"),
        ({}, {"remote_access": {"ec2_ssh_key": "key"}}, "remote_access"),
        ({}, {"launch_template": {"name": "gpu"}}, "launch_template"),
        ({"launchTemplate": TEMPLATE}, {"launch_template": {"name": "other"}}, "launch_template.name"),
        ({"launchTemplate": TEMPLATE}, {"launch_template": {"id": "lt-2"}}, "launch_template.id"),
        ({"launchTemplate": TEMPLATE, "diskSize": None}, {"disk_size": 100}, "disk_size"),
        ({}, {"version": "1.34"}, "version"),
        ({"status": "CREATE_FAILED"}, {"labels": {}}, "node group gpu"),
    ],
)
def test_what_cannot_be_changed_is_refused(live, params, subject):
    (row,) = plan({k: v for k, v in {**LIVE, **live}.items() if v is not None}, **params).problems
    assert row["subject"] == subject
    assert row["found"] != row["needed"]
    # A failed one is deleted and made anew; beside one that works, another may be made first.
    assert re.search(r"delete the node group \(state: absent\) and create it again" if "status" in live else r"another name .* delete this one", row["fix"])


def test_instance_types_that_stand_in_the_template_cannot_be_compared():
    live = {k: v for k, v in LIVE.items() if k != "instanceTypes"} | {"launchTemplate": TEMPLATE}
    assert plan(live, instance_types=["p5.48xlarge"]).problems == []


def test_creation_fills_in_what_the_api_wants_complete():
    result = plan(
        None,
        node_role=ROLE,
        subnets=["subnet-a"],
        scaling={"min_size": 2, "max_size": 4},
        labels={},
        tags={"A": 1},
        update_config={"update_strategy": "MINIMAL"},
        taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    )
    assert result.calls == [
        Call(
            "CreateNodegroup",
            {
                **IDENT,
                "nodeRole": ROLE,
                "subnets": ["subnet-a"],
                "scalingConfig": {"minSize": 2, "maxSize": 4, "desiredSize": 2},
                "tags": {"A": "1"},
                "updateConfig": {"maxUnavailable": 1, "updateStrategy": "MINIMAL"},
                "taints": [{"key": "nvidia.com/gpu", "value": "", "effect": "NO_SCHEDULE"}],
            },
        )
    ]
    assert result.before == {}


def test_creation_needs_role_and_subnets():
    assert [p["subject"] for p in plan(None, labels={"a": "b"}).problems] == ["node_role", "subnets"]


def test_custom_is_not_sent_on_creation():
    params = plan(None, node_role=ROLE, subnets=["s"], ami_type="CUSTOM", launch_template={"id": "lt-1"}).calls[0].params
    assert "amiType" not in params


@pytest.mark.parametrize(("live", "expected"), [(None, []), (LIVE, ["DeleteNodegroup"]), ({**LIVE, "status": "DELETING"}, [])])
def test_absent(live, expected):
    assert operations(planner.plan_absent(live, "demo", "gpu")) == expected


@pytest.mark.parametrize(
    ("params", "subject", "text"),
    [
        ({"ami_type": "AL2_x86_64_GPU"}, "ami_type", "2025-11-26"),
        ({"ami_type": "AL2_ARM_64"}, "ami_type", "2025-11-26"),
        ({"ami_type": "CUSTOM"}, "ami_type", "without launch_template"),
        ({"ami_type": "CUSTOM", "launch_template": {"id": "lt"}, "version": "1.36"}, "version, release_version", "CUSTOM"),
        ({"launch_template": {"id": "lt"}, "disk_size": 100}, "disk_size", "beside launch_template"),
        ({"launch_template": {"id": "lt"}, "remote_access": {"ec2_ssh_key": "k"}}, "remote_access", "beside launch_template"),
        ({"capacity_type": "CAPACITY_BLOCK"}, "capacity_type", "without launch_template"),
        ({"capacity_type": "CAPACITY_BLOCK", "launch_template": {"id": "lt"}, "instance_types": ["p5.48xlarge"]}, "instance_types", "CAPACITY_BLOCK"),
        ({"instance_types": ["g6.2xlarge"] * 21}, "instance_types", "21 types"),
        ({"subnets": []}, "subnets", "empty list"),
        ({"disk_size": 0}, "disk_size", "0"),
        ({"scaling": {"min_size": 3, "max_size": 2}}, "scaling", "min_size 3 above max_size 2"),
        ({"scaling": {"min_size": 0, "max_size": 0}}, "scaling", "max_size 0"),
        ({"scaling": {"min_size": 1, "max_size": 2, "desired_size": 3}}, "scaling.desired_size", "3"),
        ({"labels": {"empty": ""}}, "labels[empty]", "value of 0"),
        ({"labels": {"k" * 64: "v"}}, "labels[" + "k" * 64 + "]", "key of 64"),
        ({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "value": "x", "effect": "NO_SCHEDULE"}]}, "taints[a]", "2 taints"),
        ({"taints": [{"key": "a", "value": "v" * 64, "effect": "NoSchedule"}]}, "taints[a]", "value of 64"),
        ({"tags": {str(i): "x" for i in range(51)}}, "tags", "51 tags"),
        ({"tags": {"AWS:x": "y"}}, "tags[AWS:x]", "reserved prefix"),
        ({"update_config": {"max_unavailable": 0}}, "update_config.max_unavailable", "0"),
        ({"update_config": {"max_unavailable_percentage": 101}}, "update_config.max_unavailable_percentage", "101"),
        ({"node_repair": {"max_parallel_nodes_repaired_percentage": 101}}, "node_repair.max_parallel_nodes_repaired_percentage", "101"),
        ({"node_repair": {"overrides": [{"min_repair_wait_time_mins": 0}]}}, "node_repair.overrides[].min_repair_wait_time_mins", "0"),
        ({"node_role": "gpu-nodes"}, "node_role", "gpu-nodes"),
        ({"version": "1.3"}, "version", "1.3"),
        ({"version": "1.36", "release_version": "1.35.6-20260714"}, "release_version", "1.35.6-20260714"),
    ],
)
def test_contradictory_options_are_refused(params, subject, text):
    (row,) = options.check(params)
    assert row["subject"] == subject
    assert text in row["found"]
    assert row["needed"]
    assert row["fix"]


@pytest.mark.parametrize(
    "params",
    [
        {"launch_template": {"id": "lt"}, "ami_type": "AL2023_x86_64_NVIDIA", "instance_types": ["g6.2xlarge"]},
        {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}], "tags": {str(i): "x" for i in range(50)}},
        {"version": "1.36", "release_version": "1.68.0-5b7b1f3a", "ami_type": "BOTTLEROCKET_x86_64_NVIDIA"},
        {"scaling": {"min_size": 0, "max_size": 1}, "node_role": "arn:aws-us-gov:iam::123456789012:role/path/nodes"},
    ],
)
def test_what_the_api_allows_is_allowed(params):
    assert options.check(params) == []


def test_all_problems_come_at_once():
    assert len(options.check({"ami_type": "AL2_x86_64_GPU", "scaling": {"min_size": 3, "max_size": 2}, "tags": {"aws:x": "y"}})) == 3


def test_image_types_exist_in_the_api():
    known = botocore.session.get_session().get_service_model("eks").shape_for("AMITypes").enum
    assert set(options.AMI_TYPES) | set(options.DEAD_AMI_TYPES) <= set(known)


def test_every_call_fits_the_service_model():
    """botocore's own validation, so that no name or type of a parameter is wrong."""
    model = botocore.session.get_session().get_service_model("eks")
    override = {"node_monitoring_condition": "C", "node_unhealthy_reason": "R", "min_repair_wait_time_mins": 5, "repair_action": "Replace"}
    params = {
        "node_role": ROLE,
        "subnets": ["s"],
        "ami_type": "AL2023_x86_64_NVIDIA",
        "capacity_type": "SPOT",
        "labels": {"a": "b"},
        "tags": {"t": "u"},
        "taints": [{"key": "a", "effect": "NoSchedule"}],
        "scaling": {"min_size": 0, "max_size": 9},
        "update_config": {"max_unavailable": 2},
        "node_repair": {"enabled": True, "max_unhealthy_node_threshold_count": 1, "max_parallel_nodes_repaired_percentage": 10, "overrides": [override]},
        "version": "1.36",
        "release_version": "1.36.2-20260917",
        "launch_template": {"id": "lt-1", "version": "4"},
    }
    created = plan(None, remote_access={"ec2_ssh_key": "k", "source_security_groups": ["sg"]}, disk_size=1, **params)
    changed = plan({**LIVE, "launchTemplate": TEMPLATE, "taints": [{"key": "old", "value": "", "effect": "NO_EXECUTE"}]}, force=True, **params)
    calls = created.calls + changed.calls + planner.plan_absent(LIVE, "demo", "gpu").calls
    assert [c.operation for c in calls] == [
        "CreateNodegroup",
        "UntagResource",
        "TagResource",
        "UpdateNodegroupConfig",
        "UpdateNodegroupVersion",
        "DeleteNodegroup",
    ]
    for call in calls:
        validate_parameters(call.params, model.operation_model(call.operation).input_shape)
