# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the mutating calls that people and their tools made: at the API server from its audit log, at AWS from the double's record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

MUTATING = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# Created, but never stored: questions to the API server, and streams to a container.
NOT_STORED = frozenset(
    {
        "selfsubjectreviews", "tokenreviews", "subjectaccessreviews", "localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews",
        "pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy", "serviceaccounts/token",
    }
)  # fmt: skip


def is_write(event: Mapping[str, Any]) -> bool:
    """True for an audit event of a call that was accepted, is stored, and was no dry run.

    The audit policy (`cluster.AUDIT_POLICY`) leaves the sandbox's own parts out of the log.
    """
    if event.get("verb") not in MUTATING or event.get("stage") != "ResponseComplete":
        return False
    reference = event.get("objectRef", {})
    resource = "/".join(part for part in (reference.get("resource"), reference.get("subresource")) if part)
    dry_run = "All" in parse_qs(urlsplit(event.get("requestURI", "")).query).get("dryRun", [])
    return resource not in NOT_STORED and not dry_run and event.get("responseStatus", {}).get("code", 0) < 400


def of_kubernetes(lines: Iterable[str]) -> Counter[str]:
    """Writes in an audit log (one JSON event a line) by "verb resource", for example ``{"patch deployments": 2}``.

    A last line that is still being written is left out.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        if line.endswith("\n") and is_write(event := json.loads(line)):
            counts[f"{event['verb']} {event['objectRef']['resource']}"] += 1
    return counts


def of_aws(calls: Mapping[str, Any], access_key: str) -> int:
    """Writes with the people's access key in the AWS double's answer to GET /sandbox/calls, ``{"writes": {access key: count}}``."""
    return int(calls["writes"].get(access_key, 0))
