# SPDX-License-Identifier: GPL-3.0-or-later
"""Situations of an AWS account, each with the one row it must give; and what is asked of AWS."""

from __future__ import annotations

import datetime as dt

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _capacity, _capacity_account, _capacity_aws, _capacity_wants
from ansible_collections.llmops.eks.plugins.module_utils._aws import Unanswered
from ansible_collections.llmops.eks.plugins.module_utils._capacity_account import Account, Missed, Quota, Reservation, Subnet
from ansible_collections.llmops.eks.plugins.module_utils._capacity_context import Objects, Request, build
from gpu_objects import GPU, gfd, model, node, node_class, node_pool, server

NOW = dt.datetime(2026, 11, 26, 8, tzinfo=dt.UTC)
G, P, G_SPOT, P4_SPOT, P5_SPOT = _capacity_account.quota_kinds()
ZONES = ("us-east-1a", "us-east-1b")
EMPTY_CLUSTER = Objects(nodes=[], pods=[], node_pools=[], node_classes=[])


def quota(kind=G, granted=768.0, used=0, default=False, pending=None):
    return Quota(kind, granted, default, used, pending)


def subnets(*free):
    return tuple(Subnet(f"subnet-{zone[-1]}", zone, count, {"karpenter.sh/discovery": "prod"}) for zone, count in zip(ZONES, free, strict=False))


def account(**changes):
    """Everything there, nothing in use."""
    known = {
        "region": "us-east-1", "now": NOW, "id": "111122223333", "cluster": {"name": "prod", "version": "1.36"},
        "quotas": tuple(quota(kind) for kind in _capacity_account.quota_kinds()), "subnets": subnets(8000, 8000), "reservations": (), "spot_scores": {},
        "offered": dict.fromkeys(("g5.xlarge", "g5.12xlarge", "g6.xlarge", "p5.48xlarge"), frozenset(ZONES)),
    }  # fmt: skip
    return Account(**{**known, **changes})


def block(state, start, end, **changes):
    known = {
        "id": "cr-1", "instance_type": "p5.48xlarge", "zone": "us-east-1a", "state": state, "available": 0, "block": True, "criteria": "targeted",
        "start": NOW + dt.timedelta(days=start), "end": NOW + dt.timedelta(days=end), "owner": "111122223333", "tags": {},
    }  # fmt: skip
    return Reservation(**{**known, **changes})


def pool(*types, markets=("on-demand",), zones=None, limit=None, name="gpu"):
    made = node_pool(name, types or ("g5.xlarge",), limit)
    requirements = made["spec"]["template"]["spec"]["requirements"]
    requirements[1]["values"] = list(markets)
    if zones:
        requirements.append({"key": "topology.kubernetes.io/zone", "operator": "In", "values": list(zones)})
    return made


def klass(**spec):
    found = {"kind": "EC2NodeClass", **node_class()}
    found["spec"] = {**found["spec"], "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": "prod"}}], **spec}
    return found


def rows(models, planned=(), objects=EMPTY_CLUSTER, no_account="", aws=None, **request):
    asked = Request(models, "2026-11", planned=planned, cluster_name="prod", **request)
    return _capacity.run(build(asked, objects, aws, no_account))


RESERVED_CLASS = klass(capacityReservationSelectorTerms=[{"id": "cr-1"}])
BIG = model(gpus=8, instance_types=("p5.48xlarge",), resources={"cpu": "100", "memory": "800Gi"})
GROUP = {"name": "base", "instance_types": ["g5.xlarge"], "ami_type": "AL2023_x86_64_NVIDIA", "release_version": "1.36.2-20260714", "desired_size": 2}
# The same as AWS describes it when a launch template names type and reservation.
SEEN = {
    **GROUP, "instance_types": [], "ami_type": None, "release_version": None, "desired_size": 1, "capacity_type": "CAPACITY_BLOCK",
    "capacity_reservation_id": None, "subnets": [],
}  # fmt: skip

# name: (models, planned objects, account, (check, severity, subject, words of found / needed / fix) or None)
SITUATIONS = {
    "all well": ([model()], [pool(), klass()], account(), None),
    "quota never granted": (
        [model()], [pool(), klass()], account(quotas=(quota(granted=0.0, default=True),)),
        ("quota", "error", "model m", ["0 vCPUs", "L-DB2E81BA", "default", "111122223333, us-east-1"], ["4 more (4 in all) for"], ["--desired-value 4"]),
    ),
    "quota used up by others": (
        [model()], [pool(), klass()], account(quotas=(quota(granted=98.0, used=96),)),
        ("quota", "error", "model m", ["98 vCPUs", "96 in use"], ["4 more (100 in all)"], ["--desired-value 100"]),
    ),
    "quota for one of two models": (
        [model("a"), model("b")], [pool(), klass()], account(quotas=(quota(granted=7.0),)),
        ("quota", "error", "model b", ["4 for other nodes of this run"], ["4 more (8 in all) for 1 g5.xlarge"], ["--desired-value 8"]),
    ),
    "quota for neither of two models": (
        [model("a"), model("b")], [pool(), klass()], account(quotas=(quota(granted=0.0),)),
        ("quota", "error", "models a, b", ["0 vCPUs"], ["8 more (8 in all) for 2 g5.xlarge", "2 more replica(s)"], ["--desired-value 8"]),
    ),
    "quota for the first, not for the largest number": (
        [model(replicas={"min": 1, "max": 4, "first": 1})], [pool(), klass()], account(quotas=(quota(granted=8.0),)),
        ("quota", "warning", "model m", ["8 vCPUs"], ["8 more (16 in all) for 2 g5.xlarge", "2 more replica(s)"], ["--desired-value 16"]),
    ),
    "a raise is pending": (
        [model()], [pool(), klass()], account(quotas=(quota(granted=0.0, pending=64.0),)),
        ("quota", "error", "model m", ["0 vCPUs"], ["4 more"], ["wait for AWS to grant the request for 64"]),
    ),
    "a raise that is pending is too small": (
        [model(replicas={"min": 2, "max": 2})], [pool(), klass()], account(quotas=(quota(granted=0.0, pending=4.0),)),
        ("quota", "error", "model m", ["0 vCPUs"], ["8 more"], ["--desired-value 8", "request for 4 that is open is not enough"]),
    ),
    "different types of one quota": (
        [model("a"), model("b", 4, ("g5.12xlarge",))], [pool("g5.xlarge", "g5.12xlarge"), klass()], account(quotas=(quota(granted=0.0),)),
        ("quota", "error", "models a, b", ["0 vCPUs"], ["52 more (52 in all) for 1 g5.12xlarge, 1 g5.xlarge"], ["--desired-value 52"]),
    ),
    "another family has quota": (
        [model(instance_types=("g5.xlarge", "p5.48xlarge"))], [pool("g5.xlarge", "p5.48xlarge"), klass()], account(quotas=(quota(granted=0.0), quota(P))), None,
    ),
    "not offered in the subnets' zones": (
        [model()], [pool(), klass()], account(offered={"g5.xlarge": frozenset({"us-east-1d"})}),
        ("offering", "error", "model m", ["offered in us-east-1d", "may use us-east-1a, us-east-1b"], ["g5.xlarge"], ["subnet in us-east-1d"]),
    ),
    "not offered in the region": (
        [model()], [pool(), klass()], account(offered={"g5.xlarge": frozenset()}),
        ("offering", "error", "model m", ["not offered in us-east-1"], ["g5.xlarge"], ["another region"]),
    ),
    "offered, not in the pool's zone": (
        [model()], [pool(zones=("us-east-1b",)), klass()], account(offered={"g5.xlarge": frozenset({"us-east-1a"})}),
        ("offering", "error", "model m", ["NodePool gpu may use us-east-1b"], ["open to NodePool gpu"], ["us-east-1a"]),
    ),
    "the second type is offered": (
        [model(instance_types=("g6.xlarge", "g5.xlarge"))], [pool("g5.xlarge", "g6.xlarge"), klass()],
        account(offered={"g6.xlarge": frozenset(), "g5.xlarge": frozenset(ZONES)}), None,
    ),
    "one type not offered, the other without quota": (
        [model(instance_types=("g6.xlarge", "p5.48xlarge"))], [pool("g6.xlarge", "p5.48xlarge"), klass()],
        account(offered={"g6.xlarge": frozenset(), "p5.48xlarge": frozenset(ZONES)}, quotas=(quota(P, 0.0),)),
        ("offering", "error", "model m", ["not offered", "and 0 vCPUs", "L-417A185B"], ["g6.xlarge"], ["another region", "or aws service-quotas"]),
    ),
    "subnets full": (
        [model()], [pool(), klass()], account(subnets=subnets(15, 3)),
        ("subnet_addresses", "error", "model m", ["subnet-a in us-east-1a 15"], ["16 (the VPC CNI", "for 1 g5.xlarge"], ["larger subnet"]),
    ),
    "addresses for the first node only": (
        [model(replicas={"min": 2, "max": 2})], [pool(), klass()], account(subnets=subnets(31, 3)),
        ("subnet_addresses", "error", "model m", ["subnet-a in us-east-1a 15"], ["for 1 g5.xlarge"], ["larger subnet"]),
    ),
    "no subnet with the tag": (
        [model()], [pool(), klass()], account(subnets=()),
        ("subnets", "error", "subnets of account 111122223333, us-east-1", ["none"], ["karpenter.sh/discovery=prod"], ["tag the private subnets"]),
    ),
    "cluster of another region": (
        [model()], [pool(), klass()], account(cluster={}, subnets=()),
        ("eks_cluster", "error", "cluster prod", ["111122223333, us-east-1"], ["existing"], ["region"]),
    ),
    "capacity block in the future": (
        [BIG], [pool("p5.48xlarge", markets=("reserved",)), RESERVED_CLASS], account(reservations=(block("scheduled", 2, 9),)),
        ("capacity_block", "error", "model m", ["capacity block cr-1", "starts at 2026-11-28 08:00"], ["now for 1 p5.48xlarge"], ["run again"]),
    ),
    "capacity block over": (
        [BIG], [pool("p5.48xlarge", markets=("reserved",)), RESERVED_CLASS], account(reservations=(block("expired", -9, -2),)),
        ("capacity_block", "error", "model m", ["ended at 2026-11-24"], ["available now"], ["buy a new block"]),
    ),
    "capacity block in use": (
        [BIG], [pool("p5.48xlarge", markets=("reserved",)), RESERVED_CLASS], account(reservations=(block("active", -1, 5),)),
        ("capacity_block", "error", "model m", ["none of its p5.48xlarge left"], ["available now"], ["wait until its instances end"]),
    ),
    "capacity block that runs needs no quota": (
        [BIG], [pool("p5.48xlarge", markets=("reserved",)), RESERVED_CLASS],
        account(reservations=(block("active", -1, 5, available=1),), quotas=(quota(P, 0.0),)), None,
    ),
    "reserved capacity that nobody selects": (
        [BIG], [pool("p5.48xlarge", markets=("reserved",)), klass()], account(reservations=(block("active", -1, 5, available=1),)),
        ("reservation", "error", "model m", ["selects none"], ["reservation or block"], ["capacityReservationSelectorTerms"]),
    ),
    "reserved capacity that nobody selects, and reservations may not be read": (
        [BIG], [pool("p5.48xlarge", markets=("reserved", "on-demand")), klass()], account(reservations=None, quotas=(quota(P, 0.0),)),
        ("quota", "error", "model m", ["0 vCPUs"], ["192 more"], ["--desired-value 192"]),
    ),
    "a block in the future beside on-demand": (
        [BIG], [pool("p5.48xlarge", markets=("reserved", "on-demand")), RESERVED_CLASS], account(reservations=(block("scheduled", 2, 9),)), None,
    ),
    "open reservation is filled first": (
        [model()], [pool(), klass()],
        account(
            quotas=(quota(granted=4.0, used=4),),
            reservations=(block("active", -9, 9, instance_type="g5.xlarge", block=False, criteria="open", available=1),),
        ), None,
    ),
    "spot is scarce": (
        [model()], [pool(markets=("spot",)), klass()], account(spot_scores={("g5.xlarge",): 2}),
        ("spot_score", "warning", "model m", ["score 2 of 10 for g5.xlarge"], ["more than 3"], ["on-demand beside spot"]),
    ),
    "spot is scarce, on-demand allowed": (
        [model()], [pool(markets=("spot", "on-demand")), klass()], account(spot_scores={("g5.xlarge",): 1}),
        ("spot_score", "info", "model m", ["score 1 of 10"], ["more than 3"], ["more instance types"]),
    ),
    "no spot quota": (
        [model()], [pool(markets=("spot",)), klass()], account(quotas=(quota(G_SPOT, 0.0),)),
        ("quota", "error", "model m", ["L-3819A6DF"], ["4 more"], ["L-3819A6DF"]),
    ),
    "no spot quota, and Karpenter does not fall back": (
        [model()], [pool(markets=("spot", "on-demand")), klass()], account(quotas=(quota(), quota(G_SPOT, 0.0))),
        ("quota", "warning", "spot nodes", ["L-3819A6DF"], ["4 more"], ["take spot out"]),
    ),
    "IAM action missing": (
        [model()], [pool(), klass()],
        account(offered=None, missed=(Missed(Unanswered("ec2:DescribeInstanceTypeOfferings", "permission", "not authorized"), "where types are offered"),)),
        ("aws_permission", "warning", "IAM action ec2:DescribeInstanceTypeOfferings", ["not authorized"], ["ec2:Describe"], ["not checked: where types"]),
    ),
    "credentials expired": (
        [model()], [pool(), klass()],
        account(
            id=None, cluster=None, quotas=(), offered=None, subnets=None, reservations=None,
            missed=tuple(Missed(Unanswered(f"ec2:Describe{n}", "credentials", "ExpiredToken: the token has expired"), n) for n in ("Subnets", "Instances")),
        ),
        ("aws_login", "warning", "AWS", ["has expired"], ["valid credentials"], ["renew"]),
    ),
    "AWS does not answer": (
        [model()], [pool(), klass()],
        account(id=None, quotas=(), offered=None, subnets=None, missed=(Missed(Unanswered("ec2", "unreachable", "Could not connect"), "subnets"),)),
        ("aws_unreachable", "warning", "AWS", ["Could not connect"], ["answer in us-east-1"], ["endpoint_url"]),
    ),
    "an API fails": (
        [model()], [pool(), klass()],
        account(subnets=None, missed=(Missed(Unanswered("ec2:DescribeSubnets", "failed", "InternalError: sorry"), "subnets"),)),
        ("aws_call", "warning", "ec2:DescribeSubnets", ["sorry"], ["an answer"], ["run again"]),
    ),
}  # fmt: skip


def check(found, expected):
    if expected is None:
        assert found == []
        return
    name, severity, subject, *words = expected
    assert [(row["check"], row["severity"], row["subject"]) for row in found] == [(name, severity, subject)]
    for field, parts in zip(("found", "needed", "fix"), words, strict=True):
        for part in parts:
            assert part in found[0][field], (field, found[0])


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation_gives_its_one_row(name):
    models, planned, aws, expected = SITUATIONS[name]
    check(rows(models, planned, aws=aws), expected)


@pytest.mark.parametrize(
    ("group", "aws", "expected"),
    [
        ({}, account(), None),
        (
            {},
            account(quotas=(quota(granted=4.0),)),
            ("quota", "error", "node group base", ["4 vCPUs"], ["4 more (8 in all) for 1 g5.xlarge"], ["--desired-value 8"]),
        ),
        ({"instance_types": ["g6.xlarge", "g5.xlarge"]}, account(offered={"g6.xlarge": frozenset(), "g5.xlarge": frozenset(ZONES)}), None),
        (
            {"capacity_type": "CAPACITY_BLOCK", "instance_types": ["p5.48xlarge"], "desired_size": 1, "capacity_reservation_id": "cr-1"},
            account(reservations=(block("scheduled", 2, 9),)),
            ("capacity_block", "error", "node group base", ["starts at"], ["p5.48xlarge"], ["run again"]),
        ),
        (
            {"capacity_type": "CAPACITY_BLOCK", "instance_types": ["p5.48xlarge"], "desired_size": 3, "capacity_reservation_id": "cr-1"},
            account(reservations=(block("scheduled", 2, 9),), node_groups=(SEEN,)),
            ("capacity_block", "error", "node group base", ["starts at"], ["for 1 p5.48xlarge"], ["run again"]),
        ),
    ],
)
def test_nodes_that_a_node_group_will_start_are_asked_for_too(group, aws, expected):
    models = [model(instance_types=("g5.xlarge", "g6.xlarge"))] if "p5" not in str(group) else []
    check(rows(models, [pool("g5.xlarge", "g6.xlarge"), klass()] if models else [], aws=aws, node_groups=[{**GROUP, **group}]), expected)


def test_a_replica_that_runs_asks_nothing_of_aws():
    objects = Objects(nodes=[node(labels=gfd("g5.xlarge"))], pods=[server("m", "node-1")], node_pools=[pool()], node_classes=[klass()])
    assert rows([model()], objects=objects, aws=account(quotas=(quota(granted=0.0),))) == []


@pytest.mark.parametrize(
    ("planned", "no_account", "aws", "expected"),
    [
        ([], "no credentials", None, ["kubernetes", "aws_login"]),
        ([], "", account(), ["kubernetes"]),
        ([], "", account(quotas=(quota(granted=0.0),)), ["kubernetes", "quota"]),
        ([pool(limit="0"), klass()], "no credentials", None, ["kubernetes", "aws_login", "capacity"]),
    ],
)
def test_without_a_cluster_the_plan_is_checked(planned, no_account, aws, expected):
    found = rows([model()], planned, Objects(absent="no kubeconfig"), no_account, aws)
    assert [row["check"] for row in found] == expected


def test_without_cluster_and_aws_a_replica_must_still_fit_its_node():
    """4 CPU and 16 GiB on g5.xlarge, as the reference guide has it."""
    row = rows([model(resources={"cpu": "4", "memory": "16Gi"})], objects=Objects(absent="no kubeconfig"))[-1]
    assert (row["check"], row["severity"], row["subject"]) == ("capacity", "error", "model m")
    assert "g5.xlarge leaves 1 GPU(s), 3620m CPU" in row["found"]


def test_planned_pools_replace_those_of_the_cluster_and_keep_their_use():
    live = [{**node_pool("gpu", ("g6.xlarge",), "4"), "status": {"resources": {GPU: "3"}, "conditions": [{"type": "Ready", "status": "False"}]}}]
    objects = Objects(nodes=[], pods=[], node_pools=live, node_classes=[klass()])
    (row,) = rows([model()], objects=objects)
    assert "allows none of g5.xlarge" in row["found"] or "not Ready" in row["found"]
    assert rows([model()], [pool(limit="4")], objects) == []
    (row,) = rows([model()], [pool(limit="3")], objects)
    assert "nvidia.com/gpu 3 with 3 used" in row["found"]


def test_planned_pools_count_where_karpenter_is_not_installed_yet():
    assert rows([model()], [pool(), klass()], Objects(nodes=[], pods=[])) == []
    assert [row["check"] for row in rows([model()], [], Objects(nodes=[], pods=[]))] == ["karpenter_missing", "capacity"]


def wants(models, objects=EMPTY_CLUSTER, **request):
    return _capacity_wants.wants(build(Request(models, "2026-11", **request), objects))


def test_only_what_may_be_launched_is_asked_for():
    found = wants([model(instance_types=("g5.xlarge", "g6.xlarge"))], planned=[pool("g5.xlarge", "p5.48xlarge"), klass()], cluster_name="prod")
    assert found == _capacity_aws.Wants(
        cluster_name="prod", types=("g5.xlarge",), markets=frozenset({"on-demand"}), subnet_terms=({"tags": {"karpenter.sh/discovery": "prod"}},), spot={}
    )
    assert wants([model()]).types == ()


def test_spot_is_scored_for_the_types_that_one_model_may_get_together():
    models = [model("a", replicas={"min": 1, "max": 3}), model("b"), model("c", instance_types=("g5.xlarge", "g6.xlarge"))]
    found = wants(models, planned=[pool("g5.xlarge", "g6.xlarge", markets=("spot", "on-demand")), klass()])
    assert found.spot == {("g5.xlarge",): 4, ("g5.xlarge", "g6.xlarge"): 1}
    assert found.markets == {"spot", "on-demand"}


def test_given_subnets_win_over_tags():
    assert wants([model()], planned=[pool(), klass()], cluster_name="prod", subnets=["subnet-1"]).subnet_terms == ({"id": "subnet-1"},)


def test_unknown_gpu_types_of_nodes_are_asked_for_and_cpu_types_are_not():
    nodes = [node("a"), node("b"), node("c")]
    nodes[0]["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "g9.xlarge"
    nodes[1]["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "m9.large"
    assert wants([], Objects(nodes=nodes, pods=[])).unknown_types == ("g9.xlarge",)


def test_use_of_quotas_is_counted_as_aws_counts():
    instances = [
        {"InstanceType": "g5.xlarge"},
        {"InstanceType": "g9.xlarge", "CpuOptions": {"CoreCount": 4, "ThreadsPerCore": 2}},
        {"InstanceType": "g6.xlarge", "InstanceLifecycle": "spot"},
        {"InstanceType": "p5.48xlarge", "InstanceLifecycle": "capacity-block"},
        {"InstanceType": "p4d.24xlarge"},
        {"InstanceType": "m7i.large"},
    ]
    held = {"instance_type": "g5.xlarge", "block": False, "available": 2}
    reservations = [block("active", -1, 1, **held), block("active", -1, 1, available=1), block("active", -1, 1, **held, owner="444455556666")]
    types = {"g5.xlarge": 4, "g6.xlarge": 4, "p4d.24xlarge": 96, "p5.48xlarge": 192}
    used = _capacity_account.used_vcpus(instances, reservations, types, "111122223333")
    assert used == {G.code: 4 + 8 + 2 * 4, G_SPOT.code: 4, P.code: 96}
    assert _capacity_account.used_vcpus([], reservations, types, None) == {G.code: 2 * 2 * 4}, "whose is not known: better too much"


@pytest.mark.parametrize(
    ("name", "market", "kind"),
    [("gr6.4xlarge", "on-demand", G), ("g4dn.xlarge", "spot", G_SPOT), ("p4d.24xlarge", "spot", P4_SPOT), ("p5en.48xlarge", "spot", P5_SPOT),
     ("p6-b200.48xlarge", "on-demand", P), ("p6-b200.48xlarge", "spot", None), ("m7i.large", "on-demand", None)],
)  # fmt: skip
def test_quota_of_a_type(name, market, kind):
    assert _capacity_account.quota_kind(name, market) == kind


def test_the_newest_kubelet_tells_the_ami_and_odd_versions_are_passed_over():
    nodes = [node("a", kubelet="v1.35.2-eks-1"), node("b", kubelet="custom build"), node("c", kubelet="v1.36.0")]
    assert build(Request([model()], "2026-11", planned=[pool(), klass()]), Objects(nodes=nodes, pods=[])).prospects[0]["kubernetes"] == "1.36"
    assert build(Request([model()], "2026-11", planned=[pool(), klass()]), Objects(nodes=nodes[1:2], pods=[]), account()).prospects[0]["kubernetes"] == "1.36"
