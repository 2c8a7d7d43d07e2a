# SPDX-License-Identifier: GPL-3.0-or-later
"""EKS: what happens to a node group over time (CREATING, UPDATING, DELETING) and the updates that describe it.

Nothing runs in the background: every request first settles what is due, `state.settle_seconds` after it was asked for.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from moto.eks.models import Cluster

from sandbox.aws.api import Call, answers
from sandbox.aws.eks_cluster import eks_error, extras, find_cluster, now
from sandbox.aws.state import NodegroupFault, State


@dataclass
class Update:
    """An update in the API's shape and the node group it belongs to; `result` are fields of the group that change when it succeeds."""

    body: dict[str, Any]
    nodegroup: str
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class Nodegroup:
    """A node group in the API's shape; `since` (monotonic seconds) is when its transitional state began."""

    body: dict[str, Any]
    since: float
    update: Update | None = None

    @property
    def status(self) -> str:
        return self.body["status"]

    def enter(self, status: str) -> None:
        self.body.update(status=status, modifiedAt=now())
        self.since = time.monotonic()


def start_update(cluster: Cluster, group: Nodegroup, kind: str, params: dict[str, Any], result: dict[str, Any] | None = None) -> Update:
    """Put the group in UPDATING and record the update; `params` maps the API's parameter types to values, empty ones are left out."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items() if v not in (None, {}, [])}
    body = {
        "id": str(uuid.uuid4()),
        "status": "InProgress",
        "type": kind,
        "createdAt": now(),
        "errors": [],
        "params": [{"type": k, "value": v} for k, v in texts.items()],
    }
    group.update = extras(cluster).updates[body["id"]] = Update(body, group.body["nodegroupName"], result or {})
    group.enter("UPDATING")
    return group.update


def settle(state: State, cluster: Cluster) -> None:
    """Finish every transition of the cluster's node groups that is due, with the failures that a test asked for."""
    for name, group in list(cluster.nodegroups.items()):
        fault = state.faults.get(name)
        if group.status == "ACTIVE" and fault and fault.status == "DEGRADED":
            _sicken(state, group, fault)
        if group.status not in ("CREATING", "UPDATING", "DELETING") or time.monotonic() - group.since < state.settle_seconds:
            continue
        if group.status == "DELETING":
            del cluster.nodegroups[name]
            cluster.nodegroup_count = len(cluster.nodegroups)
        elif group.status == "CREATING":
            if fault and fault.status:
                _sicken(state, group, fault)
            else:
                group.enter("ACTIVE")
        else:
            _finish_update(state, group, fault)


def _sicken(state: State, group: Nodegroup, fault: NodegroupFault) -> None:
    """Let the fault show, once: a group created again under the same name is healthy."""
    group.enter(fault.status)
    group.body["health"] = {"issues": fault.issues}
    del state.faults[group.body["nodegroupName"]]


def _finish_update(state: State, group: Nodegroup, fault: NodegroupFault | None) -> None:
    if fault and fault.update_errors:
        group.update.body.update(status="Failed", errors=fault.update_errors)
        del state.faults[group.body["nodegroupName"]]
    else:
        group.update.body["status"] = "Successful"
        group.body.update(group.update.result)
    group.update = None
    group.enter("DEGRADED" if group.body["health"]["issues"] else "ACTIVE")


def _updates(call: Call, params: dict[str, Any]) -> dict[str, Update]:
    cluster = find_cluster(call, params["name"])
    settle(call.state, cluster)
    return {k: u for k, u in extras(cluster).updates.items() if u.nodegroup == params.get("nodegroupName")}


@answers("eks", "DescribeUpdate")
def describe_update(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    update = _updates(call, params).get(params["updateId"])
    if update is None:
        raise eks_error("ResourceNotFoundException", f"No update found for ID: {params['updateId']}", clusterName=params["name"])
    return {"update": update.body}
