# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask EC2 for instance types that the collection's table does not know. Controller side only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._aws import pages
from ._gpu_nodes_types import Row, row


def describe_types(client: Any, names: Iterable[str]) -> dict[str, Row]:
    """Rows of those of `names` that have NVIDIA GPUs. By a filter, because a name that EC2 does not know must not cost the answer for the others."""
    found = pages(client, "describe_instance_types", "InstanceTypes", Filters=[{"Name": "instance-type", "Values": list(names)}])
    return {item["InstanceType"]: known for item in found if (known := row(item))}
