# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that need a real API server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from site_runs import Site, own_site, running_site

from sandbox import build
from sandbox.cluster import ControlPlane
from sandbox.settings import state_directory


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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The playbooks with the sandbox in $LLMOPS_SANDBOX_DIR, where one is up, else with one of our own. The tests that take it leave it empty."""
    if os.environ.get("LLMOPS_SANDBOX_DIR") and (present := running_site(state_directory())):
        yield present
        return
    if not build.Builder().complete():
        pytest.skip(f"no complete build in {build.home()}: run `python -m sandbox build`")
    with own_site(tmp_path_factory.mktemp("site")) as own:
        yield own
