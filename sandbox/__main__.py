# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sandbox COMMAND``: the command line of the sandbox."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import build, lifecycle
from .ports import PortError
from .processes import ProcessError
from .settings import state_directory
from .state import StateError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. 0: done; 1: failed, or `status` found a part that does not work; 3: `status` found it down."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (build.BuildError, ProcessError, PortError, StateError, lifecycle.SandboxError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A local EKS cluster without containers or a cloud account.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("build", _build, "build the programs (once, 12 to 25 minutes on 2 cores) without starting them")
    command("up", _up, "build what is missing and start everything")
    command("down", _down, "stop everything and forget the cluster; logs stay")
    command("status", _status, "show every part: pid, memory, health")
    command("env", _env, "print the variables as KEY=VALUE")
    execute = command("exec", _exec, "run a command with the sandbox's environment")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments")
    writes = command("writes", _writes, "count the writes of people and their tools since `up`, at the API server and at AWS")
    writes.add_argument("--json", action="store_true", help="as JSON, with the API server's writes by verb and resource")
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


def _build(_: argparse.Namespace) -> int:
    print(build.Builder(_say).build())
    return 0


def _up(_: argparse.Namespace) -> int:
    settings = lifecycle.up(state_directory(), _say)
    print(f"Environment: {settings.directory / 'env'}; run a command in it: python -m sandbox exec -- COMMAND")
    return 0


def _down(_: argparse.Namespace) -> int:
    lifecycle.down(state_directory(), _say)
    return 0


def _status(_: argparse.Namespace) -> int:
    rows = lifecycle.status(state_directory())
    if not rows:
        print(f"The sandbox in {state_directory()} is down")
        return 3
    print(f"{'part':14}{'pid':>8}{'MiB':>7}  health")
    for row in rows:
        print(f"{row.name:14}{row.pid:>8}{row.rss_mib:>7}  {row.health}{'' if row.health == 'ok' else f' (log: {row.log})'}")
    print(f"{'all':14}{'':8}{sum(r.rss_mib for r in rows):>7}")
    for row in rows:
        if row.tail:
            print(f"{row.name}: last lines of its log:\n{row.tail}")
    return 0 if all(row.health == "ok" for row in rows) else 1


def _env(_: argparse.Namespace) -> int:
    for key, value in lifecycle.running_settings(state_directory()).environment().items():
        print(f"{key}={value}")
    return 0


def _exec(arguments: argparse.Namespace) -> int:
    argv = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not argv:
        raise lifecycle.SandboxError("exec: found no command; needed: python -m sandbox exec -- COMMAND [ARGUMENT ...]")
    os.environ.update(lifecycle.running_settings(state_directory()).environment())
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise lifecycle.SandboxError(f"exec: {argv[0]} cannot be run: {error.strerror}") from error


def _writes(arguments: argparse.Namespace) -> int:
    counts = lifecycle.count_writes(state_directory())
    print(json.dumps(counts) if arguments.json else f"kubernetes {counts['kubernetes']}\naws {counts['aws']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
