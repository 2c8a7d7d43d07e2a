# SPDX-License-Identifier: GPL-3.0-or-later
"""One immutable picture of what the AWS account grants, offers and has left, as gpu_capacity_check looks at it. Pure."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import _data
from ._aws import Unanswered

ON_DEMAND, SPOT, RESERVED = "on-demand", "spot", "reserved"


@dataclass(frozen=True)
class QuotaKind:
    """A row of _data/aws_quotas.json."""

    code: str
    name: str
    market: str
    types: str


@dataclass(frozen=True)
class Quota:
    """vCPUs. `granted` is the applied value, or AWS' default when the account never had another (`default`). `used` None: not known.
    `pending`: value of an open request for more."""

    kind: QuotaKind
    granted: float
    default: bool
    used: int | None
    pending: float | None = None


@dataclass(frozen=True)
class Subnet:
    """`free` addresses; `tags` as EC2 has them."""

    id: str
    zone: str
    free: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Reservation:
    """A capacity reservation, or the one behind a capacity block (`block`). `state` in EC2's words, `start` and `end` aware times or None."""

    id: str
    instance_type: str
    zone: str
    state: str
    available: int
    block: bool
    criteria: str
    start: datetime.datetime | None
    end: datetime.datetime | None
    owner: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{'capacity block' if self.block else 'capacity reservation'} {self.id}"


@dataclass(frozen=True)
class Missed:
    """A call without an answer: it costs only its part of the check, which `purpose` names."""

    call: Unanswered
    purpose: str


@dataclass(frozen=True)
class Account:
    """None in a field: not asked or not answered (see `missed`), so nothing is concluded from it.

    `cluster`: DescribeCluster's answer, {} if there is no such cluster. `offered`: zones by instance type. `spot_scores`: the best score of a zone by
    the instance types asked together. `node_groups`: the GPU node groups of the cluster, in the words of DescribeNodegroup with snake-case keys.
    """

    region: str
    now: datetime.datetime
    id: str | None = None
    cluster: Mapping[str, Any] | None = None
    node_groups: tuple[Mapping[str, Any], ...] = ()
    quotas: tuple[Quota, ...] = ()
    offered: Mapping[str, frozenset[str]] | None = None
    subnets: tuple[Subnet, ...] | None = None
    reservations: tuple[Reservation, ...] | None = None
    spot_scores: Mapping[tuple[str, ...], int] | None = None
    types: Mapping[str, Mapping[str, Any]] | None = None
    missed: tuple[Missed, ...] = ()

    @property
    def name(self) -> str:
        return f"account {self.id}, {self.region}" if self.id else self.region

    def quota(self, instance_type: str, market: str) -> Quota | None:
        kind = quota_kind(instance_type, market)
        return next((quota for quota in self.quotas if quota.kind == kind), None)


@functools.cache
def quota_kinds() -> tuple[QuotaKind, ...]:
    return tuple(QuotaKind(**row) for row in _data.load("aws_quotas")["quotas"])


@functools.cache
def quota_kind(instance_type: str, market: str) -> QuotaKind | None:
    """The quota that counts an instance of this type; None if the table has none."""
    return next((kind for kind in quota_kinds() if kind.market == market and re.match(kind.types, instance_type)), None)


def used_vcpus(instances: Iterable[Mapping[str, Any]], reservations: Iterable[Reservation], vcpus: Mapping[str, int], account: str | None) -> dict[str, int]:
    """vCPUs in use by quota code: instances that run or start (EC2's shape), and on-demand reservations that nobody uses, which count as well.

    `vcpus` by type; an instance of another type counts its own cores. Capacity blocks count in no quota, and reservations that another account than
    `account` (None: not known) shares count in its own.
    """
    used: dict[str, int] = {}

    def add(instance_type: str, market: str, amount: int) -> None:
        if kind := quota_kind(instance_type, market):
            used[kind.code] = used.get(kind.code, 0) + amount

    for item in instances:
        if item.get("InstanceLifecycle") != "capacity-block":
            cpu = item.get("CpuOptions") or {}
            amount = vcpus.get(item["InstanceType"]) or cpu.get("CoreCount", 0) * cpu.get("ThreadsPerCore", 1)
            add(item["InstanceType"], SPOT if item.get("InstanceLifecycle") == "spot" else ON_DEMAND, amount)
    for held in reservations:
        if not held.block and held.state == "active" and (account is None or held.owner in ("", account)):
            add(held.instance_type, ON_DEMAND, held.available * vcpus.get(held.instance_type, 0))
    return used


def selects(term: Mapping[str, Any], held: Reservation) -> bool:
    """Whether one of EC2NodeClass' capacityReservationSelectorTerms takes the reservation: all of its fields must."""
    if not term:
        return False
    return all((
        term.get("id") in (None, held.id),
        term.get("ownerID") in (None, held.owner),
        term.get("instanceMatchCriteria") in (None, held.criteria),
        all((held.tags[key] == value or value == "*") if key in held.tags else False for key, value in (term.get("tags") or {}).items()),
    ))  # fmt: skip


def takes_subnet(term: Mapping[str, Any], subnet: Subnet) -> bool:
    """The same for subnetSelectorTerms (id or tags)."""
    if term.get("id"):
        return term["id"] == subnet.id
    tags = term.get("tags") or {}
    return bool(tags) and all(key in subnet.tags and value in ("*", subnet.tags[key]) for key, value in tags.items())
