# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rollout knows about one thing it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NEVER = math.inf  # patience of a state that may last until the timeout: it is normal, or nobody can tell


@dataclass(frozen=True)
class Finding:
    """Why something is not ready. It is a failure once it has been seen for `patience` seconds without a break (0: at once)."""

    check: str
    found: str
    needed: str = "a ready object"
    fix: str = "look at its events (kubectl describe)"
    patience: float = NEVER
    # (pod, container, previous): whose log tells more.
    log_of: tuple[str, str, bool] | None = None


@dataclass(frozen=True)
class Verdict:
    """Of one look at one object: ready, or why not. `inspect`: its pods, claims or events may tell more."""

    ready: bool
    finding: Finding | None = None
    inspect: bool = field(default=False)


READY = Verdict(True)


def waiting(found: str, needed: str = "a ready object", inspect: bool = False) -> Verdict:
    return Verdict(False, Finding("waiting", found, needed), inspect)


def failed(check: str, found: str, needed: str, fix: str, patience: float = 0, inspect: bool = False) -> Verdict:
    return Verdict(False, Finding(check, found, needed, fix, patience), inspect)
