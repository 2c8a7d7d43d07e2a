# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP API under /sandbox/ through which tests look at the double and break it. `control.Control` is its client; README.md lists it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from moto.cloudwatch.models import cloudwatch_backends
from moto.core.utils import get_service_model, utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.eks.models import eks_backends

from sandbox.aws import seed
from sandbox.aws.eks_cluster import AUTHENTICATION_MODES, VERSIONS
from sandbox.aws.state import ACCOUNT, Failure, NodegroupFault, State

PREFIX = "/sandbox/"
_ISSUE_CODES = get_service_model("eks").shape_for("NodegroupIssueCode").enum


class ControlError(ValueError):
    """A request that the control API does not understand; the message says what it takes."""


def control(state: State, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
    """Answer one request: HTTP status and a JSON value."""
    name = path[len(PREFIX) :].strip("/")
    try:
        if method == "GET" and name == "calls":
            return 200, _calls(state, parse_qs(query))
        if method == "GET" and name == "state":
            return 200, state.as_dict()
        if method != "POST" or name not in _COMMANDS:
            raise ControlError(f"found {method} {path}; needed GET {PREFIX}calls, GET {PREFIX}state or POST {PREFIX} with one of {', '.join(_COMMANDS)}")
        return 200, _COMMANDS[name](state, **json.loads(body or b"{}")) or {}
    except (ControlError, TypeError, ValueError) as error:
        return 400, {"error": str(error)}


def _calls(state: State, query: dict[str, list[str]]) -> dict[str, Any]:
    last = int(query.get("last", ["100"])[0])
    return {"writes": dict(state.writes), "calls": list(state.recent)[-last:] if last else []}


def _reset(state: State, resources: bool = False) -> None:
    state.reset()
    if resources:
        seed.sow(state)


def _settle(state: State, seconds: float) -> None:
    state.settle_seconds = float(seconds)


def _quota(state: State, quota_code: str, value: float | None = None, pending: float | None = None, usage: float | None = None) -> None:
    quota = state.quotas.get(quota_code)
    if quota is None:
        raise ControlError(f"quota_code: found {quota_code}; needed one of {', '.join(state.quotas)}")
    quota.value, quota.pending, quota.usage = value, pending, usage
    if usage is not None:
        dimensions = {"Class": quota.usage_class, "Resource": "vCPU", "Service": "EC2", "Type": "Resource"}
        cloudwatch_backends[ACCOUNT][state.region].put_metric_data(
            "AWS/Usage",
            [
                {
                    "MetricName": "ResourceCount",
                    "Value": usage,
                    "Timestamp": utcnow(),
                    "Unit": "None",
                    "Dimensions": [{"Name": k, "Value": v} for k, v in dimensions.items()],
                }
            ],
        )


def _fail(
    state: State,
    operation: str = "",
    code: str = "",
    message: str = "",
    status: int | None = None,
    times: int = 1,
    nodegroup: str = "",
    nodegroup_status: str = "",
    issues: list | None = None,
    update_errors: list | None = None,
) -> None:
    if bool(operation) == bool(nodegroup):
        raise ControlError('needed either operation ("eks:CreateNodegroup") with code and message, or nodegroup with nodegroup_status or update_errors')
    if operation:
        if ":" not in operation or not code:
            raise ControlError(f'operation: found {operation!r} with code {code!r}; needed "<boto3 service>:<Operation>" and an error code')
        state.failures.append(Failure(operation, code, message, status, times))
        return
    if nodegroup_status not in ("", "CREATE_FAILED", "DEGRADED") or not (nodegroup_status or update_errors):
        raise ControlError(f"nodegroup_status: found {nodegroup_status!r}; needed CREATE_FAILED or DEGRADED, or update_errors")
    unknown = [i.get("code") for i in issues or [] if i.get("code") not in _ISSUE_CODES]
    if unknown or (nodegroup_status and not issues):
        raise ControlError(f"issues: found codes {unknown}; needed at least one issue with code (one of EKS' NodegroupIssueCode), message and resourceIds")
    state.faults[nodegroup] = NodegroupFault(nodegroup_status, issues or [], update_errors or [])


def _offering(state: State, instance_type: str, zone: str, offered: bool) -> None:
    if instance_type not in INSTANCE_TYPES:
        raise ControlError(f"instance_type: found {instance_type}; needed an EC2 instance type")
    (state.unoffered.discard if offered else state.unoffered.add)((instance_type, zone))


def _subnet_ips(state: State, subnet: str, available: int) -> None:
    """`subnet`: id of a subnet, or a zone to mean the seeded subnet in it."""
    mine = [
        s
        for s in ec2_backends[ACCOUNT][state.region].describe_subnets()
        if s.id == subnet or (s.availability_zone == subnet and any(t["key"] == "karpenter.sh/discovery" for t in s.get_tags()))
    ]
    if not mine:
        raise ControlError(f"subnet: found {subnet}; needed the id of a subnet or a zone with a subnet tagged karpenter.sh/discovery")
    for item in mine:
        taken = item._available_ip_addresses - item.available_ip_address_count
        item._available_ip_addresses = available + taken


def _price(state: State, instance_type: str, usd_per_hour: float | None) -> None:
    if usd_per_hour is None:
        state.prices.pop(instance_type, None)
    else:
        state.prices[instance_type] = float(usd_per_hour)


def _deny(state: State, action: str, denied: bool = True) -> None:
    if ":" not in action:
        raise ControlError(f"action: found {action!r}; needed an IAM action such as ec2:DescribeCapacityReservations")
    (state.denied.add if denied else state.denied.discard)(action)


def _spot_score(state: State, score: int) -> None:
    if not 1 <= int(score) <= 10:
        raise ControlError(f"score: found {score}; needed 1 to 10")
    state.spot_score = int(score)


def _capacity(state: State, reservations: list | None = None, blocks: list | None = None) -> None:
    """Replace the account's capacity reservations and blocks, in the API's own shape; dates in ISO 8601."""
    for name, rows, key in (("reservations", reservations, "CapacityReservationId"), ("blocks", blocks, "CapacityBlockId")):
        if rows is None:
            continue
        if any(key not in row for row in rows):
            raise ControlError(f"{name}: every item needs {key}")
        setattr(state, name, [{k: dt.datetime.fromisoformat(v) if k.endswith("Date") else v for k, v in row.items()} for row in rows])


def _cluster(
    state: State,
    name: str = "",
    version: str | None = None,
    endpoint: str | None = None,
    authentication_mode: str | None = None,
    auto_mode: bool | None = None,
    status: str | None = None,
) -> None:
    cluster = eks_backends[ACCOUNT][state.region].clusters.get(name or state.cluster)
    if cluster is None:
        raise ControlError(f"name: found no cluster {name}; needed an existing one")
    if version is not None and version not in VERSIONS:
        raise ControlError(f"version: found {version}; needed one of {', '.join(VERSIONS)}")
    if authentication_mode not in (None, *AUTHENTICATION_MODES):
        raise ControlError(f"authentication_mode: found {authentication_mode}; needed one of {', '.join(AUTHENTICATION_MODES)}")
    changes = {
        "version": version,
        "endpoint": endpoint,
        "status": status,
        "access_config": authentication_mode and {"authenticationMode": authentication_mode},
        "compute_config": None if auto_mode is None else {"enabled": auto_mode},
    }
    for key, value in changes.items():
        if value is not None:
            setattr(cluster, key, value)


_COMMANDS: dict[str, Callable[..., Any]] = {
    "reset": _reset,
    "settle": _settle,
    "quota": _quota,
    "fail": _fail,
    "offering": _offering,
    "subnet-ips": _subnet_ips,
    "price": _price,
    "deny": _deny,
    "spot-score": _spot_score,
    "capacity": _capacity,
    "cluster": _cluster,
}
