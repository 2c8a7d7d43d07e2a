# SPDX-License-Identifier: GPL-3.0-or-later
"""Play the kubelet and vLLM for pods whose image is a vLLM: one server a pod, one thread that walks through the pod's life."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import pod_status, vllm_args
from .environment import ConfigError, Source, claim_folder, environment_of
from .kube import LOG, Kube, KubeError, Object, path_of
from .pod_access import PodAccess
from .pod_status import Container
from .settings import Settings
from .vllm_engine import Engine
from .vllm_engine import Load as EngineLoad
from .vllm_server import VERSION, VllmServer

GPU = "nvidia.com/gpu"
WEIGHTS = ("app.kubernetes.io/component", "weights")  # label of pods that local_pods.py runs for real: the copy Jobs of model_weights


def is_local(pod: Object) -> bool:
    """True for the pods of Jobs that copy weights."""
    return (pod["metadata"].get("labels") or {}).get(WEIGHTS[0]) == WEIGHTS[1]


def is_vllm(pod: Object) -> bool:
    """True for pods that this file plays; KWOK's stages (sandbox/config/kwok.yaml) leave them and the local ones alone by the same rule."""
    return not is_local(pod) and any("vllm" in c.get("image", "") for c in pod["spec"]["containers"])


@dataclass(frozen=True)
class End:
    """How a container ended: exit code, the kubelet's reason for it."""

    code: int
    reason: str = ""


class VllmPod(threading.Thread):
    """One pod from its binding to its removal. `on_ready` is called when the server starts or stops to serve."""

    def __init__(self, kube: Kube, settings: Settings, access: PodAccess, pod: Object, address: str, state_dir: Path, on_ready: Callable[[], None]) -> None:
        super().__init__(name=f"pod-{pod['metadata']['name']}", daemon=True)
        self.kube, self.settings, self.access, self.pod, self.address = kube, settings, access, pod, address
        self.state_dir, self.on_ready = state_dir, on_ready
        self.uid: str = pod["metadata"]["uid"]
        self.namespace: str = pod["metadata"]["namespace"]
        self.pod_name: str = pod["metadata"]["name"]
        self.spec: Object = next(c for c in pod["spec"]["containers"] if "vllm" in c.get("image", ""))
        self.ending = pod["metadata"].get("deletionTimestamp") is not None
        self.gone = False
        self.server: VllmServer | None = None
        self.serving = False
        self.log = access.log(pod, self.spec["name"])
        known = {c["name"]: c for c in pod.get("status", {}).get("containerStatuses", [])}
        self.container = Container(
            self.spec["name"], self.spec["image"], pod_status.waiting("ContainerCreating"), restarts=known.get(self.spec["name"], {}).get("restartCount", 0)
        )

    # What the agent tells this thread

    def update(self, pod: Object | None) -> None:
        """The pod changed at the API server, or is gone (None)."""
        if pod is not None:
            self.pod = pod
        with self.settings.changed:
            self.gone = self.gone or pod is None
            self.ending = self.ending or pod is None or pod["metadata"].get("deletionTimestamp") is not None
            self.settings.changed.notify_all()

    # The pod's life

    def run(self) -> None:
        try:
            self.access.publish(self.pod)
            self._live()
            if not self.gone and not self.kube.closing.is_set():
                self._terminate()
        except (KubeError, OSError) as error:
            LOG.warning("pod %s/%s: %s", self.namespace, self.pod_name, error)
        finally:
            self._stop_serving()

    def _live(self) -> None:
        self._show(pod_status.waiting("ContainerCreating"), initialised=False)
        while self.settings.image_fails(self.spec["image"]) and not self._over():
            self._refuse_image()
        while not self._over():
            end = self._run_once()
            if self._over() or end is None:
                return
            self._stop_serving()
            message = self.log.tail() if end.code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" else ""
            ended = pod_status.terminated(end.code, self.container.state.get("running", {}).get("startedAt", ""), end.reason, message)
            policy = self.pod["spec"].get("restartPolicy", "Always")
            if policy == "Never" or (policy == "OnFailure" and end.code == 0):
                self._show(ended)
                self._wait(None)
                return
            self.container = pod_status.crash_loop(self.container, self.pod, ended)
            self._show(self.container.state)
            self._event("Warning", "BackOff", self.container.state["waiting"]["message"])
            self._wait(pod_status.back_off(self.container.restarts) * self.settings.time_scale)
            self.container = replace(self.container, restarts=self.container.restarts + 1)
            self.log.rotate()

    def _refuse_image(self) -> None:
        image = self.spec["image"]
        problem = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {image}: not found'
        self._event("Warning", "Failed", f'Failed to pull image "{image}": {problem}')
        self._show(pod_status.waiting("ErrImagePull", problem), initialised=False)
        self._wait(0.5)
        self._show(pod_status.waiting("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {problem}'), initialised=False)
        self._wait(None, lambda: not self.settings.image_fails(image))

    def _run_once(self) -> End | None:
        """One run of the container. None: the pod is to end."""
        environment = self._environment()
        if environment is None:
            return None
        self._show(pod_status.running())
        try:
            args = vllm_args.of_container(self.spec, environment)
        except vllm_args.UsageError as error:
            self.log.write(str(error), "stderr")
            return End(2)
        if args is None:
            self.log.write("This command is not `vllm serve`; the stand-in ends it with success without running it.")
            return End(0)
        if not args.api_keys and environment.get("VLLM_API_KEY"):
            args = replace(args, api_keys=(environment["VLLM_API_KEY"],))
        self.log.write(f"INFO [utils.py] vLLM API server version {VERSION} (stand-in of the sandbox, no model is loaded)")
        self.log.write(f"INFO [utils.py] model {args.model}, served as {', '.join(args.served_names)}")
        if problem := self._start_problem(args, environment):
            self.log.write(f"ERROR {problem}", "stderr")
            return End(1)
        self.server = VllmServer(Engine(args))
        self.access.publish(self.pod, {args.port: self.server.port})
        return self._load(args) or self._serve()

    def _environment(self) -> dict[str, str] | None:
        """Variables of the container, as soon as everything that they refer to exists."""
        while not self._over():
            try:
                source = Source(self.kube, self.pod)
                for volume in self.pod["spec"].get("volumes", []):
                    if "secret" in volume:
                        source.data("secrets", volume["secret"]["secretName"], bool(volume["secret"].get("optional")))
                    if "configMap" in volume:
                        source.data("configmaps", volume["configMap"]["name"], bool(volume["configMap"].get("optional")))
            except ConfigError as error:
                self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                self._wait(1.0)
                continue
            try:
                environment = environment_of(self.kube, self.pod, self.spec)
            except ConfigError as error:
                self._show(pod_status.waiting("CreateContainerConfigError", str(error)))
                self._event("Warning", "Failed", f"Error: {error}")
                self._wait(1.0)
                continue
            if self.pod["spec"].get("enableServiceLinks", True) and self.kube.get(path_of("v1", "services", self.namespace, "vllm")):
                environment.setdefault("VLLM_PORT", "tcp://10.96.0.2:8000")
            return environment
        return None

    def _start_problem(self, args: vllm_args.ServeArgs, environment: dict[str, str]) -> str:
        """Why vLLM would end with exit code 1 at the start, or ""."""
        if "://" in environment.get("VLLM_PORT", ""):
            return f"ValueError: VLLM_PORT '{environment['VLLM_PORT']}' appears to be a URI. This may be caused by a Kubernetes service discovery issue"
        gpus = int(self.spec.get("resources", {}).get("limits", {}).get(GPU, 0))
        if not gpus and not self.pod["spec"].get("resourceClaims"):
            return "RuntimeError: Failed to infer device type: the container has no GPU"
        if gpus and args.gpus > gpus:
            return f"ValueError: World size ({args.gpus}) is larger than the number of available GPUs ({gpus}) in this node"
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in self.pod["spec"].get("volumes", []) if "persistentVolumeClaim" in v}
        for mount in self.spec.get("volumeMounts", []):
            point = mount["mountPath"].rstrip("/")
            if mount["name"] in claims and (args.model == point or args.model.startswith(point + "/")):
                inside = args.model.removeprefix(point).lstrip("/")
                folder = claim_folder(self.state_dir, self.namespace, claims[mount["name"]]) / mount.get("subPath", "") / inside
                if not (folder / "config.json").is_file():
                    return f"OSError: {args.model} does not appear to have a file named config.json (volume claim {claims[mount['name']]})"
        return ""

    def _load(self, args: vllm_args.ServeArgs) -> End | None:
        """From start to ready. An End when the server did not get there."""
        name, budget = args.served_names[0], pod_status.probe_budget(self.spec)
        probe, limit = budget or ("", float("inf"))
        behaviour = self.settings.model(name)
        waited = 0.0
        while waited < min(behaviour.load_seconds, limit) and not self._over():
            step = min(behaviour.load_seconds, limit) - waited
            waited += self._wait(step, lambda seen=behaviour: self.settings.model(name) != seen)
            behaviour = self.settings.model(name)
        if self._over():
            return End(137)
        if behaviour.load_seconds > limit:
            self._event(
                "Warning",
                "Unhealthy",
                f'{probe.capitalize()} probe failed: Get "http://{self.address}:{args.port}/health": dial tcp '
                f"{self.address}:{args.port}: connect: connection refused",
            )
            self._event("Normal", "Killing", f"Container {self.spec['name']} failed {probe} probe, will be restarted")
            # SIGTERM while the engine starts is swallowed, so the probe's (or the pod's) grace period always runs out.
            grace = self.spec[f"{probe}Probe"].get("terminationGracePeriodSeconds") or self.pod["spec"].get("terminationGracePeriodSeconds", 30)
            self._wait(grace * self.settings.time_scale)
            return End(137)
        texts = {
            "crash": "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
            "kv_cache": f"ValueError: To serve at least one request with the models's max seq len ({args.max_model_len}), more KV cache memory is needed "
            "than is available. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
        }
        if behaviour.fail in texts:
            self.log.write(f"ERROR {texts[behaviour.fail]}", "stderr")
            return End(1)
        return End(137, "OOMKilled") if behaviour.fail == "oom" else None

    def _serve(self) -> End | None:
        """From ready to the end."""
        server = self.server
        assert server is not None
        name = server.engine.args.served_names[0]
        server.listen()
        self.log.write("INFO Application startup complete.")
        self.serving = True
        self.container = replace(self.container, ready=True, started=True)
        self._show(self.container.state)
        self.on_ready()
        while not self._over():
            behaviour = self.settings.model(name)
            server.seconds_per_token = behaviour.seconds_per_token
            server.engine.hung = behaviour.fail == "hang"
            if behaviour.fail in ("crash", "engine_dead"):
                self.log.write("ERROR EngineCore encountered a fatal error. AsyncLLM output_handler failed.", "stderr")
                server.dead = True
                self._wait(1.0)
                return End(0)  # vLLM ends with success when its engine has died
            if behaviour.fail == "oom":
                return End(137, "OOMKilled")
            self._wait(None, lambda seen=behaviour: self.settings.model(name) != seen)
        return None

    def _terminate(self) -> None:
        """Deletion was asked for: preStop, SIGTERM, drain, gone."""
        scale = self.settings.time_scale
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds", 30) * scale
        code = 0
        if "running" in self.container.state:
            self._event("Normal", "Killing", f"Stopping container {self.spec['name']}")
        if self.server and self.server.listening and grace:
            pause = min(self._pre_stop() * scale, grace)
            self._wait(pause, lambda: self.gone, even_ending=True)
            engine = self.server.engine
            if engine.args.shutdown_timeout:
                self.server.draining = True
                drain = min(engine.args.shutdown_timeout * scale, grace - pause)
                self._wait(drain, lambda: self.gone or engine.real == 0, even_ending=True, poll=0.05)
            if engine.real:  # cut streams neither end nor go on, and the process waits for its clients until it is killed
                self.server.abort()
                self._wait(grace - pause, lambda: self.gone or engine.real == 0, even_ending=True, poll=0.05)
                code = 137 if engine.real else 0
        elif "running" in self.container.state and grace:
            code = 137  # SIGTERM while the engine starts is ignored
            self._wait(grace, lambda: self.gone, even_ending=True)
        self._stop_serving()
        if not self.gone:
            if "running" in self.container.state:
                ended = pod_status.terminated(code, self.container.state["running"]["startedAt"])
                self.container = replace(self.container, ready=False, started=False)
                self._show(ended)
            self.kube.delete(path_of("v1", "pods", self.namespace, self.pod_name), 0, self.uid)

    def _pre_stop(self) -> float:
        """Seconds of the preStop hook: the sleep action, or a `sleep` command."""
        hook = self.spec.get("lifecycle", {}).get("preStop", {})
        if "sleep" in hook:
            return float(hook["sleep"]["seconds"])
        match = re.search(r"\bsleep (\d+(?:\.\d+)?)", " ".join(hook.get("exec", {}).get("command", [])))
        return float(match[1]) if match else 0.0

    # Helpers

    def _over(self) -> bool:
        return self.ending or self.kube.closing.is_set()

    def _wait(self, seconds: float | None, until: Callable[[], bool] = lambda: False, even_ending: bool = False, poll: float = 1.0) -> float:
        """Wait until `until` is true, the pod is to end (unless `even_ending`) or `seconds` have passed. Returns the seconds waited."""
        waited = 0.0
        with self.settings.changed:
            while seconds is None or waited < seconds:
                if until() or (not even_ending and self.ending) or self.kube.closing.is_set():
                    break
                step = poll if seconds is None else min(poll, seconds - waited)
                self.settings.changed.wait(step)
                waited += step
        return waited

    def _stop_serving(self) -> None:
        was = self.serving
        self.serving = False
        if self.server:
            self.server.close()
            self.server = None
        if was:
            self.on_ready()

    def _event(self, kind: str, reason: str, message: str) -> None:
        self.kube.event({**self.pod, "apiVersion": "v1"}, "Pod", kind, reason, message)

    def _show(self, state: Object, initialised: bool = True) -> None:
        """Write the pod's status with this state of the server's container."""
        self.container = replace(self.container, state=state, ready=self.container.ready and "running" in state)
        alive = "running" in state or self.container.last is not None
        others = [
            Container(c["name"], c["image"], pod_status.running() if alive else pod_status.waiting("PodInitializing"), ready=alive, started=alive)
            for c in self.pod["spec"]["containers"]
            if c["name"] != self.spec["name"]
        ]
        done = pod_status.terminated(0, "") if initialised else pod_status.waiting("PodInitializing")
        inits = [Container(c["name"], c["image"], done, ready=initialised) for c in self.pod["spec"].get("initContainers", [])]
        patch = pod_status.pod_patch(self.pod, [self.container, *others], self.address, initialised, inits)
        self.kube.patch(path_of("v1", "pods", self.namespace, self.pod_name) + "/status", patch)


class VllmAgent:
    """Starts a VllmPod for every bound pod of ours and spreads the injected load over the ready ones."""

    def __init__(self, kube: Kube, settings: Settings, access: PodAccess, addresses: pod_status.Addresses, state_dir: Path) -> None:
        self.kube, self.settings, self.access, self.addresses, self.state_dir = kube, settings, access, addresses, state_dir
        self.pods: dict[tuple[str, str], VllmPod] = {}
        self._lock = threading.Lock()

    def on_pod(self, key: tuple[str, str], pod: Object | None) -> None:
        """Follow the API server's pods."""
        with self._lock:
            known = self.pods.get(key)
            if known and (pod is None or pod["metadata"]["uid"] != known.uid):
                known.update(None)
                del self.pods[key]
                known = None
                if pod is None:
                    self.access.withdraw(*key)
            if pod is None or not is_vllm(pod) or not pod["spec"].get("nodeName"):
                return
            over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")
            if known:
                known.update(pod)
            elif not over:
                self.pods[key] = VllmPod(self.kube, self.settings, self.access, pod, self.addresses.take(), self.state_dir, self.spread)
                self.pods[key].start()

    def servers(self) -> dict[tuple[str, str], VllmServer]:
        """The servers that answer, by (namespace, pod name)."""
        with self._lock:
            return {key: pod.server for key, pod in self.pods.items() if pod.serving and pod.server}

    def spread(self) -> None:
        """Give each ready server its share of its model's injected load."""
        by_model: dict[str, list[VllmServer]] = {}
        for server in self.servers().values():
            by_model.setdefault(server.engine.args.served_names[0], []).append(server)
        for model, servers in by_model.items():
            load = self.settings.loads.get(model)
            for number, server in enumerate(servers):
                total = int(load.concurrency) if load else 0
                share = total // len(servers) + (number < total % len(servers))
                server.engine.set_load(EngineLoad(float(share), load.kv_cache_usage if load else None))

    def state(self) -> list[Object]:
        """What runs, for GET /state."""
        with self._lock:
            pods = list(self.pods.values())
        rows = []
        for pod in pods:
            server = pod.server
            rows.append(
                {
                    "namespace": pod.namespace,
                    "pod": pod.pod_name,
                    "node": pod.pod["spec"].get("nodeName", ""),
                    "state": next(iter(pod.container.state)),
                    "restarts": pod.container.restarts,
                    "ready": pod.serving,
                    "model": server.engine.args.served_names[0] if server else "",
                    "url": f"http://127.0.0.1:{server.port}" if server and pod.serving else "",
                    "running": server.engine.running if server else 0,
                    "waiting": server.engine.waiting if server else 0,
                }
            )
        return rows
