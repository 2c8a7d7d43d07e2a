# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the collection's data files (facts that age). Controller side only: modules sent to a host do not carry them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@functools.cache
def load(name: str) -> Any:
    """Return the parsed `_data/<name>.json`. Every such file states `as_of` and `source`. The result is shared: do not change it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
