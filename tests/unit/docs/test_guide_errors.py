# SPDX-License-Identifier: GPL-3.0-or-later
"""Every place that docs/guide_errors.md names exists and holds the text that the page says stands there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guide_errors.md"
# [label](path), then the text in one or two backquotes (two where the text has one itself).
PLACE = re.compile(r"\[[^\]]+\]\(([^)]+)\) (`{1,2})(.+?)\2(?!`)")
ROWS = [line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
ERRORS = [[cell.strip() for cell in row] for row in ROWS if not re.fullmatch(r"\*\*[\w ]+\*\*", row[0].strip())]
PLACES = sorted({(path, text) for row in ERRORS for path, _quotes, text in PLACE.findall(row[2])})


@pytest.mark.parametrize(("path", "text"), PLACES)
def test_the_place_holds_the_text(path, text):
    file = (PAGE.parent / path).resolve()
    assert file.is_file(), f"docs/guide_errors.md links to {path}, which does not exist"
    assert text in file.read_text(encoding="utf-8"), f"docs/guide_errors.md says that {path} holds {text!r}"


def test_every_row_is_whole():
    assert len(ERRORS) >= 45, "the table of the guide's errors was not read"
    for row in ERRORS:
        assert [bool(cell) for cell in row] == [True] * 3, f"needed three filled cells: {row}"
        assert row[2].count("](") == len(PLACE.findall(row[2])) > 0, f"needed at least one link, each followed by its text: {row[2]}"


def test_no_error_stands_twice():
    said = [row[0] for row in ERRORS]
    assert sorted(set(said)) == sorted(said)
