# SPDX-License-Identifier: GPL-3.0-or-later
"""What gpu_capacity_check asks of AWS: reads only, all calls at once, each allowed to fail on its own. Controller side only."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._aws import Session, ask, pages
from ._capacity_account import Account, Missed, Quota, QuotaKind, Reservation, Subnet, quota_kind, used_vcpus
from ._gpu_nodes_ec2 import describe_types
from ._gpu_nodes_types import vcpus

# What is not known without a call's answer, by the start of the call's name.
PURPOSES = {
    "identity": "which account was asked",
    "cluster": "whether the cluster is in this account and region",
    "node_groups": "the AMI releases of node groups",
    "quota": "vCPU quotas",
    "pending": "open requests for more vCPUs",
    "instances": "how much of the vCPU quotas is in use",
    "offered": "where the instance types are offered",
    "subnets": "zones and free addresses of the nodes' subnets",
    "reservations": "capacity reservations",
    "blocks": "capacity blocks",
    "spot": "the odds of getting spot instances",
    "types": "GPUs of instance types that the collection does not know",
}


@dataclass(frozen=True)
class Wants:
    """What to ask for. `types` may be launched, in `markets` (on-demand, spot, reserved); `unknown_types` are those that the table of types lacks.

    `subnet_terms`: where nodes will be, as subnetSelectorTerms of EC2NodeClass. `spot`: {instance types asked together: instances}.
    """

    cluster_name: str | None
    types: tuple[str, ...]
    markets: frozenset[str]
    subnet_terms: tuple[Mapping[str, Any], ...]
    spot: Mapping[tuple[str, ...], int]
    unknown_types: tuple[str, ...] = ()


def read(session: Session, wants: Wants) -> Account:
    """The account's picture. Raises nothing of botocore's: what was not answered is in `missed`."""
    answers, wrong = ask(_calls(session, wants))
    blocks = answers.get("blocks") or []
    # A block is bought as a reservation; blocks also name those that do not say it themselves.
    of_blocks = {ident: block for block in blocks for ident in block.get("CapacityReservationIds") or ()}
    reservations = None
    if "reservations" in answers:
        reservations = tuple(_reservation(item, of_blocks.get(item["CapacityReservationId"])) for item in answers["reservations"])
    used = None
    if "instances" in answers:
        used = used_vcpus(answers["instances"], reservations or (), vcpus(), answers.get("identity"))
    offered = None
    if "offered" in answers:
        zones: dict[str, set[str]] = {name: set() for name in wants.types}
        for item in answers["offered"]:
            zones.setdefault(item["InstanceType"], set()).add(item["Location"])
        offered = {name: frozenset(found) for name, found in zones.items()}
    subnets = answers.get("subnets")
    zone_ids = {item["AvailabilityZoneId"] for item in subnets or () if "AvailabilityZoneId" in item}
    scores = {}
    for number, types in enumerate(wants.spot):
        rows = answers.get(f"spot {number}") or ()
        found = [row["Score"] for row in rows if not zone_ids or row.get("AvailabilityZoneId") in zone_ids]
        if found:
            scores[types] = max(found)
    return Account(
        region=session.region,
        now=datetime.datetime.now(datetime.UTC),
        id=answers.get("identity"),
        cluster=answers.get("cluster"),
        node_groups=tuple(answers.get("node_groups") or ()),
        quotas=tuple(_quota(kind, answers, used) for kind in _kinds(wants) if f"quota {kind.code}" in answers),
        offered=offered,
        subnets=None if subnets is None else tuple(_subnet(item) for item in subnets),
        reservations=reservations,
        spot_scores=scores,
        types=answers.get("types") or {},
        missed=tuple(Missed(call, PURPOSES[name.partition(" ")[0]]) for name, call in wrong.items()),
    )


def _kinds(wants: Wants) -> list[QuotaKind]:
    found = (quota_kind(name, market) for name in wants.types for market in sorted(wants.markets))
    return list(dict.fromkeys(kind for kind in found if kind))


def _calls(session: Session, wants: Wants) -> dict[str, tuple[str, Callable[[], Any]]]:
    """{name: (service, call)}. All clients are made here, before threads use them."""
    ec2, sts = session.client("ec2"), session.client("sts")
    calls: dict[str, tuple[str, Callable[[], Any]]] = {"identity": ("sts", lambda: sts.get_caller_identity()["Account"])}
    if wants.cluster_name:
        eks = session.client("eks")
        calls["cluster"] = "eks", lambda: _cluster(eks, wants.cluster_name)
        calls["node_groups"] = "eks", lambda: _node_groups(eks, wants.cluster_name)
    if wants.subnet_terms:
        calls["subnets"] = "ec2", lambda: _subnets(ec2, wants.subnet_terms)
    if wants.unknown_types:
        calls["types"] = "ec2", lambda: describe_types(ec2, wants.unknown_types)
    if not wants.types:
        return calls
    quotas = session.client("service-quotas")
    for kind in _kinds(wants):
        asked = {"ServiceCode": "ec2", "QuotaCode": kind.code}
        calls[f"quota {kind.code}"] = "service-quotas", lambda asked=asked: _granted(quotas, asked)
        calls[f"pending {kind.code}"] = (
            "service-quotas",
            lambda asked=asked: pages(quotas, "list_requested_service_quota_change_history_by_quota", "RequestedQuotas", **asked),
        )
    chosen = [{"Name": "instance-type", "Values": list(wants.types)}]
    calls["offered"] = "ec2", lambda: pages(ec2, "describe_instance_type_offerings", "InstanceTypeOfferings", LocationType="availability-zone", Filters=chosen)
    calls["reservations"] = "ec2", lambda: pages(ec2, "describe_capacity_reservations", "CapacityReservations")
    calls["blocks"] = "ec2", lambda: pages(ec2, "describe_capacity_blocks", "CapacityBlocks")
    if wants.markets & {"on-demand", "spot"}:
        letters = {re.match("[a-z]+", name)[0][0] for name in wants.types}
        patterns = [pattern for letter, pattern in (("g", "g*"), ("g", "vt*"), ("p", "p*")) if letter in letters]
        running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}, {"Name": "instance-type", "Values": patterns}]
        calls["instances"] = "ec2", lambda: pages(ec2, "describe_instances", "Reservations[].Instances", Filters=running)
    for number, (types, count) in enumerate(wants.spot.items()):
        asked = {"InstanceTypes": list(types), "TargetCapacity": count, "SingleAvailabilityZone": True, "RegionNames": [session.region]}
        calls[f"spot {number}"] = "ec2", lambda asked=asked: pages(ec2, "get_spot_placement_scores", "SpotPlacementScores", **asked)
    return calls


def _granted(client: Any, asked: Mapping[str, str]) -> tuple[float, bool]:
    """(vCPUs, whether it is only AWS' default)."""
    try:
        return client.get_service_quota(**asked)["Quota"]["Value"], False
    except client.exceptions.NoSuchResourceException:  # nobody ever asked for more
        return client.get_aws_default_service_quota(**asked)["Quota"]["Value"], True


def _quota(kind: QuotaKind, answers: Mapping[str, Any], used: Mapping[str, int] | None) -> Quota:
    granted, default = answers[f"quota {kind.code}"]
    open_requests = [row["DesiredValue"] for row in answers.get(f"pending {kind.code}") or () if row["Status"] in ("PENDING", "CASE_OPENED")]
    return Quota(kind, granted, default, None if used is None else used.get(kind.code, 0), max(open_requests, default=None))


def _cluster(client: Any, name: str | None) -> Mapping[str, Any]:
    try:
        return client.describe_cluster(name=name)["cluster"]
    except client.exceptions.ResourceNotFoundException:
        return {}


def _node_groups(client: Any, cluster: str | None) -> list[dict[str, Any]]:
    """Node groups in the words of the option node_groups. None for a cluster that does not exist: `_cluster` tells that."""
    try:
        names = pages(client, "list_nodegroups", "nodegroups", clusterName=cluster)
        found = [client.describe_nodegroup(clusterName=cluster, nodegroupName=name)["nodegroup"] for name in names]
    except client.exceptions.ResourceNotFoundException:
        return []
    return [
        {
            "name": group["nodegroupName"],
            "instance_types": group.get("instanceTypes") or [],
            "ami_type": group.get("amiType"),
            "release_version": group.get("releaseVersion"),
            "version": group.get("version"),
            "desired_size": (group.get("scalingConfig") or {}).get("desiredSize", 0),
            "capacity_type": group.get("capacityType") or "ON_DEMAND",
            "capacity_reservation_id": None,
            "subnets": group.get("subnets") or [],
        }
        for group in found
    ]


def _subnets(client: Any, terms: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = {}
    for term in terms:
        filters = [
            {"Name": "tag-key", "Values": [key]} if value == "*" else {"Name": f"tag:{key}", "Values": [value]}
            for key, value in (term.get("tags") or {}).items()
        ]
        if term.get("id"):
            filters = [{"Name": "subnet-id", "Values": [term["id"]]}]
        found |= {item["SubnetId"]: item for item in pages(client, "describe_subnets", "Subnets", Filters=filters)}
    return list(found.values())


def _tags(item: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags") or ()}


def _subnet(item: Mapping[str, Any]) -> Subnet:
    return Subnet(item["SubnetId"], item["AvailabilityZone"], item["AvailableIpAddressCount"], _tags(item))


def _reservation(item: Mapping[str, Any], block: Mapping[str, Any] | None) -> Reservation:
    dates = {**(block or {}), **{key: item[key] for key in ("StartDate", "EndDate") if item.get(key)}}
    return Reservation(
        id=item["CapacityReservationId"],
        instance_type=item.get("InstanceType", ""),
        zone=item.get("AvailabilityZone", ""),
        state=item.get("State", ""),
        available=item.get("AvailableInstanceCount", 0),
        block=block is not None or item.get("ReservationType") == "capacity-block" or bool(item.get("CapacityBlockId")),
        criteria=item.get("InstanceMatchCriteria", "open"),
        start=dates.get("StartDate"),
        end=dates.get("EndDate"),
        owner=item.get("OwnerId", ""),
        tags=_tags(item),
    )
