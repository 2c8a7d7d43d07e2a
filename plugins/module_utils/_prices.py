# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance costs an hour in a region: AWS' price list and spot history when they can be asked, else the dated table.

    prices = Prices.live("eu-central-1", lambda region: _aws.login({**options, "region": region}))
    prices.of("g6.2xlarge")  ->  Price(on_demand=1.22, spot=0.52, source="on demand: AWS price list of 2026-11-26; spot: ...")

A live object asks once, for all types together, when the first price is wanted. What it could not ask is in `rows` afterwards; the table stands in.
"""

from __future__ import annotations

import datetime
import functools
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import _aws, _data, _instances
from ._problems import problem

# The price list is served from a few regions only, for all of them.
PRICING_REGION = "us-east-1"
Login = Callable[[str], "_aws.Session | str"]


@dataclass(frozen=True)
class Price:
    """USD an hour for Linux, of the whole instance; None when there is no such offer or nobody said. `source` names both origins and their dates."""

    on_demand: float | None
    spot: float | None
    source: str

    def best(self, capacity_types: Iterable[str]) -> float | None:
        """The lowest of the capacity types that are allowed (on-demand, spot)."""
        known = [price for kind, price in (("on-demand", self.on_demand), ("spot", self.spot)) if kind in capacity_types and price is not None]
        return min(known, default=None)


class Prices:
    """Prices of one region. `rows` are problems met while asking (warnings: a plan without live prices is still a plan)."""

    def __init__(self, region: str = "", login: Login | None = None) -> None:
        self.region, self.rows = region, []
        self._login = login
        self._on_demand: dict[str, float] = {}
        self._spot: dict[str, float] = {}
        self._spot_source = "not asked"
        self._source = table_source(region)

    @classmethod
    def table(cls, region: str = "") -> Prices:
        """The dated table alone; no I/O."""
        return cls(region)

    @classmethod
    def live(cls, region: str, login: Login) -> Prices:
        """`login(region)` returns a session, or a text when nobody has set credentials; both as _aws.login does. Without a region the table stays."""
        return cls(region, login if region else None)

    def of(self, instance_type: str) -> Price:
        if self._login:
            login, self._login = self._login, None
            self._load(login)
        on_demand, source = self._on_demand.get(instance_type), self._source
        if on_demand is None and (instance := _instances.table().get(instance_type)):
            on_demand, source = instance.price, table_source(self.region)
        return Price(on_demand, self._spot.get(instance_type), f"on demand: {source}; spot: {self._spot_source}")

    def best(self, instance_type: str, capacity_types: Iterable[str]) -> float | None:
        """The price that counts for somebody who allows these capacity types. Where nobody knows spot prices, on demand is taken as their upper bound."""
        price = self.of(instance_type)
        found = price.best(capacity_types)
        return price.on_demand if found is None and not self._spot else found

    def _load(self, login: Login) -> None:
        """Ask for both at once, and keep what came; what did not come is a row."""
        calls = {}
        try:
            for service, region, function in (("pricing", PRICING_REGION, _price_list), ("ec2", self.region, _spot_history)):
                session = login(region)
                if isinstance(session, str):
                    return
                calls[service] = (service, functools.partial(function, session.client(service), self.region))
        except _aws.AwsError as error:
            self._row(str(error), "a login at AWS, for prices of today", "correct the AWS options, or set live: false for the dated table")
            return
        answers, failed = _aws.ask(calls)
        if answers.get("pricing"):
            self._on_demand, self._source = answers["pricing"], f"AWS price list for {self.region}, read {_today()}"
        if "ec2" in answers:
            self._spot, self._spot_source = answers["ec2"], f"EC2 spot history of {self.region}, read {_today()}, median of the zones"
        for wrong in failed.values():
            stand_in = "the dated table is used" if wrong.action.startswith("pricing") else "spot prices stay unknown"
            if wrong.cause == "permission":
                self._row(f"no permission: {wrong.message}", f"the IAM action {wrong.action}", f"allow it for the identity that plans; until then {stand_in}")
            else:
                self._row(f"{wrong.action}: {wrong.message}", "prices of today", f"correct region, credentials or network; until then {stand_in}")

    def _row(self, found: str, needed: str, fix: str) -> None:
        self.rows.append(problem("prices", f"prices in {self.region}", found, needed, fix, "warning"))


def _price_list(client: Any, region: str) -> dict[str, float]:
    """USD an hour by type. One query names all types: the value of a filter may have 1,024 characters, and they need 800."""
    wanted = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "instanceType": ",".join(_instances.table()),
    }
    filters = [{"Type": "ANY_OF" if field == "instanceType" else "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
    products = _aws.pages(client, "get_products", "PriceList", ServiceCode="AmazonEC2", Filters=filters)
    return {kind: price for kind, price in map(_product, map(json.loads, products)) if price}


def _spot_history(client: Any, region: str) -> dict[str, float]:
    """The price in force by type: of each zone the newest, of the zones the median."""
    newest: dict[tuple[str, str], tuple[Any, float]] = {}
    # As filters: a type that the region does not know is no error then. A start of now gives one row a type and zone.
    filters = [{"Name": "instance-type", "Values": list(_instances.table())}, {"Name": "product-description", "Values": ["Linux/UNIX"]}]
    now = datetime.datetime.now(datetime.UTC)
    for row in _aws.pages(client, "describe_spot_price_history", "SpotPriceHistory", Filters=filters, StartTime=now):
        key, seen = (row["InstanceType"], row["AvailabilityZone"]), (row["Timestamp"], float(row["SpotPrice"]))
        newest[key] = max(newest.get(key, seen), seen)
    zones: dict[str, list[float]] = {}
    for (kind, _zone), (_time, price) in newest.items():
        zones.setdefault(kind, []).append(price)
    return {kind: statistics.median(found) for kind, found in zones.items()}


def table_source(region: str = "") -> str:
    """Where the built-in prices come from, and that they are another region's when they are."""
    data = _data.load("instances")
    text = f"table of {data['as_of']} for {data['region']}"
    return text if region in ("", data["region"]) else f"{text}, other regions differ"


def _product(product: dict[str, Any]) -> tuple[str, float]:
    """(instance type, USD an hour) of one product of the price list; 0 when it has no hourly price in USD."""
    kind = product["product"]["attributes"]["instanceType"]
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            price = float(dimension["pricePerUnit"].get("USD") or 0)
            if price:
                return kind, price
    return kind, 0.0


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
