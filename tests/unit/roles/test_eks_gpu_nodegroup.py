# SPDX-License-Identifier: GPL-3.0-or-later
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "eks_gpu_nodegroup"


@pytest.fixture
def groups(render):
    """groups({...}, ...) -> complete groups."""

    def call(*items, **variables):
        items = [{"subnets": ["subnet-1"], **item} for item in items]
        rows = render("eks_gpu_nodegroup", "groups.yaml.j2", eks_gpu_nodegroup_groups=items, **variables)
        return rows[0] if rows else []

    return call


@pytest.fixture
def template(render, groups):
    """template({...}) -> data of the launch template of one group."""

    def call(item):
        return resources(render, groups({"name": "gpu-a", **item}))["LaunchTemplategpua"]["LaunchTemplateData"]

    return call


def resources(render, kept, partition="aws"):
    """Properties of the stack's resources, by name."""
    account = {"arn": f"arn:{partition}:sts::1:assumed-role/x/y", "account": "1"}
    known = {"eks_gpu_nodegroup_cluster_name": "prod", "__eks_gpu_nodegroup_kept": kept, "__eks_gpu_nodegroup_account": account}
    (stack,) = render("eks_gpu_nodegroup", "stack.json.j2", **known)
    return {name: resource["Properties"] for name, resource in stack["Resources"].items()}


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov", "aws-cn"])
def test_the_nodes_role_has_the_policies_of_its_partition(render, groups, partition):
    policies = resources(render, groups({"name": "gpu-a"}), partition)["NodeRole"]["ManagedPolicyArns"]
    assert f"arn:{partition}:iam::aws:policy/AmazonEKSWorkerNodePolicy" in policies
    assert {arn.split("/")[0] for arn in policies} == {f"arn:{partition}:iam::aws:policy"}


@pytest.fixture
def problems(render, groups):
    """problems({...}, ...) -> sentences about these groups."""

    def call(*items, **variables):
        complete = groups(*items)
        known = {
            "eks_gpu_nodegroup_cluster_name": "prod",
            "__eks_gpu_nodegroup_all": complete,
            "__eks_gpu_nodegroup_kept": [group for group in complete if group["state"] == "present"],
            "__eks_gpu_nodegroup_existing": [],
            "__eks_gpu_nodegroup_unlisted": [],
            **variables,
        }
        rows = render("eks_gpu_nodegroup", "problems.yaml.j2", **known)
        return [f"{row['subject']}: found {row['found']}; needed {row['needed']}; fix: {row['fix']}" for row in (rows[0] if rows else [])]

    return call


def test_defaults_of_a_group_are_the_documented_ones():
    documented = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]["eks_gpu_nodegroup_groups"]["options"]
    used = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__eks_gpu_nodegroup_group"]
    assert used == {key: option["default"] for key, option in documented.items() if "default" in option}


def test_defaults_are_merged_under_every_group(groups):
    made = groups({"name": "a"}, {"name": "b", "max_size": 3}, eks_gpu_nodegroup_group_defaults={"max_size": 2, "capacity_type": "SPOT"})
    assert [(g["name"], g["max_size"], g["capacity_type"], g["ami_type"]) for g in made] == [
        ("a", 2, "SPOT", "AL2023_x86_64_NVIDIA"),
        ("b", 3, "SPOT", "AL2023_x86_64_NVIDIA"),
    ]


def test_launch_template_is_encrypted_big_and_hides_credentials_from_pods(template):
    data = template({"tags": {"Team": "llm"}})
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    ((device, ebs),) = [(d["DeviceName"], d["Ebs"]) for d in data["BlockDeviceMappings"]]
    assert (device, ebs["VolumeSize"], ebs["VolumeType"], ebs["Encrypted"]) == ("/dev/xvda", 200, "gp3", True)
    assert {spec["ResourceType"]: {t["Key"]: t["Value"] for t in spec["Tags"]} for spec in data["TagSpecifications"]} == {
        kind: {"app.kubernetes.io/part-of": "llmops.eks", "Team": "llm"} for kind in ("instance", "volume")
    }
    assert not {"InstanceType", "InstanceMarketOptions", "CapacityReservationSpecification", "ImageId", "IamInstanceProfile"} & set(data)


def test_both_disks_of_bottlerocket_are_encrypted(template):
    data = template({"ami_type": "BOTTLEROCKET_x86_64_NVIDIA"})
    assert [(d["DeviceName"], d["Ebs"]["VolumeSize"], d["Ebs"]["Encrypted"]) for d in data["BlockDeviceMappings"]] == [
        ("/dev/xvda", 4, True),
        ("/dev/xvdb", 200, True),
    ]


@pytest.mark.parametrize(("throughput", "iops"), [(500, 3000), ("1000", 4000), (2000, 8000)])
def test_the_disk_has_the_operations_that_its_throughput_needs(template, throughput, iops):
    """gp3 gives 0.25 MiB/s for each operation a second, and 3000 of them without more cost."""
    (disk,) = template({"volume_throughput": throughput})["BlockDeviceMappings"]
    assert (disk["Ebs"]["Throughput"], disk["Ebs"]["Iops"]) == (int(throughput), iops)


def test_a_capacity_block_stands_in_its_launch_template(template):
    data = template({"capacity_type": "CAPACITY_BLOCK", "capacity_reservation_id": "cr-1", "instance_types": ["p5.48xlarge"]})
    assert data["InstanceType"] == "p5.48xlarge"
    assert data["InstanceMarketOptions"] == {"MarketType": "capacity-block"}
    assert data["CapacityReservationSpecification"] == {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}}


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"ami_type": "AL2_x86_64_GPU"}, "needed AL2023_x86_64_NVIDIA or BOTTLEROCKET_x86_64_NVIDIA, because AL2 ended on 2025-11-26"),
        ({"ami_type": "AL2023_x86_64_STANDARD"}, "needed an NVIDIA AMI"),
        # Its launch template would have to name the AMI, which this role's does not.
        ({"ami_type": "CUSTOM"}, "needed an NVIDIA AMI"),
        ({"subnets": []}, "found no subnets"),
        ({"min_size": 3}, "found min_size 3 > max_size 1"),
        ({"min_size": 0}, "Karpenter never scales a node group"),
        ({"min_size": 1, "desired_size": 0}, "Karpenter never scales a node group"),
        ({"capacity_type": "CAPACITY_BLOCK"}, "found capacity_type CAPACITY_BLOCK with reservation '', 1 subnets and 1 types"),
        ({"capacity_type": "CAPACITY_BLOCK", "capacity_reservation_id": "cr-1", "subnets": ["a", "b"]}, "2 subnets"),
        ({"capacity_type": "SPOT", "capacity_reservation_id": "cr-1"}, "found capacity_type SPOT with reservation cr-1"),
    ],
)
def test_what_cannot_work_is_refused(problems, item, says):
    (found,) = problems({"name": "gpu-a", **item})
    assert found.startswith("gpu-a: ")
    assert says in found


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"min_size": 0, "desired_size": 1},
        {"min_size": 0, "allow_empty": True},
        {"ami_type": "BOTTLEROCKET_x86_64_NVIDIA", "capacity_type": "SPOT"},
        {"capacity_type": "CAPACITY_BLOCK", "capacity_reservation_id": "cr-1", "instance_types": ["p5.48xlarge"]},
        {"capacity_reservation_id": "cr-1"},
    ],
)
def test_what_can_work_is_accepted(problems, item):
    assert problems({"name": "gpu-a", **item}) == []


def test_a_long_role_name_is_refused_where_there_are_groups(problems):
    assert problems(eks_gpu_nodegroup_role_name="r" * 65) == []
    (found,) = problems({"name": "gpu-a"}, eks_gpu_nodegroup_role_name="r" * 65)
    assert "found 65 characters; needed at most 64" in found


def test_an_empty_group_is_fine_without_karpenter(problems):
    assert problems({"name": "gpu-a", "min_size": 0}, eks_gpu_nodegroup_karpenter=False) == []


def test_names_that_give_one_launch_template_are_refused(problems):
    (found,) = problems({"name": "gpu-a"}, {"name": "gpua"})
    assert found.startswith("gpu-a, gpua: found 2 groups with the same letters and digits")


def test_groups_are_removed_only_by_word_and_never_by_leaving_them_out(problems):
    (found,) = problems({"name": "gpu-a", "state": "absent"}, __eks_gpu_nodegroup_existing=["gpu-a"])
    assert "gpu-a: found to be removed in safe mode" in found
    assert problems({"name": "gpu-a", "state": "absent"}, __eks_gpu_nodegroup_existing=["gpu-a"], eks_gpu_nodegroup_safe_mode=False) == []
    # Nothing to remove, nothing to ask for.
    assert problems({"name": "gpu-a", "state": "absent"}) == []
    (found,) = problems({"name": "gpu-a"}, __eks_gpu_nodegroup_unlisted=["gpu-old"])
    assert found.startswith("gpu-old: found a group of an earlier run")


def test_all_problems_are_told_at_once(problems):
    assert len(problems({"name": "a", "subnets": [], "ami_type": "CUSTOM"}, {"name": "b", "min_size": 0}, eks_gpu_nodegroup_cluster_name="")) == 4
