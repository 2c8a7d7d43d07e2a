# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, look at and stop the whole sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import build, objects, parts, ports, prometheus, state, writes
from .cluster import ControlPlane
from .processes import Process, ProcessError, spawn, stop, wait_until
from .settings import DEFAULT_PORTS, PEOPLE_KEY, REGION, Settings, env_file

HERE = Path(__file__).resolve().parent
READY_TIMEOUT = 120.0  # seconds for one part; a loaded machine takes several times the usual time
# The sandbox is for tests: the real period on EKS is 15 s.
CONTROLLER_FLAGS = ("--horizontal-pod-autoscaler-sync-period=2s",)


class SandboxError(RuntimeError):
    """The sandbox is not in the condition that a command needs; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """One line of `status`. `health` is "ok", "not answering" or "ended"; `tail` are the last lines of the log, where it is not "ok"."""

    name: str
    pid: int
    rss_mib: int
    health: str
    log: Path
    tail: str = ""


def up(directory: Path, say: Callable[[str], None]) -> Settings:
    """Build what is missing and start everything; return at once when it runs already.

    Raises BuildError, ProcessError (the part, and the last lines of its log) or SandboxError. After an error nothing runs, logs stay.
    """
    with state.locked(directory):
        present = state.load(directory)
        if present and any(p.running() for p in present.processes):
            ended = [p for p in present.processes if not p.running()]
            if ended or not present.complete:
                found = ", ".join(f"{p.name} has ended" for p in ended) or "an `up` that did not come to its end"
                tails = "".join(f"\nLast lines of {p.log}:\n{p.log_tail()}" for p in ended)
                raise SandboxError(f"sandbox in {directory}: found {found}; needed: all parts running; run `python -m sandbox down`, then `up`{tails}")
            say(f"The sandbox is up already ({directory})")
            _restore_kinds(present, say)
            return present.settings
        home = build.Builder(say).build()
        if present:
            stop(present.processes)  # children of a part that crashed may live
        _clean(directory, keep=(state.LOCK,))
        started = time.monotonic()
        settings = Settings(directory, home, ports.choose(DEFAULT_PORTS))
        for name, port in settings.ports.items():
            if port != DEFAULT_PORTS[name]:
                say(f"  port {DEFAULT_PORTS[name]} is taken: {name} gets {port}")
        current = state.State(settings)
        try:
            _start(current, say)
        except BaseException:
            stop(current.processes, grace=3)
            current.path.unlink(missing_ok=True)
            raise
        (directory / "env").write_text(env_file(settings.environment()))
        current.complete = True
        current.save()
        say(f"Sandbox up in {time.monotonic() - started:.0f} s: {len(current.processes)} processes, {sum(p.rss_mib() for p in current.processes)} MiB")
        return settings


def down(directory: Path, say: Callable[[str], None]) -> None:
    """Stop every process of the last `up` and remove its data; logs stay. Nothing to stop is fine."""
    with state.locked(directory):
        current = state.load(directory)
        if current is None:
            say("The sandbox is down")
            return
        running = [p for p in current.processes if p.running()]
        # All at once: the data is thrown away, so nobody needs to end in order.
        stop(current.processes, grace=3)
        _clean(directory, keep=(state.LOCK, "log"))
        say(f"The sandbox is down: {len(running)} processes ended, logs in {directory / 'log'}")


def status(directory: Path) -> list[Row]:
    """One row a part, in the order of starting; empty when the sandbox is down."""
    current = state.load(directory)
    if current is None:
        return []
    plane = _control_plane(current.settings)
    rows = []
    for process in current.processes:
        if not process.running():
            health = "ended"
        elif process.name == "kubeall":
            health = "ok" if plane.answers("/readyz") else "not answering"
        else:
            health = "ok" if _answers(current.health[process.name]) else "not answering"
        rows.append(Row(process.name, process.pid, process.rss_mib(), health, process.log, "" if health == "ok" else process.log_tail()))
    return rows


def count_writes(directory: Path) -> dict[str, Any]:
    """``{"kubernetes": int, "aws": int, "calls": {"<verb> <resource>": int}}``: writes of people and their tools since `up`."""
    settings = running_settings(directory)
    with (directory / "cluster" / "audit.log").open() as log:
        calls = writes.of_kubernetes(log)
    with urllib.request.urlopen(f"{settings.url('aws')}/sandbox/calls?last=0", timeout=10) as answer:
        aws = writes.of_aws(json.load(answer), PEOPLE_KEY["AWS_ACCESS_KEY_ID"])
    return {"kubernetes": calls.total(), "aws": aws, "calls": dict(sorted(calls.items()))}


def running_settings(directory: Path) -> Settings:
    """The settings of the sandbox that is up. Raises SandboxError when there is none."""
    current = state.load(directory)
    if current is None or not current.complete:
        raise SandboxError(f"found no sandbox that is up in {directory}; run `python -m sandbox up` first")
    return current.settings


def _control_plane(settings: Settings) -> ControlPlane:
    log = settings.directory / "log" / "kubeall.log"
    return ControlPlane(settings.directory / "cluster", settings.ports, CONTROLLER_FLAGS, settings.home / "bin" / "kubeall", log)


def _start(current: state.State, say: Callable[[str], None]) -> None:
    """Start all parts, each as soon as what it needs is there; much of a start is waiting for others."""
    settings = current.settings
    _link_programs(settings)
    plane = _control_plane(settings)
    _launch(current, parts.aws(settings))
    _add(current, plane.spawn())
    definitions = _definitions(settings)
    wait_until("the API server's /readyz", lambda: plane.answers("/readyz"), current.processes, READY_TIMEOUT)
    say("  API server is ready")
    _create(plane, [*definitions, *objects.keda_metrics_api(settings.ports["keda-adapter"]), *objects.system_nodes(REGION)])
    metrics = {part: settings.url(f"{part}-metrics").removeprefix("http://") for part in ("karpenter", "keda")}
    configuration = prometheus.write_configuration(settings.directory / "prometheus", metrics)
    stages = settings.directory / "kwok.yaml"
    stages.write_text((HERE / "config" / "kwok.yaml").read_text().replace("KUBERNETES_VERSION", build.VERSIONS["kubernetes"]))
    _wait_established(plane, definitions, current.processes)
    _launch(current, parts.kwok(settings, stages))
    _launch(current, parts.keda(settings))
    _launch(current, parts.keda_adapter(settings))
    _launch(current, parts.prometheus(settings, configuration))
    _launch(current, parts.standins(settings))
    _wait_healthy(current, "aws", say)
    _launch(current, parts.karpenter(settings))
    for name in [n for n in current.health if n != "aws"]:
        _wait_healthy(current, name, say)
    plane.wait_ready(READY_TIMEOUT)
    external = "/apis/external.metrics.k8s.io/v1beta1"
    wait_until("KEDA's external metrics API", lambda: plane.answers(external), current.processes, READY_TIMEOUT)
    nodes = [f"/api/v1/nodes/{node['metadata']['name']}" for node in objects.system_nodes(REGION)]
    wait_until("the system nodes", lambda: all(_node_ready(plane, path) for path in nodes), current.processes, READY_TIMEOUT)
    say("  nodes are ready")


def _definitions(settings: Settings) -> list[objects.Object]:
    return objects.custom_resource_definitions(settings.home / "share", HERE / "crds")


def _restore_kinds(current: state.State, say: Callable[[str], None]) -> None:
    """Create kinds that were removed with a chart, and start Karpenter anew: here it outlives its Deployment, and does not recover from losing its kinds."""
    plane = _control_plane(current.settings)
    # Not by `answers`: on a loaded machine a late answer would look like a missing kind.
    present = {line.rpartition("/")[2] for line in _kubectl(plane, "get", "customresourcedefinitions", "--output=name").split()}
    missing = [d for d in _definitions(current.settings) if d["metadata"]["name"] not in present]
    if not missing:
        return
    _create(plane, missing)
    _wait_established(plane, missing, current.processes)
    stop([p for p in current.processes if p.name == "karpenter"], grace=3)
    current.processes = [p for p in current.processes if p.name != "karpenter"]
    _launch(current, parts.karpenter(current.settings))
    _wait_healthy(current, "karpenter", say)
    say(f"  {len(missing)} kinds that had been removed are back")


def _launch(current: state.State, part: parts.Part) -> None:
    current.health[part.name] = part.health
    _add(current, spawn(part.name, part.argv, current.settings.directory / "log" / f"{part.name}.log", part.env))


def _add(current: state.State, process: Process) -> None:
    """Remember it at once: `down` must find it even if this program is killed now."""
    current.processes.append(process)
    current.save()


def _wait_healthy(current: state.State, name: str, say: Callable[[str], None]) -> None:
    wait_until(f"{name} ({current.health[name]})", lambda: _answers(current.health[name]), current.processes, READY_TIMEOUT)
    say(f"  {name} is ready")


def _answers(url: str) -> bool:
    """True if GET `url` answers 200 within a second."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def _create(plane: ControlPlane, manifests: list[objects.Object]) -> None:
    """Create objects in a new cluster, in one request each. Raises ProcessError with kubectl's message."""
    file = plane.directory / "setup.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
    _kubectl(plane, "create", "--validate=false", f"--filename={file}")


def _kubectl(plane: ControlPlane, *arguments: str) -> str:
    command = [str(plane.binary), "kubectl", f"--kubeconfig={plane.kubeconfig_of('setup')}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=READY_TIMEOUT, check=False)
    if done.returncode:
        raise ProcessError(f"setting up the cluster failed: {done.stderr.strip()}")
    return done.stdout


def _wait_established(plane: ControlPlane, definitions: list[objects.Object], processes: list[Process]) -> None:
    """A controller that starts before its kinds are served waits 10 s and more before it tries again."""
    served = {f"/apis/{d['spec']['group']}/{d['spec']['versions'][0]['name']}/{d['spec']['names']['plural']}?limit=1" for d in definitions}
    wait_until("the custom resources", lambda: all(plane.answers(path) for path in served), processes, READY_TIMEOUT)


def _node_ready(plane: ControlPlane, path: str) -> bool:
    node = plane.get(path)
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", []))


def _link_programs(settings: Settings) -> None:
    """`bin` for PATH (kubeall is kubectl by that name) and `charts` for LLM_CHARTS."""
    programs, charts = settings.directory / "bin", settings.directory / "charts"
    programs.mkdir()
    charts.mkdir()
    for name in ("helm", "promtool"):
        (programs / name).symlink_to(settings.program(name))
    (programs / "kubectl").symlink_to(settings.program("kubeall"))
    for folder in (settings.home / "share" / "charts", HERE / "charts"):
        for chart in folder.glob("*/Chart.yaml"):
            (charts / chart.parent.name).symlink_to(chart.parent)


def _clean(directory: Path, keep: tuple[str, ...]) -> None:
    for path in directory.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
