# SPDX-License-Identifier: GPL-3.0-or-later
"""What instances cost: the Price List API, and a spot price history that is a fixed share of the on-demand price for each type and zone."""

from __future__ import annotations

import datetime as dt
import json
import zlib
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from sandbox.aws.api import AwsError, Call, answers, load, page
from sandbox.aws.capacity import offerings

TABLE = load("prices")
SPOT_SHARE = (0.35, 0.60)
_KEYS = ("MaxResults", "NextToken")


def spot_price(on_demand: float, instance_type: str, zone: str) -> float:
    """USD per hour, the same for the same type and zone on every run."""
    low, high = SPOT_SHARE
    return on_demand * (low + (high - low) * (zlib.crc32(f"{instance_type}/{zone}".encode()) % 1000) / 999)


@answers("ec2", "DescribeSpotPriceHistory")
def describe_spot_price_history(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    wanted = {f["Name"]: f["Values"] for f in params.get("Filters", [])}
    types = params.get("InstanceTypes") or wanted.get("instance-type")
    zones = [params["AvailabilityZone"]] if params.get("AvailabilityZone") else wanted.get("availability-zone")
    products = params.get("ProductDescriptions") or wanted.get("product-description") or ["Linux/UNIX"]
    stamp = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    rows = []
    for offer in offerings(call, "availability-zone"):
        kind, zone = offer["InstanceType"], offer["Location"]
        on_demand = call.state.prices.get(kind)
        spot = "spot" in INSTANCE_TYPES.get(kind, {}).get("SupportedUsageClasses", [])
        if on_demand is None or not spot or (types and kind not in types) or (zones and zone not in zones):
            continue
        if any(p.startswith("Linux/UNIX") for p in products):
            rows.append(
                {
                    "InstanceType": kind,
                    "AvailabilityZone": zone,
                    "ProductDescription": "Linux/UNIX",
                    "Timestamp": stamp,
                    "SpotPrice": f"{spot_price(on_demand, kind, zone):.6f}",
                }
            )
    items, token = page(rows, params, 1000, _KEYS)
    return {"SpotPriceHistory": items, "NextToken": token or ""}


def _product(kind: str, usd: float, tenancy: str) -> dict[str, Any]:
    """One product as the Price List has it, as far as clients read it: attributes, and one on-demand term with one price dimension."""
    info = INSTANCE_TYPES.get(kind, {})
    metal = kind.endswith(".metal")
    memory = info.get("MemoryInfo", {}).get("SizeInMiB", 0) / 1024
    sku = f"{zlib.crc32(f'{kind}/{tenancy}'.encode()):08X}SANDBOX"
    attributes = {
        "servicecode": "AmazonEC2",
        "location": "US East (N. Virginia)",
        "locationType": "AWS Region",
        "regionCode": TABLE["region"],
        "instanceType": kind,
        "instanceFamily": "GPU instance" if "GpuInfo" in info else "General purpose",
        "vcpu": str(info.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        "memory": f"{memory:g} GiB",
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
        "capacitystatus": "Used",
        "tenancy": tenancy,
        "marketoption": "OnDemand",
        "currentGeneration": "Yes" if info.get("CurrentGeneration") else "No",
        "operation": "RunInstances",
        "usagetype": f"BoxUsage:{kind}",
    }
    if "GpuInfo" in info:
        attributes["gpu"] = str(sum(g["Count"] for g in info["GpuInfo"]["Gpus"]))
    rate = f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    return {
        "product": {"productFamily": "Compute Instance (bare metal)" if metal else "Compute Instance", "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "version": TABLE["as_of"].replace("-", ""),
        "publicationDate": f"{TABLE['as_of']}T00:00:00Z",
        "terms": {
            "OnDemand": {
                f"{sku}.JRTCKXETXF": {
                    "sku": sku,
                    "offerTermCode": "JRTCKXETXF",
                    "effectiveDate": f"{TABLE['as_of']}T00:00:00Z",
                    "termAttributes": {},
                    "priceDimensions": {
                        rate: {
                            "rateCode": rate,
                            "unit": "Hrs",
                            "beginRange": "0",
                            "endRange": "Inf",
                            "appliesTo": [],
                            "description": f"${usd:g} per On Demand Linux {kind} Instance Hour",
                            "pricePerUnit": {"USD": f"{usd:.10f}"},
                        }
                    },
                }
            }
        },
    }


def _matches(product: dict[str, Any], wanted: dict[str, str]) -> bool:
    fields = {
        **product["product"]["attributes"],
        "productFamily": product["product"]["productFamily"],
        "sku": product["product"]["sku"],
        "serviceCode": product["serviceCode"],
    }
    value, how = fields.get(wanted["Field"], ""), wanted["Type"]
    if how == "CONTAINS":
        return wanted["Value"] in value
    if how in ("ANY_OF", "NONE_OF"):
        return (value in wanted["Value"].split(",")) == (how == "ANY_OF")
    return value == wanted["Value"]


@answers("pricing", "GetProducts")
def get_products(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """Bare metal is listed as dedicated too, because the Price List does and Karpenter asks for it that way."""
    if params["ServiceCode"] != "AmazonEC2":
        raise AwsError("NotFoundException", f"The sandbox has prices of AmazonEC2 only, not of {params['ServiceCode']}")
    pairs = [
        (kind, usd, tenancy) for kind, usd in call.state.prices.items() for tenancy in (("Shared", "Dedicated") if kind.endswith(".metal") else ("Shared",))
    ]
    products = [_product(*pair) for pair in pairs]
    found = [json.dumps(p) for p in products if all(_matches(p, f) for f in params.get("Filters", []))]
    items, token = page(found, params, 100, _KEYS)
    return {"FormatVersion": "aws_v1", "PriceList": items, "NextToken": token}
