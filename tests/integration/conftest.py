# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that need a real API server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import build
from sandbox.cluster import ControlPlane


@dataclass(frozen=True)
class Cluster:
    """`kubeconfig`: admin access. `audit_log`: the API server's audit events, None on a cluster that we did not start."""

    kubeconfig: Path
    audit_log: Path | None


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster in $LLMOPS_TEST_KUBECONFIG, else a control plane of our own without nodes, on free ports.

    One for each file of tests: what is cluster-wide (kinds, nodes, node pools) would change what the next file sees.
    """
    if given := os.environ.get("LLMOPS_TEST_KUBECONFIG"):
        yield Cluster(Path(given), None)
        return
    binary = build.home() / "bin" / "kubeall"
    if not binary.exists():
        pytest.skip(f"no {binary}: run `python -m sandbox build`, or set LLMOPS_TEST_KUBECONFIG")
    with ControlPlane(tmp_path_factory.mktemp("cluster"), binary=binary) as plane:
        yield Cluster(plane.kubeconfig, plane.audit_log)
