# SPDX-License-Identifier: GPL-3.0-or-later
"""Run pods labelled `app.kubernetes.io/component: weights` for real on this machine: their commands, their environment, their volumes.

This is how a Job that copies weights does its work here. There is no container: the file system, network and user are this machine's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from ..processes import MARK
from . import pod_status
from .environment import ConfigError, clear, environment_of, mounts_of, translate, volume_folders
from .kube import LOG, Kube, KubeError, Object, path_of
from .pod_access import PodAccess, PodLog
from .pod_identity import has_identity
from .pod_status import Container
from .settings import Settings
from .vllm_pods import is_local

PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
HANDED_ON = (MARK, "AWS_", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", *PROXY, "HF_ENDPOINT")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
STOP_SECONDS = 5.0  # from SIGTERM to SIGKILL


def command_of(container: Object, mounts: dict[str, Path], environment: dict[str, str]) -> list[str]:
    """The command line with mount paths translated and Python replaced by ours. Raises ConfigError without `command`.

    `environment` is as the pod gives it, not translated yet.
    """
    words = [*container.get("command", []), *container.get("args", [])]
    if not container.get("command"):
        raise ConfigError(f"container {container['name']}: found no command; needed: one, because the sandbox has no image whose entry point it could run")
    for name, value in environment.items():
        words = [word.replace(f"$({name})", value) for word in words]
    words = [translate(word, mounts) for word in words]
    if Path(words[0]).name.startswith("python"):
        words[0] = sys.executable
    return words


def base_environment(home: Path, identified: bool) -> dict[str, str]:
    """What every container gets besides its own variables: our Python first on PATH, the AWS double's address, and keys if it has an identity."""
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON) and (identified or name not in KEYS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**handed_on, "PATH": path, "HOME": str(home), "TMPDIR": str(home), "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}


class LocalPod(threading.Thread):
    """One pod: its init containers one after another, then its containers, then the phase that follows from their exit codes."""

    def __init__(self, kube: Kube, settings: Settings, access: PodAccess, pod: Object, address: str, state_dir: Path) -> None:
        super().__init__(name=f"pod-{pod['metadata']['name']}", daemon=True)
        self.kube, self.settings, self.access, self.pod, self.address, self.state_dir = kube, settings, access, pod, address, state_dir
        self.uid: str = pod["metadata"]["uid"]
        self.scratch = state_dir / "pods" / self.uid
        self.ending = threading.Event()
        self.gone = False
        self.child: subprocess.Popen[bytes] | None = None
        blank = pod_status.waiting("PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating")
        self.inits = [Container(c["name"], c["image"], blank) for c in pod["spec"].get("initContainers", [])]
        self.containers = [Container(c["name"], c["image"], blank) for c in pod["spec"]["containers"]]

    def update(self, pod: Object | None) -> None:
        """The pod changed at the API server, or is gone (None)."""
        self.pod = pod or self.pod
        self.gone = self.gone or pod is None
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            self.end()

    def end(self) -> None:
        """Stop what runs."""
        self.ending.set()
        child = self.child
        if child and child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)

    def run(self) -> None:
        try:
            if self.pod.get("status", {}).get("phase") not in ("Succeeded", "Failed") and not self.ending.is_set():
                self.access.publish(self.pod)
                self._work()
            self.ending.wait()
            self.end()
            if not self.gone and not self.kube.closing.is_set():
                meta = self.pod["metadata"]
                self.kube.delete(path_of("v1", "pods", meta["namespace"], meta["name"]), 0, self.uid)
        except (KubeError, OSError, BotoCoreError, ClientError) as error:
            LOG.warning("%s: %s", self.name, error)
        finally:
            clear(self.scratch)

    def _work(self) -> None:
        self._show("Pending", initialised=False)
        while any(self.settings.image_fails(c["image"]) for c in self._specs()) and not self.ending.is_set():
            held = pod_status.waiting("ImagePullBackOff", "Back-off pulling image")
            self.containers = [replace(c, state=held) for c in self.containers]
            self._show("Pending", initialised=False)
            self.ending.wait(1.0)
        folders = self._volumes()
        if folders is None:
            return
        for group, specs in ((self.inits, self.pod["spec"].get("initContainers", [])), (self.containers, self.pod["spec"]["containers"])):
            for position, spec in enumerate(specs):
                code = self._run_with_restarts(group, position, spec, folders)
                if code is None or (code and group is self.inits):
                    break
            else:
                continue
            break
        if not self.ending.is_set():
            failed = any(c.state.get("terminated", {"exitCode": 1})["exitCode"] for c in [*self.inits, *self.containers])
            self._show("Failed" if failed else "Succeeded", initialised=not any(c.state.get("terminated", {"exitCode": 1})["exitCode"] for c in self.inits))

    def _specs(self) -> list[Object]:
        return [*self.pod["spec"].get("initContainers", []), *self.pod["spec"]["containers"]]

    def _volumes(self) -> dict[str, Path] | None:
        while not self.ending.is_set():
            try:
                return volume_folders(self.kube, self.pod, self.state_dir, self.scratch)
            except ConfigError as error:
                self._event("FailedMount", f"MountVolume.SetUp failed: {error}")
                self.ending.wait(1.0)
        return None

    def _run_with_restarts(self, group: list[Container], position: int, spec: Object, folders: dict[str, Path]) -> int | None:
        """Exit code of the last run; None when the pod is to end."""
        log = self.access.log(self.pod, spec["name"])
        while not self.ending.is_set():
            code = self._run_container(group, position, spec, folders, log)
            if not code or self.pod["spec"].get("restartPolicy", "Always") == "Never":
                return code
            ended = group[position].state
            group[position] = pod_status.crash_loop(group[position], self.pod, ended)
            self._show("Pending" if group is self.inits else "Running", initialised=group is self.containers)
            self.ending.wait(pod_status.back_off(group[position].restarts) * self.settings.time_scale)
            group[position] = replace(group[position], restarts=group[position].restarts + 1)
            log.rotate()
        return None

    def _run_container(self, group: list[Container], position: int, spec: Object, folders: dict[str, Path], log: PodLog) -> int | None:
        mounts = mounts_of(spec, folders)
        home = self.scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                given = environment_of(self.kube, self.pod, spec)
                words = command_of(spec, mounts, given)
                break
            except ConfigError as error:
                group[position] = replace(group[position], state=pod_status.waiting("CreateContainerConfigError", str(error)))
                self._show("Pending", initialised=group is self.containers)
                if self.ending.wait(1.0):
                    return None
        work = translate(spec.get("workingDir", ""), mounts)
        group[position] = replace(group[position], state=pod_status.running(), started=True, ready=group is self.containers)
        self._show("Running" if group is self.containers else "Pending", initialised=group is self.containers)
        own = {name: translate(value, mounts) for name, value in given.items()}
        code = self._execute(words, {**base_environment(home, has_identity(self.pod)), **own}, Path(work) if work and Path(work).is_dir() else home, log)
        message = log.tail() if code and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" else ""
        since = group[position].state["running"]["startedAt"]
        ended = pod_status.terminated(code if code >= 0 else 128 - code, since, message=message)
        group[position] = replace(group[position], state=ended, ready=group is self.inits and code == 0, started=False)
        return code

    def _execute(self, words: list[str], environment: dict[str, str], folder: Path, log: PodLog) -> int:
        if not shutil.which(words[0], path=environment["PATH"]):
            log.write(f'exec: "{words[0]}": executable file not found in $PATH of this machine', "stderr")
            return 127
        self.child = subprocess.Popen(
            # A group of its own, to be ended as one; in our session, which is how `down` finds it when we cannot end it any more.
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        if self.ending.is_set():  # asked to end between the look and the start
            self.end()
        assert self.child.stdout is not None
        for line in self.child.stdout:
            log.write(line.decode(errors="replace"))
        return self.child.wait()

    def _event(self, reason: str, message: str) -> None:
        self.kube.event({**self.pod, "apiVersion": "v1"}, "Pod", "Warning", reason, message)

    def _show(self, phase: str, initialised: bool = True) -> None:
        meta = self.pod["metadata"]
        patch = pod_status.pod_patch(self.pod, self.containers, self.address, initialised, self.inits, phase)
        self.kube.patch(path_of("v1", "pods", meta["namespace"], meta["name"]) + "/status", patch)


class LocalAgent:
    """Starts a LocalPod for every bound pod with the label."""

    def __init__(self, kube: Kube, settings: Settings, access: PodAccess, addresses: pod_status.Addresses, state_dir: Path) -> None:
        self.kube, self.settings, self.access, self.addresses, self.state_dir = kube, settings, access, addresses, state_dir
        self.pods: dict[tuple[str, str], LocalPod] = {}
        self._lock = threading.Lock()

    def on_pod(self, key: tuple[str, str], pod: Object | None) -> None:
        """Follow the API server's pods."""
        with self._lock:
            known = self.pods.get(key)
            if known and (pod is None or pod["metadata"]["uid"] != known.uid):
                del self.pods[key]
                # Ending a process takes seconds, and this is the watch's thread.
                threading.Thread(target=known.update, args=(None,), daemon=True).start()
                known = None
                if pod is None:
                    self.access.withdraw(*key)
            if pod is None or not is_local(pod) or not pod["spec"].get("nodeName"):
                return
            if known:
                threading.Thread(target=known.update, args=(pod,), daemon=True).start()
                return
            self.pods[key] = LocalPod(self.kube, self.settings, self.access, pod, self.addresses.take(), self.state_dir)
            if pod["metadata"].get("deletionTimestamp"):
                self.pods[key].ending.set()
            self.pods[key].start()

    def stop(self) -> None:
        """End every process; no child outlives us."""
        with self._lock:
            pods = list(self.pods.values())
        enders = [threading.Thread(target=pod.end) for pod in pods]
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()

    def state(self) -> list[Object]:
        """What runs, for GET /state."""
        with self._lock:
            return [
                {
                    "namespace": key[0],
                    "pod": key[1],
                    "pid": pod.child.pid if pod.child and pod.child.poll() is None else None,
                    "states": {c.name: next(iter(c.state)) for c in [*pod.inits, *pod.containers]},
                }
                for key, pod in self.pods.items()
            ]
