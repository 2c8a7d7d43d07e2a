# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a server takes from the start of its container until it is ready: imports, reading the weights, compiling. Constants: _data/vllm.json."""

from __future__ import annotations

import math

from . import _data
from ._instances import Instance

GBIT_PER_GIB = 8.59
STEP_SECONDS = 30


def estimate(size_gib: float, mode: str, instance: Instance) -> tuple[float, str]:
    """(seconds, how they come about) for weights of that size, `mode` stream (from S3) or volume, on `instance`."""
    facts = _data.load("vllm")["startup"]
    if mode == "stream":
        rate = instance.network_gbps / GBIT_PER_GIB * facts["stream_nic_share"]
        where = f"{facts['stream_nic_share']:.0%} of {instance.network_gbps:g} Gbit/s ({instance.name})"
    else:
        rate, where = facts["volume_gib_per_second"], "a shared volume"
    seconds = facts["import_seconds"] + size_gib / rate + facts["compile_seconds"]
    how = f"imports {facts['import_seconds']} s + {size_gib:g} GiB at {rate:.2f} GiB/s ({where}) + compile and graphs {facts['compile_seconds']} s"
    return seconds, how


def budget(size_gib: float, mode: str, instances: list[Instance]) -> tuple[int, str]:
    """(seconds that a start may take, how): the estimate on the slowest of `instances` with a margin, in whole steps."""
    safety = _data.load("vllm")["startup"]["safety"]
    seconds, how = max(estimate(size_gib, mode, instance) for instance in instances)
    return math.ceil(safety * seconds / STEP_SECONDS) * STEP_SECONDS, f"{how}, times {safety}, in steps of {STEP_SECONDS} s"
