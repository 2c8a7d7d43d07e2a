# SPDX-License-Identifier: GPL-3.0-or-later
"""The double as a process of its own for as long as a ``with`` block lasts: for tests, and whoever else needs AWS for a while."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from sandbox import ports, processes
from sandbox.aws import command
from sandbox.aws.control import Control

ROOT = Path(__file__).resolve().parent.parent.parent
# Long ones, because Ansible masks every occurrence of a secret in its output.
ACCESS_KEY, SECRET_KEY = "sandboxaccesskeyid0000", "sandboxsecretaccesskey0000"


@dataclass(frozen=True)
class RunningAws:
    """`url`, `pricing_url`: endpoints. `cluster`, `region`: what was seeded. `control`: the control API."""

    url: str
    pricing_url: str
    cluster: str
    region: str
    control: Control

    @property
    def env(self) -> dict[str, str]:
        """Environment with which AWS clients of any kind reach the double."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_PRICING": self.pricing_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, access_key: str = ACCESS_KEY) -> Any:
        """A boto3 client of the double; the same one for the same arguments, because making one takes half a second."""
        return _client(service, self.pricing_url if service == "pricing" else self.url, self.region, access_key)


@functools.cache
def _client(service: str, url: str, region: str, access_key: str) -> Any:
    return boto3.client(service, endpoint_url=url, region_name=region, aws_access_key_id=access_key, aws_secret_access_key=SECRET_KEY)


@contextmanager
def running_aws(folder: Path, cluster: str = "demo", region: str = "us-east-1", settle_seconds: float = 0.3, endpoint: str = "") -> Iterator[RunningAws]:
    """Start the double on free ports with its log in `folder`; ended when the block is left. Raises processes.ProcessError."""
    chosen = ports.choose({"aws": 0, "pricing": 0})
    argv = command(chosen["aws"], chosen["pricing"], cluster, region, endpoint, settle_seconds)
    log = folder / "aws.log"
    process = processes.spawn("aws", argv, log, {"PYTHONPATH": str(ROOT)})
    try:
        processes.wait_until("the AWS double", lambda: "ready" in log.read_text().splitlines(), [process], timeout=90)
        url = f"http://{ports.HOST}:{chosen['aws']}"
        yield RunningAws(url, f"http://{ports.HOST}:{chosen['pricing']}", cluster, region, Control(url))
    finally:
        processes.stop([process])
