# SPDX-License-Identifier: GPL-3.0-or-later
"""`make demo`: from an empty cluster to two served models, a second run that changes nothing, and what happens under load.

Writes `demo.json` into the sandbox's folder: {"runs": [{changed, failed, seconds, api_writes}], "models": [{name, ready, replicas, instance_types}],
"scaling": [{t, load, replicas, nodes}]}. Seconds are wall time, `t` counts from the moment the load rises. The sandbox stays up.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from . import lifecycle
from .settings import ROOT, Settings, state_directory
from .standins.control import Control

RESULT = "demo.json"  # in the sandbox's folder, and gone with the sandbox
SCALED, NAMESPACE = "llama-3-1-8b", "llm-serving"
LOAD = 100  # requests in flight: several times what one replica is to carry, so with a spare one this wants all four
GPU_NODES = "karpenter.sh/nodepool"
UP_SECONDS, DOWN_SECONDS = 240, 240  # a third of it on an idle machine
QUIET_SECONDS = 15.0  # after so long without a line a step says how far the cluster is


class DemoError(RuntimeError):
    """A step did not come to its end; the message says what was seen instead."""


class Demo:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.env = {**os.environ, **settings.environment(), "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_DEPRECATION_WARNINGS": "0"}
        self.control = Control(self.env["LLM_SANDBOX_CONTROL"])
        self.result: dict[str, Any] = {"runs": [], "models": [], "scaling": []}
        self.began = time.monotonic()

    def run(self) -> None:
        self.needs_an_empty_cluster()
        title("1. site.yml on an empty cluster")
        self.site()
        title("2. The models answer")
        self.models()
        title("3. site.yml again: nothing to do")
        self.site()
        title(f"4. {LOAD} requests in flight for {SCALED}: Prometheus -> KEDA -> HPA -> Karpenter")
        self.load_up_and_down()
        self.summary()

    def needs_an_empty_cluster(self) -> None:
        """The first run is to install all. Raises DemoError when an earlier one has."""
        there = [d["metadata"]["name"] for d in self.kubectl("get", "deployments", "-n", NAMESPACE)["items"]]
        if there:
            found = f"found a cluster that serves {', '.join(sorted(there))} already"
            raise DemoError(f"{found}; needed: an empty one, whose first run the demo times; run: make sandbox-down, then make demo")

    def site(self) -> None:
        """Run site.yml, show what changes as it happens, and note what it took."""
        writes, started = self.writes(), time.monotonic()
        argv = ["ansible-playbook", "-i", "inventories/sandbox", "site.yml"]
        process = subprocess.Popen(argv, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        task, recap, output = "", {}, []
        assert process.stdout is not None
        try:
            for line in lines(process.stdout, QUIET_SECONDS, lambda: say(f"{time.monotonic() - started:5.0f} s  ... {self.progress()}")):
                output.append(line)
                if match := re.match(r"TASK \[(?:llmops\.eks\.)?(.+?)\] \*", line):
                    task = match[1]
                    if " : " in task and re.search(r" : (Wait|Ask|Install|Apply|Keep)", task):
                        say(f"{time.monotonic() - started:5.0f} s  {task}")
                elif match := re.match(r"localhost +: .*?changed=(\d+).*?failed=(\d+)", line):
                    recap = {"changed": int(match[1]), "failed": int(match[2])}
        except BaseException:  # it would go on writing into the cluster
            process.terminate()
            process.wait()
            raise
        if process.wait() or not recap:
            raise DemoError(f"site.yml failed at {task}:\n{''.join(output[-40:])}")
        seconds = round(time.monotonic() - started, 1)
        run = {**recap, "seconds": seconds, "api_writes": self.writes() - writes}
        self.result["runs"].append(run)
        say(f"        changed={run['changed']} failed={run['failed']} in {seconds:.0f} s, {run['api_writes']} writes at Kubernetes and AWS")

    def progress(self) -> str:
        """How far the servers are, in one clause."""
        pods = self.kubectl("get", "pods", "-n", NAMESPACE)["items"]
        ready = [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", []))]
        return f"{len(ready)} of {len(pods)} pods in {NAMESPACE} ready, {len(self.gpu_nodes())} GPU nodes"

    def models(self) -> None:
        """Ask each model through the API server, with its key, as the role did."""
        deployments = {d["metadata"]["name"]: d for d in self.kubectl("get", "deployments", "-n", NAMESPACE)["items"]}
        endpoints = [{"name": n, "namespace": NAMESPACE, "model": n, "api_key_secret": {"name": f"{n}-api-key"}} for n in sorted(deployments)]
        arguments = json.dumps({"endpoints": endpoints})
        argv = ["ansible", "-i", "inventories/sandbox", "localhost", "-m", "llmops.eks.endpoint_check", "-a", arguments]
        env = {**self.env, "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"a model does not answer:\n{done.stdout}{done.stderr}")
        for answer in json.loads(done.stdout.split("=>", 1)[1])["endpoints"]:
            name = answer["name"]
            status = deployments[name]["status"]
            types = sorted({node["type"] for node in self.gpu_nodes() if node["name"] in self.nodes_of(name)})
            ready = status.get("readyReplicas", 0)
            self.result["models"].append({"name": name, "ready": ready > 0, "replicas": ready, "instance_types": types})
            say(f"        {name} on {', '.join(types)}: {answer['text']!r} ({answer['completion_tokens']} tokens in {answer['seconds']} s)")

    def load_up_and_down(self) -> None:
        before, started = len(self.gpu_nodes()), time.monotonic()
        self.control.load(SCALED, LOAD)
        try:
            self.watch(LOAD, started, UP_SECONDS, lambda replicas, nodes: replicas >= 3 and nodes > before, f"3 replicas and more than {before} GPU nodes")
        finally:
            self.control.load(SCALED, 0)
        self.watch(0, started, DOWN_SECONDS, lambda replicas, nodes: replicas == 1 and nodes <= before, f"1 replica and {before} GPU nodes")

    def watch(self, load: int, started: float, seconds: float, reached: Any, wanted: str) -> None:
        """Note each change of ready replicas and GPU nodes until `reached`. Raises DemoError after `seconds`."""
        end = time.monotonic() + seconds
        last: tuple[int, int] | None = None
        while True:
            deployment = self.kubectl("get", "deployment", SCALED, "-n", NAMESPACE)
            seen = deployment["status"].get("readyReplicas", 0), len(self.gpu_nodes())
            if seen != last:
                t = round(time.monotonic() - started, 1)
                self.result["scaling"].append({"t": t, "load": load, "replicas": seen[0], "nodes": seen[1]})
                wanted_replicas = deployment["spec"]["replicas"]
                say(f"{t:6.0f} s  load {load:3d}: {seen[0]} of {wanted_replicas} replicas ready on {seen[1]} GPU nodes")
                last = seen
            if reached(*seen):
                return
            if time.monotonic() > end:
                raise DemoError(f"found {seen[0]} replicas and {seen[1]} GPU nodes after {seconds:.0f} s; needed {wanted}; look at `python -m sandbox status`")
            time.sleep(1)

    def summary(self) -> None:
        title("Summary")
        first, second = self.result["runs"]
        scaling = self.result["scaling"]
        peak = max(row["replicas"] for row in scaling)
        say(f"first run    {first['changed']} changes, {first['api_writes']} writes, {first['seconds']:.0f} s")
        say(f"second run   {second['changed']} changes, {second['api_writes']} writes, {second['seconds']:.0f} s")
        say(f"under load   {peak} replicas, {max(r['nodes'] for r in scaling)} GPU nodes; back to {scaling[-1]['replicas']} on {scaling[-1]['nodes']}")
        path = self.settings.directory / RESULT
        path.write_text(json.dumps(self.result, indent=1) + "\n")
        say(f"all of it    {time.monotonic() - self.began:.0f} s; details in {path}; the sandbox is still up (make sandbox-down ends it)")
        if second["changed"] or second["api_writes"]:
            raise DemoError(f"the second run changed {second['changed']} and wrote {second['api_writes']}; needed 0 and 0")

    def kubectl(self, *arguments: str) -> Any:
        done = subprocess.run(["kubectl", *arguments, "-o", "json"], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def gpu_nodes(self) -> list[dict[str, str]]:
        items = self.kubectl("get", "nodes", "-l", GPU_NODES)["items"]
        return [{"name": i["metadata"]["name"], "type": i["metadata"]["labels"]["node.kubernetes.io/instance-type"]} for i in items]

    def nodes_of(self, model: str) -> set[str]:
        return {p["spec"].get("nodeName", "") for p in self.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/instance={model}")["items"]}

    def writes(self) -> int:
        counted = lifecycle.count_writes(self.settings.directory)
        return counted["kubernetes"] + counted["aws"]


def lines(stream: IO[str], quiet: float, pulse: Callable[[], None]) -> Iterator[str]:
    """Yield the lines of `stream` as they come, and call `pulse` each time that none has come for `quiet` seconds."""
    came: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            came.put(line)
        came.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = came.get(timeout=quiet)
        except queue.Empty:
            pulse()
            continue
        if line is None:
            return
        yield line


def title(text: str) -> None:
    print(f"\n{text}", flush=True)


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def empty_sandbox(directory: Path) -> Settings:
    """A sandbox that is up. One that an earlier demo has filled is started anew; what somebody else put into one stays, and the demo refuses it."""
    settings = lifecycle.up(directory, say)
    if not (directory / RESULT).exists():
        return settings
    say("an earlier demo has run here: the sandbox starts anew, empty")
    lifecycle.down(directory, say)
    return lifecycle.up(directory, say)


def main() -> int:
    directory: Path = state_directory()
    try:
        print("The sandbox (a local cluster; the first time it is built, 12 to 25 minutes)", flush=True)
        Demo(empty_sandbox(directory)).run()
    except RuntimeError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
