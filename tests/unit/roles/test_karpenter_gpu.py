# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "karpenter_gpu"
MODELS = [
    {"name": "llama", "source": "s3://acme/llama/", "gpu_names": ["l4", "a10g"], "weights": {"size_gib": 15}},
    {"name": "qwen", "source": "s3://acme/qwen/", "gpu_names": ["l40s"], "tensor_parallel_size": 4},
]


@pytest.fixture
def pools(render, planned):
    def call(**variables):
        rows = render("karpenter_gpu", "pools.yaml.j2", __karpenter_gpu_served=planned(*MODELS), **variables)
        return rows[0] if rows else []

    return call


@pytest.fixture
def objects(render, pools):
    def call(family="al2023", **variables):
        made = pools(**variables)
        known = {
            "__karpenter_gpu_pools": made,
            "__karpenter_gpu_family": family,
            "__karpenter_gpu_limit": 5,
            "__karpenter_gpu_discovery": {"karpenter.sh/discovery": "prod"},
        }
        return {o["kind"]: o for o in render("karpenter_gpu", "objects.yaml.j2", llm_cluster_name="prod", **known, **variables)}

    return call


def test_one_pool_for_the_gpus_of_all_models(pools):
    assert [(pool["name"], pool["gpu_names"]) for pool in pools()] == [("llm-gpu", ["a10g", "l4", "l40s"])]


def test_own_pools_replace_it_and_defaults_are_merged(pools):
    own = pools(karpenter_gpu_node_pools=[{"name": "a", "gpu_names": ["h100"]}], karpenter_gpu_node_pool_defaults={"capacity_types": ["spot"]})
    assert [(pool["name"], pool["gpu_names"], pool["capacity_types"], pool["expire_after"]) for pool in own] == [("a", ["h100"], ["spot"], "720h")]


def test_node_pool_requirements(objects):
    spec = objects()["NodePool"]["spec"]
    assert spec["template"]["spec"]["nodeClassRef"] == {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "llm-gpu"}
    requirements = {r["key"]: r["values"] for r in spec["template"]["spec"]["requirements"]}
    assert requirements["karpenter.k8s.aws/instance-gpu-name"] == ["a10g", "l4", "l40s"]
    assert requirements["karpenter.sh/capacity-type"] == ["on-demand"]
    assert spec["limits"] == {"nvidia.com/gpu": "5"}
    assert spec["disruption"] == {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "10m", "budgets": [{"nodes": "1"}]}
    assert spec["template"]["spec"]["terminationGracePeriod"] == "30m"
    assert spec["template"]["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
    assert "weight" not in spec


def test_memory_limit_is_inclusive(objects):
    spec = objects(karpenter_gpu_node_pools=[{"name": "a", "min_gpu_memory_mib": 40000}])["NodePool"]["spec"]
    assert {"key": "karpenter.k8s.aws/instance-gpu-memory", "operator": "Gt", "values": ["39999"]} in spec["template"]["spec"]["requirements"]


def test_node_class_is_pinned_encrypted_and_hides_credentials_from_pods(objects):
    spec = objects()["EC2NodeClass"]["spec"]
    assert spec["amiSelectorTerms"] == [{"alias": "al2023@v20260714"}]
    assert spec["metadataOptions"] == {"httpTokens": "required", "httpPutResponseHopLimit": 1}
    assert [(d["deviceName"], d["ebs"]["volumeSize"], d["ebs"]["encrypted"]) for d in spec["blockDeviceMappings"]] == [("/dev/xvda", "200Gi", True)]
    assert yaml.safe_load(spec["userData"])["spec"] == {"featureGates": {"FastImagePull": True}}
    assert "instanceStorePolicy" not in spec


def test_bottlerocket_keeps_data_on_its_second_disk(objects):
    spec = objects(family="bottlerocket", karpenter_gpu_nvme=True)["EC2NodeClass"]["spec"]
    assert [(d["deviceName"], d["ebs"]["volumeSize"]) for d in spec["blockDeviceMappings"]] == [("/dev/xvda", "4Gi"), ("/dev/xvdb", "200Gi")]
    assert spec["instanceStorePolicy"] == "RAID0"
    assert "userData" not in spec


def test_defaults_of_a_pool_are_the_documented_ones():
    documented = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]["karpenter_gpu_node_pools"]["options"]
    used = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__karpenter_gpu_node_pool"]
    assert used == {key: option["default"] for key, option in documented.items() if key != "name"}


def test_stack_has_the_five_event_rules_to_the_queue():
    class Loader(yaml.SafeLoader):
        """CloudFormation's short functions (!Sub, !Ref, !GetAtt) read as their text."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value if isinstance(node.value, str) else loader.construct_sequence(node))
    stack = yaml.load((ROLE / "files" / "karpenter.cloudformation.yaml").read_text(), Loader)
    rules = [r["Properties"] for r in stack["Resources"].values() if r["Type"] == "AWS::Events::Rule"]
    assert sorted(t for rule in rules for t in rule["EventPattern"]["detail-type"]) == [
        "AWS Health Event",
        "EC2 Capacity Reservation Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
        "EC2 Instance State-change Notification",
        "EC2 Spot Instance Interruption Warning",
    ]
    assert all(rule["Targets"][0]["Arn"] == "Queue.Arn" for rule in rules)
    policies = [r for r in stack["Resources"].values() if r["Type"] == "AWS::IAM::ManagedPolicy"]
    assert len(policies) == len(stack["Resources"]["ControllerRole"]["Properties"]["ManagedPolicyArns"]) == 5


def test_the_limit_is_what_the_models_need_at_their_maximum(planned):
    text = (ROLE / "templates" / "limit.j2").read_text()
    served = planned({**MODELS[0], "replicas": {"max": 3}}, MODELS[1])
    assert jinja2.Template(text).render(__karpenter_gpu_served=served).strip() == "7"
    assert jinja2.Template(text).render(__karpenter_gpu_served=[]).strip() == "8"
