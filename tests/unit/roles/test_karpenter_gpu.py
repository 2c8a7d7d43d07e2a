# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

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


def test_without_a_served_model_the_computed_pool_stays_but_can_be_removed(render):
    assert render("karpenter_gpu", "pools.yaml.j2", __karpenter_gpu_served=[]) == []
    rows = render("karpenter_gpu", "pools.yaml.j2", __karpenter_gpu_served=[], karpenter_gpu_state="absent")
    assert [pool["name"] for pool in rows[0]] == ["llm-gpu"]


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
    assert "userData" not in spec


def test_bottlerocket_nodes_keep_the_operators_operands_away(objects):
    assert objects(family="bottlerocket")["NodePool"]["spec"]["template"]["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "llmops.eks",
        "nvidia.com/gpu.deploy.driver": "false",
        "nvidia.com/gpu.deploy.container-toolkit": "false",
        "nvidia.com/gpu.deploy.device-plugin": "false",
    }
    assert list(objects()["NodePool"]["spec"]["template"]["metadata"]["labels"]) == ["app.kubernetes.io/part-of"]


def test_nvme_disks_are_joined_and_asked_for(objects):
    made = objects(karpenter_gpu_nvme=True)
    assert made["EC2NodeClass"]["spec"]["instanceStorePolicy"] == "RAID0"
    disks = {"key": "karpenter.k8s.aws/instance-local-nvme", "operator": "Gt", "values": ["0"]}
    assert disks in made["NodePool"]["spec"]["template"]["spec"]["requirements"]
    assert disks not in objects()["NodePool"]["spec"]["template"]["spec"]["requirements"]


def test_reservations_are_named_in_the_node_class(objects):
    assert objects(karpenter_gpu_capacity_reservation_ids=["cr-1", "cr-2"])["EC2NodeClass"]["spec"]["capacityReservationSelectorTerms"] == [
        {"id": "cr-1"},
        {"id": "cr-2"},
    ]
    assert "capacityReservationSelectorTerms" not in objects()["EC2NodeClass"]["spec"]


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


@pytest.fixture
def problems(render):
    def call(**variables) -> list[str]:
        known = {
            "karpenter_gpu_cluster_name": "prod",
            "karpenter_gpu_models": MODELS,
            "__karpenter_gpu_family": "al2023",
            "__karpenter_gpu_pools": [{"name": "a", "state": "present", "capacity_types": ["on-demand"]}],
            "__karpenter_gpu_busy": [],
            "__karpenter_gpu_others": [],
            "__karpenter_gpu_leaving": ["a"],
            **variables,
        }
        rows = render("karpenter_gpu", "problems.yaml.j2", **known)
        return [f"{row['subject']}: found {row['found']}; needed {row['needed']}" for row in (rows[0] if rows else [])]

    return call


def pool(**values):
    return {"name": "a", "state": "present", "capacity_types": ["on-demand"], **values}


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"karpenter_gpu_cluster_name": ""}, "found no cluster name"),
        ({"__karpenter_gpu_family": "al2", "karpenter_gpu_ami_alias": "al2@v20251209"}, "found al2@v20251209; needed al2023@RELEASE"),
        ({"karpenter_gpu_ami_alias": "al2023@latest"}, "found al2023@latest; needed a pinned release"),
        ({"karpenter_gpu_ami_alias": "al2023"}, "found al2023; needed a pinned release"),
        ({"karpenter_gpu_models": []}, "found neither models nor node pools"),
        ({"karpenter_gpu_node_role_name": "n" * 65}, "found 65 characters; needed at most 64"),
        ({"__karpenter_gpu_pools": [pool(), pool()]}, "node pool a: found 2 pools of this name"),
        ({"__karpenter_gpu_pools": [pool(capacity_types=["Spot"])]}, 'found capacity_types ["Spot"]'),
        ({"__karpenter_gpu_pools": [pool(capacity_types=["reserved"])]}, "found capacity type reserved without a reservation"),
        ({"__karpenter_gpu_busy": ["x/1", "x/2", "x/3", "x/4"]}, "nodes of a: found 4 pods (x/1, x/2, x/3, ...)"),
        ({"__karpenter_gpu_others": ["cpu"], "karpenter_gpu_state": "absent"}, "found other NodePools (cpu)"),
    ],
)
def test_what_cannot_work_is_refused(problems, variables, says):
    assert problems() == []
    (found,) = problems(**variables)
    assert says in found


def test_all_problems_are_told_at_once(problems):
    assert len(problems(karpenter_gpu_cluster_name="", karpenter_gpu_ami_alias="al2023@latest", karpenter_gpu_models=[])) == 3


def test_what_is_leaving_needs_no_sound_input(problems):
    assert problems(karpenter_gpu_state="absent", karpenter_gpu_ami_alias="al2023@latest", karpenter_gpu_models=[]) == []


def test_pods_at_work_or_on_their_way_keep_their_nodes(render):
    def pod(name, phase="Running", node="gpu-1", owner="ReplicaSet"):
        return {"metadata": {"namespace": "llm", "name": name, "ownerReferences": [{"kind": owner}]}, "spec": {"nodeName": node}, "status": {"phase": phase}}

    pods = [pod("runs"), pod("pulls", "Pending"), pod("done", "Succeeded"), pod("agent", owner="DaemonSet"), pod("elsewhere", node="cpu-1")]
    unplaced = {"metadata": {"namespace": "llm", "name": "waits"}, "spec": {}, "status": {"phase": "Pending"}}
    found = render(
        "karpenter_gpu",
        "busy.json.j2",
        __karpenter_gpu_nodes={"resources": [{"metadata": {"name": "gpu-1"}}]},
        __karpenter_gpu_pods={"resources": [*pods, unplaced]},
    )
    assert found == [["llm/runs", "llm/pulls"]]
    # Before a teardown the models themselves do not count, and everybody else's pods do.
    ours = pod("ours")
    ours["metadata"]["labels"] = {"app.kubernetes.io/part-of": "llmops.eks", "app.kubernetes.io/instance": "llama"}
    known = {"__karpenter_gpu_nodes": {"resources": [{"metadata": {"name": "gpu-1"}}]}, "__karpenter_gpu_pods": {"resources": [ours, pod("theirs")]}}
    assert render("karpenter_gpu", "busy.json.j2", karpenter_gpu_plan=MODELS, **known) == [["llm/ours", "llm/theirs"]]
    assert render("karpenter_gpu", "busy.json.j2", karpenter_gpu_plan=MODELS, __karpenter_gpu_models_leave=True, **known) == [["llm/theirs"]]
    assert render("karpenter_gpu", "busy.json.j2", __karpenter_gpu_nodes={"skipped": True}, __karpenter_gpu_pods={"skipped": True}) in ([], [[]])
