# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance costs an hour in a region: AWS' price list and spot history when they can be asked, else the dated table.

    prices = Prices.live("eu-central-1", lambda service, region: session.client(service, region_name=region))
    prices.of("g6.2xlarge")  ->  Price(on_demand=1.22, spot=0.52, source="on demand: AWS price list of 2026-11-26; spot: ...")

A live object asks once, for all types together, when the first price is wanted. What it could not ask is in `rows` afterwards; the table stands in.
"""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from . import _data, _instances
from ._problems import problem

# The price list is served from a few regions only, for all of them.
PRICING_REGION = "us-east-1"
DENIED = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation")
Client = Callable[[str, str], Any]


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

    def __init__(self, region: str = "", client: Client | None = None) -> None:
        self.region, self.rows = region, []
        self._client, self._loaded = client, False
        self._on_demand: dict[str, float] = {}
        self._spot: dict[str, float] = {}
        self._spot_source = "not asked"
        self._source = table_source(region)

    @classmethod
    def table(cls, region: str = "") -> Prices:
        """The dated table alone; no I/O."""
        return cls(region)

    @classmethod
    def live(cls, region: str, client: Client) -> Prices:
        """`client(service, region)` returns a boto3 client with short timeouts, or raises a botocore error. Without a region the table stays."""
        return cls(region, client if region else None)

    def of(self, instance_type: str) -> Price:
        if not self._loaded:
            self._loaded = True
            self._load_on_demand()
            self._load_spot()
        on_demand, source = self._on_demand.get(instance_type), self._source
        if on_demand is None and (instance := _instances.table().get(instance_type)):
            on_demand, source = instance.price, table_source(self.region)
        return Price(on_demand, self._spot.get(instance_type), f"on demand: {source}; spot: {self._spot_source}")

    def _load_on_demand(self) -> None:
        # One query names all types: the value of a filter may have 1,024 characters, and they need 800.
        wanted = {
            **{"regionCode": self.region, "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"},
            "instanceType": ",".join(_instances.table()),
        }
        filters = [{"Type": "ANY_OF" if key == "instanceType" else "TERM_MATCH", "Field": key, "Value": value} for key, value in wanted.items()]
        pages = self._ask("pricing", PRICING_REGION, "get_products", "pricing:GetProducts", ServiceCode="AmazonEC2", Filters=filters)
        for page in pages or []:
            for text in page["PriceList"]:
                kind, price = _product(json.loads(text))
                if price:
                    self._on_demand[kind] = price
        if self._on_demand:
            self._source = f"AWS price list for {self.region}, read {_today()}"

    def _load_spot(self) -> None:
        pages = self._ask(
            *("ec2", self.region, "describe_spot_price_history", "ec2:DescribeSpotPriceHistory"),
            # As filters: a type that the region does not know is no error then.
            Filters=[{"Name": "instance-type", "Values": list(_instances.table())}, {"Name": "product-description", "Values": ["Linux/UNIX"]}],
            StartTime=datetime.datetime.now(datetime.UTC),  # from now: the price in force, one row a type and zone
        )
        newest: dict[tuple[str, str], tuple[Any, float]] = {}
        for page in pages or []:
            for row in page["SpotPriceHistory"]:
                key, seen = (row["InstanceType"], row["AvailabilityZone"]), (row["Timestamp"], float(row["SpotPrice"]))
                newest[key] = max(newest.get(key, seen), seen)
        zones: dict[str, list[float]] = {}
        for (kind, _zone), (_time, price) in newest.items():
            zones.setdefault(kind, []).append(price)
        self._spot = {kind: statistics.median(found) for kind, found in zones.items()}
        if pages is not None:
            self._spot_source = f"EC2 spot history of {self.region}, read {_today()}, median of the zones"

    def _ask(self, service: str, region: str, operation: str, permission: str, **params: Any) -> list[dict[str, Any]] | None:
        """All pages of one operation; None when it could not be asked, with a row unless there are simply no credentials."""
        if not self._client:
            return None
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # a plan without live prices needs no boto3

        try:
            return list(self._client(service, region).get_paginator(operation).paginate(**params))
        except NoCredentialsError:
            return None
        except ClientError as error:
            if error.response["Error"]["Code"] in DENIED:
                found, needed = f"no permission to ask {service} for prices", f"the IAM action {permission}"
                fix = "allow it for the identity that plans; until then prices are those of the dated table, or missing"
            else:
                found, needed, fix = f"{service}: {error}", "prices of today", "correct region and credentials; the dated table is used"
        except BotoCoreError as error:
            found, needed = f"{service} in {region}: {error}", "an answer of AWS' API"
            fix = "correct region, profile or network, or set live: false; the dated table is used"
        self.rows.append(problem("prices", f"prices in {self.region}", found, needed, fix, "warning"))
        return None


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
