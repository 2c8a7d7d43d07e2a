# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sandbox.standins``: run all stand-ins until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from pathlib import Path

from .app import Options, StandIns


def main() -> int:
    """Parse the command line, run, end on SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.standins", description="Play what the sandbox cannot run: see sandbox/standins/README.md")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--control-port", type=int, required=True, help="port of the control API on 127.0.0.1; 0 takes any free one")
    parser.add_argument("--state-dir", type=Path, required=True, help="folder for logs, volumes and scratch files")
    parser.add_argument("--prometheus-dir", type=Path, required=True, help="folder in which rules/ and scrape/ are written")
    parser.add_argument("--prometheus-url", default="", help="Prometheus to reload after a change")
    parser.add_argument("--load-seconds", type=float, default=3.0, help="seconds from a server's start to ready [3]")
    parser.add_argument("--time-scale", type=float, default=0.1, help="share of a kubelet's back-offs, drains and sleeps that is really waited [0.1]")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    standins = StandIns(Options(**vars(options)))
    standins.start()
    print("ready", standins.url, flush=True)
    over.wait()
    standins.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
