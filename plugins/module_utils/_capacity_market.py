# SPDX-License-Identifier: GPL-3.0-or-later
"""May AWS bring this node? Zones, addresses, reservations and vCPU quotas of an account, used up node by node. Pure arithmetic; nothing is reserved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ._capacity_account import ON_DEMAND, RESERVED, SPOT, Account, Quota, Reservation, selects, takes_subnet
from ._gpu_nodes_types import Table

# The VPC CNI takes the addresses of one whole network interface when a node starts. The smallest GPU types have 15 on each.
ADDRESSES = 16
ORDER = (RESERVED, SPOT, ON_DEMAND)  # Karpenter's


@dataclass(frozen=True)
class Ask:
    """One more node: what launches it, which type, how it may be bought, and in which zones. Terms as in EC2NodeClass, empty: the cluster's subnets."""

    launcher: str
    instance_type: str
    capacity_types: tuple[str, ...]
    allows_zone: Callable[[str], bool]
    subnet_terms: tuple[Mapping, ...]
    reservation_terms: tuple[Mapping, ...]


@dataclass(frozen=True)
class Denial:
    """Why not. `key` is the same for nodes that lack the same thing, `unit` how much of it one takes; `needed` and `fix` are functions of the sum."""

    check: str
    key: str
    found: str
    unit: int
    needed: Callable[[int], str]
    fix: Callable[[int], str]


class Market:
    """What is left of an account; every granted node makes it smaller. Without an account everything is granted."""

    def __init__(self, account: Account | None, types: Table) -> None:
        self.account, self.types = account, types
        self.addresses = {subnet.id: subnet.free for subnet in account.subnets or ()} if account else {}
        self.reserved = {held.id: held.available for held in account.reservations or ()} if account else {}
        self.taken: dict[str, int] = {}  # vCPUs by quota code
        self.spot_denied: dict[str, Denial] = {}  # by quota code: on-demand was taken instead

    def grant(self, ask: Ask) -> Denial | None:
        """Take what one node needs; or say why it cannot come, then nothing is taken."""
        if self.account is None:
            return None
        places = self._places(ask)
        if isinstance(places, Denial):
            return places
        denials = []
        for market in ORDER:
            if market in ask.capacity_types:
                denial = self._reserve(ask, places) if market == RESERVED else self._buy(ask, market, places)
                if denial is None:
                    self._address(ask, places)
                    if market == ON_DEMAND and denials and denials[-1].check == "quota":
                        self.spot_denied.setdefault(denials[-1].key, denials[-1])
                    return None
                denials.append(denial)
        # What is bought without a contract is what most people can still change.
        return denials[-1] if denials else None

    def _places(self, ask: Ask) -> frozenset[str] | Denial | None:
        """Zones where a node may start, None when they are not known."""
        account = self.account
        offered = None if account.offered is None else account.offered.get(ask.instance_type)  # not asked for: not known
        subnets = self._subnets(ask)
        open_to = frozenset(subnet.zone for subnet in subnets) if subnets is not None else offered
        allowed = None if open_to is None else frozenset(zone for zone in open_to if ask.allows_zone(zone))
        places = allowed if offered is None else offered & allowed
        if offered is not None and not places:
            where = f"offered in {_list(offered)}" if offered else f"not offered in {account.region}"
            return Denial(
                "offering", f"{ask.launcher} {ask.instance_type}", f"{ask.instance_type} {where}; {ask.launcher} may use {_list(allowed)}", 1,
                lambda _n: f"a zone that both has it and is open to {ask.launcher}",
                lambda _n: (f"add a subnet in {_list(offered, ' or ')}" if offered else "use another region") + ", or allow another instance type",
            )  # fmt: skip
        if subnets is not None:
            inside = [subnet for subnet in subnets if places is None or subnet.zone in places]
            roomy = frozenset(subnet.zone for subnet in inside if self.addresses[subnet.id] >= ADDRESSES)
            if inside and not roomy:
                left = ", ".join(f"{subnet.id} in {subnet.zone} {self.addresses[subnet.id]}" for subnet in inside)
                return Denial(
                    "subnet_addresses", "addresses", f"free addresses left: {left}", ADDRESSES,
                    lambda n: f"{n} (the VPC CNI takes {ADDRESSES - 1} or more for a node, and the node one)",
                    lambda _n: "free addresses, or add a larger subnet with the same tag",
                )  # fmt: skip
            return roomy
        return places

    def _subnets(self, ask: Ask):
        if self.account.subnets is None:
            return None
        chosen = [s for s in self.account.subnets if not ask.subnet_terms or any(takes_subnet(term, s) for term in ask.subnet_terms)]
        return chosen or None  # none at all is told once by the checks, not for every node

    def _address(self, ask: Ask, places: frozenset[str] | None) -> None:
        """Karpenter starts a node in the subnet of the zone that has most addresses left."""
        inside = [subnet for subnet in self._subnets(ask) or () if places is None or subnet.zone in places]
        if inside:
            self.addresses[max(inside, key=lambda subnet: self.addresses[subnet.id]).id] -= ADDRESSES

    def _held(self, ask: Ask, places: frozenset[str] | None) -> list[Reservation]:
        return [
            held for held in self.account.reservations or ()
            if held.instance_type == ask.instance_type and held.state == "active" and (places is None or held.zone in places)
        ]  # fmt: skip

    def _reserve(self, ask: Ask, places: frozenset[str] | None) -> Denial | None:
        if self.account.reservations is None and ask.reservation_terms:
            return None  # not known: told by the checks
        selected = [held for held in self.account.reservations or () if any(selects(term, held) for term in ask.reservation_terms)]
        for held in self._held(ask, places):
            if held in selected and self.reserved[held.id] > 0:
                self.reserved[held.id] -= 1
                return None
        mine = [held for held in selected if held.instance_type == ask.instance_type]
        block = next((held for held in sorted(mine, key=lambda h: h.block, reverse=True)), None)
        if block is None:
            terms = "selects none" if not ask.reservation_terms else "selects none of this type that exists here"
            return Denial(
                "reservation", f"{ask.launcher} {ask.instance_type}", f"{ask.launcher} buys reserved capacity and {terms}", 1,
                lambda _n: "a capacity reservation or block",
                lambda _n: "set capacityReservationSelectorTerms of the EC2NodeClass (capacity_reservation_id of a node group) to one that exists",
            )  # fmt: skip
        return self._unusable(ask, block, places)

    def _unusable(self, ask: Ask, held: Reservation, places: frozenset[str] | None) -> Denial:
        """Why a reservation that was chosen gives nothing now."""
        check, key = "capacity_block" if held.block else "reservation", held.id
        found, fix = f"{held.name} of {ask.instance_type} in {held.zone}, state {held.state}", "choose another one, or wait until its instances end"
        if held.state == "active" and self.reserved[held.id] <= 0:
            found = f"{held.name}: none of its {ask.instance_type} left in {held.zone}"
        elif held.state == "active":
            found = f"{held.name} in {held.zone}; {ask.launcher} may use {_list(places or ())}"
            fix = f"add a subnet in {held.zone}"
        elif held.state in ("scheduled", "payment-pending", "pending", "assessing") and held.start:
            found = f"{held.name} of {ask.instance_type} starts at {held.start:%Y-%m-%d %H:%M} UTC (state {held.state})"
            fix = "run again when it has started, or allow on-demand capacity until then"
        elif held.state == "expired" or (held.end and held.end <= self.account.now):
            found = f"{held.name} of {ask.instance_type} ended" + (f" at {held.end:%Y-%m-%d %H:%M} UTC" if held.end else "")
            fix = "buy a new block (aws ec2 describe-capacity-block-offerings) or allow on-demand capacity"
        return Denial(check, key, found, 1, lambda _n: "one that is available now", lambda _n: fix)

    def _buy(self, ask: Ask, market: str, places: frozenset[str] | None) -> Denial | None:
        if market == ON_DEMAND:
            for held in self._held(ask, places):
                # EC2 fills open reservations first; their vCPUs are counted in the quota already.
                if held.criteria == "open" and not held.block and self.reserved[held.id] > 0:
                    self.reserved[held.id] -= 1
                    return None
        quota, vcpu = self.account.quota(ask.instance_type, market), self.types[ask.instance_type]["vcpu"]
        if quota is None:
            return None
        taken = self.taken.get(quota.kind.code, 0)
        if vcpu > quota.granted - (quota.used or 0) - taken:
            return _over(quota, taken, vcpu, self.account.name)
        self.taken[quota.kind.code] = taken + vcpu
        return None


def _over(quota: Quota, taken: int, vcpu: int, account: str) -> Denial:
    kind, held = quota.kind, (quota.used or 0) + taken

    def fix(more: int) -> str:
        if quota.pending is not None and quota.pending >= held + more:
            return f"wait for AWS to grant the request for {quota.pending:g} that is open, then run again"
        ask = f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {kind.code} --desired-value {held + more}"
        return ask + (f" (the request for {quota.pending:g} that is open is not enough)" if quota.pending is not None else "")

    used = "use not known" if quota.used is None else f"{quota.used} in use"
    own = f", {taken} for other nodes of this run" if taken else ""
    default = ", AWS' default" if quota.default else ""
    return Denial(
        "quota", kind.code, f"{quota.granted:g} vCPUs granted as '{kind.name}' ({kind.code}{default}) in {account}, {used}{own}",
        vcpu, lambda more: f"{more} more ({held + more} in all)", fix,
    )  # fmt: skip


def _list(names: Iterable[str], word: str = ", ") -> str:
    return word.join(sorted(names)) or "none"
