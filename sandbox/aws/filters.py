# SPDX-License-Identifier: GPL-3.0-or-later
"""DescribeInstances: EC2 knows * and ? in the values of a filter, moto compares them letter by letter."""

from __future__ import annotations

import fnmatch
from typing import Any

import moto.ec2.utils


def install() -> None:
    """Give moto's instances EC2's wildcards."""
    literal = moto.ec2.utils.instance_value_in_filter_values

    def matches(value: Any, wanted: list[str]) -> bool:
        return literal(value, wanted) or (isinstance(value, str) and any(fnmatch.fnmatchcase(value, pattern) for pattern in wanted))

    moto.ec2.utils.instance_value_in_filter_values = matches
