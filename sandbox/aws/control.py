# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of the AWS double's control API, for tests. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class ControlError(RuntimeError):
    """The double refused a command; the message is its own."""


class Control:
    """Look at and break the AWS double behind `url` (AWS_ENDPOINT_URL)."""

    def __init__(self, url: str):
        self.url = url.rstrip("/") + "/sandbox/"

    def ask(self, name: str, body: dict[str, Any] | None = None) -> Any:
        """Send one command of the control API by its name; the other methods are its words."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + name, data=data), timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ControlError(json.load(error).get("error", str(error))) from None

    def calls(self, last: int = 100) -> list[dict[str, Any]]:
        """The last writes, refused ones and dry runs included: {time, service, operation, region, access_key, status, counted}."""
        return self.ask(f"calls?last={last}")["calls"]

    def writes(self) -> dict[str, int]:
        """Accepted writes since the start or the last reset, per access key."""
        return self.ask("calls?last=0")["writes"]

    def state(self) -> dict[str, Any]:
        return self.ask("state")

    def reset(self, resources: bool = False) -> None:
        """Forget calls and everything injected; with `resources` also drop all AWS resources and seed again (new subnet ids)."""
        self.ask("reset", {"resources": resources})

    def settle(self, seconds: float) -> None:
        """How long node groups, updates and add-ons stay in a transitional state; applies to those under way, too."""
        self.ask("settle", {"seconds": seconds})

    def quota(self, quota_code: str, value: float | None, pending: float | None = None, usage: float | None = None) -> None:
        """vCPUs of an EC2 quota; None: never set, only the AWS default exists. `usage` is what CloudWatch reports as used."""
        self.ask("quota", {"quota_code": quota_code, "value": value, "pending": pending, "usage": usage})

    def fail(self, operation: str, code: str, message: str = "injected by a test", status: int | None = None, times: int = 1) -> None:
        """The next `times` calls of "service:Operation" (boto3's service name) answer this error."""
        self.ask("fail", {"operation": operation, "code": code, "message": message, "status": status, "times": times})

    def fail_nodegroup(self, name: str, status: str = "CREATE_FAILED", code: str = "AsgInstanceLaunchFailures", message: str = "injected by a test") -> None:
        """Let a node group end as CREATE_FAILED or DEGRADED with this health issue; once."""
        self.ask("fail", {"nodegroup": name, "nodegroup_status": status, "issues": [{"code": code, "message": message, "resourceIds": [name]}]})

    def fail_nodegroup_update(self, name: str, code: str = "PodEvictionFailure", message: str = "injected by a test") -> None:
        """Let the node group's next update end as Failed."""
        self.ask("fail", {"nodegroup": name, "update_errors": [{"errorCode": code, "errorMessage": message, "resourceIds": [name]}]})

    def offering(self, instance_type: str, zone: str, offered: bool = False) -> None:
        self.ask("offering", {"instance_type": instance_type, "zone": zone, "offered": offered})

    def subnet_ips(self, subnet: str, available: int) -> None:
        """Free addresses of a subnet (id, or zone of a seeded one)."""
        self.ask("subnet-ips", {"subnet": subnet, "available": available})

    def price(self, instance_type: str, usd_per_hour: float | None) -> None:
        """On-demand price; None: no price known."""
        self.ask("price", {"instance_type": instance_type, "usd_per_hour": usd_per_hour})

    def deny(self, action: str, denied: bool = True) -> None:
        """Refuse an IAM action such as ec2:DescribeCapacityReservations with the service's access error."""
        self.ask("deny", {"action": action, "denied": denied})

    def spot_score(self, score: int) -> None:
        self.ask("spot-score", {"score": score})

    def capacity(self, reservations: list[dict] | None = None, blocks: list[dict] | None = None) -> None:
        """Replace the capacity reservations and blocks, in EC2's own shape; dates in ISO 8601."""
        self.ask("capacity", {"reservations": reservations, "blocks": blocks})

    def cluster(self, **changes: Any) -> None:
        """Change the cluster: name (default the seeded one), version, endpoint, authentication_mode, auto_mode, status."""
        self.ask("cluster", changes)
