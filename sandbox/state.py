# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's memory between two commands: `<directory>/state.json`, and the lock that keeps two commands from changing it at once."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Process
from .settings import Settings

LOCK = "lock"


class StateError(RuntimeError):
    """The state cannot be used; the message says why and what to do."""


@dataclass
class State:
    """What `up` started: `settings`, one Process a part, `health` URL by part, and whether `up` came to its end."""

    settings: Settings
    processes: list[Process] = field(default_factory=list)
    health: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    @property
    def path(self) -> Path:
        return _path(self.settings.directory)

    def save(self) -> None:
        """Write it in one step, so that a reader never sees half of it."""
        document = {
            "home": str(self.settings.home),
            "ports": self.settings.ports,
            "processes": [p.to_dict() for p in self.processes],
            "health": self.health,
            "complete": self.complete,
        }
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=2) + "\n")
        part.replace(self.path)


def load(directory: Path) -> State | None:
    """The state that the last `up` left, None when there is none. Raises StateError when the file cannot be read."""
    path = _path(directory)
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text())
        settings = Settings(directory, Path(document["home"]), document["ports"])
        return State(settings, [Process.from_dict(row) for row in document["processes"]], document["health"], document["complete"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: found something that is not a sandbox's state ({error!r}); end its processes by hand and remove the file") from error


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the sandbox for one changing command. Raises StateError when another one has it, or when what lies in `directory` is not a sandbox's."""
    directory.mkdir(parents=True, exist_ok=True)
    # Both commands remove all that lies there, so a folder of somebody else's must be known before the first file of ours is in it.
    if (strangers := sorted(path.name for path in directory.iterdir())) and not (directory / LOCK).exists() and not _path(directory).exists():
        found = ", ".join(strangers[:3]) + (", ..." if len(strangers) > 3 else "")
        raise StateError(
            f"{directory}: found a folder with files that are not a sandbox's ({found}); needed: a new, an empty, or a sandbox's own folder; "
            "set LLMOPS_SANDBOX_DIR to another one"
        )
    with (directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateError(f"{directory}: found another `up` or `down` at work; wait until it has ended") from None
        yield


def _path(directory: Path) -> Path:
    return directory / "state.json"
