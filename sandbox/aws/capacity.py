# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2: where instance types are offered, spot placement scores, capacity reservations and capacity blocks."""

from __future__ import annotations

import re
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES

from sandbox.aws.api import AwsError, Call, answers, page
from sandbox.aws.state import ACCOUNT

_KEYS = ("MaxResults", "NextToken")


def _zones(call: Call) -> dict[str, str]:
    """Zone id -> zone name of the region."""
    return {z.zone_id: z.name for z in ec2_backends[ACCOUNT][call.region].describe_availability_zones()}


def offerings(call: Call, location_type: str, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
    """moto's offerings (real ones, zone by zone) without those that a test withdrew."""
    zones = _zones(call)
    found = ec2_backends[ACCOUNT][call.region].describe_instance_type_offerings(location_type, filters or {})
    return [o for o in found if (o["InstanceType"], zones.get(o["Location"], o["Location"])) not in call.state.unoffered]


@answers("ec2", "DescribeInstanceTypeOfferings")
def describe_instance_type_offerings(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    filters = {f["Name"]: f["Values"] for f in params.get("Filters", [])}
    items, token = page(offerings(call, params.get("LocationType", "region"), filters), params, 1000, _KEYS)
    return {"InstanceTypeOfferings": items, "NextToken": token}


@answers("ec2", "GetSpotPlacementScores")
def get_spot_placement_scores(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """One fixed score (State.spot_score) where any of the types is offered, 1 elsewhere."""
    types = params.get("InstanceTypes", [])
    unknown = [t for t in types if t not in INSTANCE_TYPES]
    if unknown or not types:
        raise AwsError("InvalidParameterValue", f"Instance types: {unknown or 'at least one is required; the sandbox does not score requirements'}")
    regions = params.get("RegionNames") or [call.region]
    if regions != [call.region]:
        raise AwsError("InvalidParameterValue", f"The sandbox scores its own region {call.region} only, not {regions}")
    offered = {o["Location"] for o in offerings(call, "availability-zone-id", {"instance-type": types})}
    if params.get("SingleAvailabilityZone"):
        scores = [{"Region": call.region, "AvailabilityZoneId": zone, "Score": call.state.spot_score if zone in offered else 1} for zone in _zones(call)]
    else:
        scores = [{"Region": call.region, "Score": call.state.spot_score if offered else 1}]
    items, token = page(scores, params, keys=_KEYS)
    return {"SpotPlacementScores": items, "NextToken": token}


def _filtered(rows: list[dict[str, Any]], params: dict[str, Any], id_key: str) -> list[dict[str, Any]]:
    """Rows by id (unknown ids are an error, as in EC2) and by EC2 filters such as instance-type or tag:NAME."""
    wanted = params.get(f"{id_key}s")
    missing = set(wanted or []) - {r[id_key] for r in rows}
    if missing:
        raise AwsError(f"Invalid{id_key}.NotFound", f"The {id_key} {sorted(missing)[0]} does not exist")
    rows = [r for r in rows if not wanted or r[id_key] in wanted]
    for item in params.get("Filters", []):
        name, values = item["Name"], item["Values"]
        if name.startswith("tag:"):
            rows = [r for r in rows if any(t["Key"] == name[4:] and t["Value"] in values for t in r.get("Tags", []))]
        elif name == "tag-key":
            rows = [r for r in rows if any(t["Key"] in values for t in r.get("Tags", []))]
        else:
            key = re.sub(r"(?:^|-)(\w)", lambda m: m[1].upper(), name)
            rows = [r for r in rows if str(r.get(key, "")) in values]
    return rows


@answers("ec2", "DescribeCapacityReservations")
def describe_capacity_reservations(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    items, token = page(_filtered(call.state.reservations, params, "CapacityReservationId"), params, keys=_KEYS)
    return {"CapacityReservations": items, "NextToken": token}


@answers("ec2", "DescribeCapacityBlocks")
def describe_capacity_blocks(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    items, token = page(_filtered(call.state.blocks, params, "CapacityBlockId"), params, keys=_KEYS)
    return {"CapacityBlocks": items, "NextToken": token}


@answers("ec2", "DescribePlacementGroups")
def describe_placement_groups(_call: Call, _params: dict[str, Any]) -> dict[str, Any]:
    """There are none; Karpenter asks."""
    return {"PlacementGroups": []}
