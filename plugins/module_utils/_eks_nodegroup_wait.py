# SPDX-License-Identifier: GPL-3.0-or-later
"""eks_nodegroup: write one call after the other and wait, ending early with EKS' own reason. Controller side only."""

from __future__ import annotations

import contextlib
import time
from typing import Any

with contextlib.suppress(ImportError):  # the login says that boto3 is missing
    from botocore.exceptions import ClientError, WaiterError

from ansible_collections.amazon.aws.plugins.module_utils.waiter import BaseWaiterFactory, custom_waiter_config

from ._eks import AnsibleEksError, Call, call, code_of
from ._eks_nodegroup_plan import health, update_errors

# Seconds between two looks; a node group takes minutes.
PAUSE = 5
FAILED = ("CREATE_FAILED", "DELETE_FAILED", "DEGRADED")


def _status(state: str, *names: str) -> list[dict[str, Any]]:
    return [{"state": state, "matcher": "path", "argument": "nodegroup.status", "expected": name} for name in names]


class WaiterFactory(BaseWaiterFactory):
    """Waiters of node groups. botocore's own know neither DEGRADED nor updates and amazon.aws' waits out every failure."""

    @property
    def _waiter_model_data(self) -> dict[str, Any]:
        missing = {"state": "success", "matcher": "error", "expected": "ResourceNotFoundException"}
        group = {"operation": "DescribeNodegroup", "delay": PAUSE, "maxAttempts": 1}
        return {
            "active": {**group, "acceptors": [*_status("success", "ACTIVE"), *_status("failure", *FAILED, "DELETING")]},
            "settled": {**group, "acceptors": [missing, *_status("success", "ACTIVE", *FAILED, "DELETING")]},
            "deleted": {**group, "acceptors": [missing, *_status("failure", "DELETE_FAILED")]},
            "updated": {
                "operation": "DescribeUpdate",
                "delay": PAUSE,
                "maxAttempts": 1,
                "acceptors": [
                    {"state": state, "matcher": "path", "argument": "update.status", "expected": name}
                    for state, name in (("success", "Successful"), ("failure", "Failed"), ("failure", "Cancelled"))
                ],
            },
        }


class Patience:
    """Waits for one node group; `timeout` seconds are for everything together."""

    def __init__(self, client: Any, cluster: str, name: str, timeout: int):
        self.client, self.cluster, self.name, self.timeout = client, cluster, name, timeout
        self.deadline = time.monotonic() + timeout
        self.waiters = WaiterFactory()

    def active(self) -> None:
        """Until ACTIVE. Raises with the health issues on CREATE_FAILED, DELETE_FAILED and DEGRADED."""
        self._wait("active", "become ACTIVE", clusterName=self.cluster, nodegroupName=self.name)

    def settled(self) -> None:
        """Until nothing is being done to the group any more, well or not."""
        self._wait("settled", "finish what is being done to it", clusterName=self.cluster, nodegroupName=self.name)

    def deleted(self) -> None:
        self._wait("deleted", "be deleted", clusterName=self.cluster, nodegroupName=self.name)

    def updated(self, update: str) -> None:
        """Until the update with this id has succeeded. Raises with its errors."""
        self._wait("updated", "finish its update", name=self.cluster, nodegroupName=self.name, updateId=update)

    def delete(self, step: Call) -> None:
        """Make the call; a group that others deleted meanwhile is as good."""
        try:
            self.write(step)
        except AnsibleEksError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise

    def write(self, step: Call) -> str | None:
        """Make the call, as soon as nobody else's change is in the way, and return the id of the update that it started."""
        while True:
            try:
                return call(self.client, step.operation, **step.params).get("update", {}).get("id")
            except AnsibleEksError as error:
                if code_of(error) != "ResourceInUseException" or step.operation == "CreateNodegroup":
                    raise
                if time.monotonic() + PAUSE > self.deadline:
                    raise self._late("be free for a change", error.exception) from error
                self.settled()
                time.sleep(1)  # the state that refuses the call may lag behind the one that is shown

    def _wait(self, waiter: str, goal: str, **params: str) -> None:
        config = custom_waiter_config(max(1, int(self.deadline - time.monotonic())), PAUSE)
        try:
            self.waiters.get_waiter(self.client, waiter).wait(WaiterConfig=config, **params)
        except WaiterError as error:
            raise self._failure(error, goal) from error

    def _failure(self, error: WaiterError, goal: str) -> AnsibleEksError:
        answer = error.last_response or {}
        if answer.get("Error"):
            return AnsibleEksError(
                message=f"Failed to see node group {self.name} of cluster {self.cluster} {goal}",
                exception=ClientError(answer, "DescribeUpdate" if "update" in goal else "DescribeNodegroup"),
            )
        if "Max attempts exceeded" in str(error):
            return self._late(goal, None, health(answer.get("nodegroup", {})))
        if "update" in answer:
            update = answer["update"]
            reason = update_errors(update) or (update.get("cancellation") or {}).get("reason") or "EKS gives no reason"
            return self._error(
                f"its update {update.get('id')} ({update.get('type')}) ended as {update['status']}: {reason}",
                "remove the cause and run again; when pods cannot be drained, change their PodDisruptionBudget or set force_update: true",
            )
        group = answer["nodegroup"]
        return self._error(
            f"{group['status']}: {health(group) or 'EKS gives no reason'}",
            {
                "CREATE_FAILED": "remove the cause, delete the node group (state: absent) and create it again",
                "DELETE_FAILED": "remove the cause and delete it again",
                "DEGRADED": "remove the cause; EKS recovers the node group by itself",
            }.get(group["status"], "run again when it is gone"),
            "no such node group" if group["status"] == "DELETE_FAILED" else "ACTIVE",
        )

    def _error(self, found: str, fix: str, needed: str = "ACTIVE") -> AnsibleEksError:
        return AnsibleEksError(message=f"node group {self.name} of cluster {self.cluster}: found {found}; needed {needed}; fix: {fix}")

    def _late(self, goal: str, exception: BaseException | None, issues: str = "") -> AnsibleEksError:
        return AnsibleEksError(
            message=f"node group {self.name} of cluster {self.cluster} did not {goal} within {self.timeout} s"
            + (f"; EKS reports {issues}" if issues else "")
            + "; fix: look at its health in EKS, or raise wait_timeout",
            exception=exception,
        )
