# SPDX-License-Identifier: GPL-3.0-or-later
"""One shape for everything that a check finds: {check, severity, subject, found, needed, fix}, all strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SEVERITIES = ("error", "warning", "info")


def problem(check: str, subject: str, found: object, needed: object, fix: str, severity: str = "error") -> dict[str, str]:
    """One row. `check` is a stable snake_case name, `subject` what it is about (a model, node, node pool ...)."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
    return {"check": check, "severity": severity, "subject": subject, "found": str(found), "needed": str(needed), "fix": fix}


def errors(rows: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return [row for row in rows if row["severity"] == "error"]


def sentence(row: Mapping[str, str]) -> str:
    return f"{row['subject']}: found {row['found']}; needed {row['needed']}; fix: {row['fix']}"


def message(rows: Iterable[Mapping[str, str]], headline: str) -> str:
    """A failure message with all problems, one line each."""
    return "\n".join([headline, *(f"  - {sentence(row)}" for row in rows)])
