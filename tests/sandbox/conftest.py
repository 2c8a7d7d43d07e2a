# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the sandbox's own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.aws.running import RunningAws, running_aws


@pytest.fixture(scope="session")
def aws_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAws]:
    with running_aws(tmp_path_factory.mktemp("aws"), endpoint="https://127.0.0.1:16443") as double:
        yield double


@pytest.fixture
def aws(aws_process: RunningAws) -> RunningAws:
    """The AWS double as freshly seeded, one process for all tests."""
    aws_process.control.reset(resources=True)
    return aws_process
