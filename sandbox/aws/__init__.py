# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's AWS: moto's server plus what our roles and Karpenter need and moto lacks. See README.md beside this file."""

from __future__ import annotations

import sys


def command(port: int, pricing_port: int, cluster: str, region: str, cluster_endpoint: str = "", settle_seconds: float = 1.0) -> tuple[str, ...]:
    """The command line of the double, for a Python that finds this package; the arguments are those of `python -m sandbox.aws --help`."""
    return (
        sys.executable, "-m", "sandbox.aws", "--port", str(port), "--pricing-port", str(pricing_port), "--cluster", cluster, "--region", region,
        "--cluster-endpoint", cluster_endpoint, "--settle-seconds", str(settle_seconds),
    )  # fmt: skip
