# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a test can set, and the record of who called what. AWS' own resources live in moto's backends."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID

from sandbox.aws.api import AwsError, Call, load

ACCOUNT = DEFAULT_ACCOUNT_ID
# Anything else counts as a write, so that an operation nobody thought of is never overlooked.
READS = (
    "Get",
    "Describe",
    "List",
    "Head",
    "BatchGet",
    "Simulate",
    "Lookup",
    "Search",
    "Select",
    "Query",
    "Scan",
    "Receive",
    "Assume",
    "Validate",
    "Estimate",
    "Detect",
    "Test",
)
DENIED_CODE = {
    "ec2": "UnauthorizedOperation",
    "iam": "AccessDenied",
    "sts": "AccessDenied",
    "s3": "AccessDenied",
    "cloudformation": "AccessDenied",
    "sqs": "AccessDenied",
}
# IAM's names differ from the API's only for the services named here, and for S3's lists.
IAM_PREFIX = {"service-quotas": "servicequotas", "efs": "elasticfilesystem"}
IAM_ACTION = {
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
}


def is_write(operation: str) -> bool:
    return not operation.startswith(READS)


@dataclass
class Failure:
    """The next `times` calls of an operation ("eks:CreateNodegroup") answer this error."""

    operation: str
    code: str
    message: str
    status: int | None = None
    times: int = 1


@dataclass
class NodegroupFault:
    """How a node group fails: `status` CREATE_FAILED or DEGRADED with health `issues`, or `update_errors` for its next update."""

    status: str = ""
    issues: list[dict[str, Any]] = field(default_factory=list)
    update_errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Quota:
    """vCPUs. `value` None: never set for this account, so only the AWS default exists. `pending`: value of an open request."""

    code: str
    name: str
    value: float | None
    default: float
    usage_class: str
    pending: float | None = None
    usage: float | None = None


class State:
    """What was set through the control API, and the calls so far. One a server; guarded by the server's lock."""

    def __init__(self, cluster: str, region: str, cluster_endpoint: str, settle_seconds: float):
        self.cluster, self.region, self.cluster_endpoint = cluster, region, cluster_endpoint
        self._settle_default = settle_seconds
        self.writes: Counter[str] = Counter()
        self.recent: deque[dict[str, Any]] = deque(maxlen=1000)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was injected, and the calls."""
        self.settle_seconds = self._settle_default
        self.quotas = {q["code"]: Quota(**q) for q in load("quotas")["quotas"]}
        self.prices: dict[str, float] = dict(load("prices")["on_demand"])
        self.failures: list[Failure] = []
        self.faults: dict[str, NodegroupFault] = {}
        self.denied: set[str] = set()
        self.unoffered: set[tuple[str, str]] = set()
        self.spot_score = 7
        self.reservations: list[dict[str, Any]] = []
        self.blocks: list[dict[str, Any]] = []
        self.writes.clear()
        self.recent.clear()

    def refuse(self, call: Call) -> None:
        """Raise what a test asked for: a denied IAM action, or the next failure of this operation."""
        action = f"{IAM_PREFIX.get(call.service, call.service)}:{call.operation}"
        action = IAM_ACTION.get(action, action)
        if action in self.denied:
            code = DENIED_CODE.get(call.service, "AccessDeniedException")
            caller = f"arn:aws:iam::{ACCOUNT}:user/sandbox"
            raise AwsError(code, f"User: {caller} is not authorized to perform: {action} because no identity-based policy allows the action", status=403)
        for failure in self.failures:
            if failure.operation == f"{call.service}:{call.operation}":
                failure.times -= 1
                if failure.times <= 0:
                    self.failures.remove(failure)
                raise AwsError(failure.code, failure.message, failure.status)

    def record(self, call: Call, status: int, dry_run: bool) -> None:
        """Keep a write. Only one that AWS accepted counts; refused ones and dry runs are listed, not counted."""
        if not is_write(call.operation):
            return
        counted = status < 400 and not dry_run
        if counted:
            self.writes[call.access_key] += 1
        self.recent.append(
            {
                "time": round(time.time(), 3),
                "service": call.service,
                "operation": call.operation,
                "region": call.region,
                "access_key": call.access_key,
                "status": status,
                "counted": counted,
            }
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "region": self.region,
            "settle_seconds": self.settle_seconds,
            "quotas": [asdict(q) for q in self.quotas.values()],
            "denied": sorted(self.denied),
            "failures": [asdict(f) for f in self.failures],
            "nodegroup_faults": {k: asdict(v) for k, v in self.faults.items()},
            "not_offered": sorted(self.unoffered),
            "spot_score": self.spot_score,
        }
