# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP ports on 127.0.0.1 for the parts of the sandbox."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below Linux' ephemeral range (32768 and up), so that no outgoing connection takes a port between its choice and its use.
RANGE = range(20000, 32000)


class PortError(RuntimeError):
    """No port could be found; the message says which range was tried."""


def is_free(port: int) -> bool:
    """True if nothing listens on `port` of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections in TIME_WAIT do not hold a port, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(preferred: dict[str, int]) -> dict[str, int]:
    """Return one free port a name: the preferred one, or any other when that is taken or 0. Raises PortError.

    All names are answered at once, because a port handed out is not in use yet and would be found free again.
    """
    chosen: dict[str, int] = {}
    for name, port in preferred.items():
        if not port or port in chosen.values() or not is_free(port):
            candidates = random.sample(RANGE, 200)
            port = next((p for p in candidates if p not in (*chosen.values(), *preferred.values()) and is_free(p)), 0)
        if not port:
            raise PortError(f"{name}: found no free port among 200 tried in {RANGE.start}-{RANGE.stop - 1} of {HOST}; end programs that listen there")
        chosen[name] = port
    return chosen
