# SPDX-License-Identifier: GPL-3.0-or-later
"""Play the controllers of NVIDIA's GPU Operator 26.7: label GPU nodes, report the ClusterPolicy's state, mark unhealthy GPUs.

Works while a ClusterPolicy and the operator's Deployment exist; without the Deployment nobody reconciles, as in reality.
"""

from __future__ import annotations

import threading
from typing import Any

import yaml

from . import gpu_labels
from .gpu_labels import GPU, PHYSICAL, labels_of
from .kube import LOG, MERGE, Cache, Kube, KubeError, Object, now, path_of
from .settings import Settings

RESYNC = 5.0  # seconds between two looks when nothing woke the controller
READY = ("Reconciled", "NoGPUNodes", "NFDLabelsMissing")
MESSAGES = {
    "Reconciled": "ClusterPolicy is ready as all resources have been successfully reconciled",
    "NoGPUNodes": "No GPU node found, watching for new nodes to join the cluster.",
    "NFDLabelsMissing": "No NFD labels found in the cluster; NFD is required to discover GPU nodes",
}


def verdict(gpu_nodes: list[Object], nfd_labels: bool, spec: Object, aliases: dict[str, str]) -> tuple[str, str]:
    """(reason, message) of a ClusterPolicy. `aliases` maps EC2NodeClass names to their AMI alias."""
    if not nfd_labels:
        return "NFDLabelsMissing", MESSAGES["NFDLabelsMissing"]
    if not gpu_nodes:
        return "NoGPUNodes", MESSAGES["NoGPUNodes"]
    driver = spec.get("driver", {})
    tolerations = spec.get("daemonsets", {}).get("tolerations", [])
    # A DaemonSet that wants no node counts as ready, so only nodes that it would run on can hold it up.
    broken = [
        n["metadata"]["name"]
        for n in gpu_nodes
        if gpu_labels.is_preinstalled(n, aliases.get(labels_of(n).get("karpenter.k8s.aws/ec2nodeclass", ""), ""))
        and gpu_labels.tolerates(n, tolerations)
        and labels_of(n).get("nvidia.com/gpu.deploy.driver") != "false"
    ]
    if driver.get("enabled", True) and not driver.get("useNvidiaDriverCRD") and broken:
        return "OperandNotReady", "ClusterPolicy is not ready, states not ready: [state-driver state-operator-validation]"
    return "Reconciled", MESSAGES["Reconciled"]


def status_of(policy: Object, reason: str, message: str, namespace: str) -> Object:
    """status of a ClusterPolicy with conditions Ready and Error; transition times stay while the status of a condition does."""
    ready = reason in READY
    known = {c["type"]: c for c in policy.get("status", {}).get("conditions", [])}
    rows: list[Object] = []
    for kind, true, why, text in (
        ("Ready", ready, reason if ready else "Error", message if ready else ""),
        ("Error", not ready, "Ready" if ready else reason, "" if ready else message),
    ):
        status = "True" if true else "False"
        before = known.get(kind, {})
        since = before["lastTransitionTime"] if before.get("status") == status else now()
        rows.append({"type": kind, "status": status, "reason": why, "message": text, "lastTransitionTime": since})
    return {"state": "ready" if ready else "notReady", "namespace": namespace, "conditions": rows}


def sharing(config_text: str) -> tuple[int, str]:
    """(replicas, strategy) that a device plugin configuration gives to nvidia.com/gpu."""
    section = (yaml.safe_load(config_text) or {}).get("sharing") or {}
    for key, strategy in (("timeSlicing", "time-slicing"), ("mps", "mps")):
        for row in (section.get(key) or {}).get("resources", []):
            if row.get("name") == GPU:
                return int(row.get("replicas", 1)), strategy
    return 1, "none"


class GpuOperator(threading.Thread):
    """The controller; `wake` makes it look again."""

    def __init__(self, kube: Kube, settings: Settings, nodes: Cache, policies: Cache) -> None:
        super().__init__(name="gpu-operator", daemon=True)
        self.kube, self.settings, self.nodes, self.policies = kube, settings, nodes, policies
        self._wake = threading.Event()

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    def run(self) -> None:
        self.nodes.listed.wait()
        self.policies.listed.wait()
        while not self.kube.closing.is_set():
            self._wake.clear()
            try:
                self.reconcile()
            except (KubeError, OSError) as error:
                LOG.warning("gpu-operator: %s", error)
            self.kube.closing.wait(0.3)  # several changes at once are one round
            self._wake.wait(RESYNC)

    def reconcile(self) -> None:
        """One round over all nodes and the policy."""
        nodes = self.nodes.all()
        for node in nodes:
            self._apply_faults(node)
        policies = sorted(self.policies.all(), key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))
        namespace = self._deployed("app=gpu-operator")
        if not policies:
            for node in nodes:
                if "nvidia.com/gpu.present" in labels_of(node):
                    self._label(node, dict.fromkeys(["nvidia.com/gpu.present", *gpu_labels.gfd(node)]))
            return
        if not namespace:
            return
        for extra in policies[1:]:
            if extra.get("status", {}).get("state") != "ignored":
                self._write_status(extra, {"state": "ignored"})
        policy = policies[0]
        if self._deployed("app.kubernetes.io/name=node-feature-discovery"):
            for node in nodes:
                self._label(node, gpu_labels.nfd(node))
        gpu_nodes = [n for n in nodes if gpu_labels.is_gpu_node(n) and labels_of(n).get("nvidia.com/gpu.deploy.operands") != "false"]
        discovered = any(key.startswith("feature.node.kubernetes.io/") for node in nodes for key in labels_of(node))
        reason, message = verdict(gpu_nodes, discovered, policy.get("spec", {}), self._aliases())
        if reason in ("Reconciled", "OperandNotReady"):
            for node in gpu_nodes:
                self._discover(node, policy.get("spec", {}), namespace, works=reason == "Reconciled")
        if forced := self.settings.operator:
            reason, message = forced["reason"], forced["message"] or MESSAGES.get(forced["reason"], "forced by the control API")
        status = status_of(policy, reason, message, namespace)
        if policy.get("status") != status:
            self._write_status(policy, status)

    def _deployed(self, selector: str) -> str:
        """Namespace of a Deployment with this label, "" when there is none."""
        found = self.kube.items(path_of("apps/v1", "deployments"), {"labelSelector": selector})
        return found[0]["metadata"]["namespace"] if found else ""

    def _aliases(self) -> dict[str, str]:
        rows = self.kube.items(path_of("karpenter.k8s.aws/v1", "ec2nodeclasses"))
        return {
            r["metadata"]["name"]: " ".join([r["spec"].get("amiFamily", ""), *(t.get("alias", "") for t in r["spec"].get("amiSelectorTerms", []))])
            for r in rows
        }

    def _discover(self, node: Object, spec: Object, namespace: str, works: bool) -> None:
        """Operator's labels, and GFD's where its pod would run and find a driver."""
        labels: dict[str, str] = gpu_labels.operator(node)
        tolerated = gpu_labels.tolerates(node, spec.get("daemonsets", {}).get("tolerations", []))
        if works and tolerated and spec.get("gfd", {}).get("enabled", True) and labels["nvidia.com/gpu.deploy.gpu-feature-discovery"] != "false":
            replicas, strategy = self._sharing(node, spec, namespace)
            labels |= gpu_labels.gfd(node, replicas, strategy)
            self._share(node, replicas)
        self._label(node, labels)

    def _sharing(self, node: Object, spec: Object, namespace: str) -> tuple[int, str]:
        config: Object = spec.get("devicePlugin", {}).get("config") or {}
        key = labels_of(node).get("nvidia.com/device-plugin.config") or config.get("default", "")
        if not config.get("name") or not key:
            return 1, "none"
        item = self.kube.get(path_of("v1", "configmaps", namespace, config["name"])) or {}
        return sharing((item.get("data") or {}).get(key, ""))

    def _share(self, node: Object, replicas: int) -> None:
        """Multiply the node's GPUs by the replicas of time-slicing."""
        count = gpu_labels.gpu_count(node)
        wanted = str(count * replicas)
        status = node.get("status", {})
        if status.get("capacity", {}).get(GPU, "0") == wanted or not count:
            return
        name = node["metadata"]["name"]
        self.kube.patch(path_of("v1", "nodes", name=name), {"metadata": {"annotations": {PHYSICAL: str(count)}}}, MERGE)
        amounts = {GPU: wanted}
        self.kube.patch(path_of("v1", "nodes", name=name) + "/status", {"status": {"capacity": amounts, "allocatable": amounts}}, MERGE)

    def _apply_faults(self, node: Object) -> None:
        """The device plugin takes unhealthy GPUs out of allocatable, never out of capacity."""
        status, name = node.get("status", {}), node["metadata"]["name"]
        capacity = int(status.get("capacity", {}).get(GPU, "0"))
        wanted = str(max(0, capacity - self.settings.node(name).unhealthy_gpus))
        if capacity and name in self.settings.nodes and status.get("allocatable", {}).get(GPU) != wanted:
            self.kube.patch(path_of("v1", "nodes", name=name) + "/status", {"status": {"allocatable": {GPU: wanted}}}, MERGE)

    def _label(self, node: Object, labels: dict[str, Any]) -> None:
        changed = {key: value for key, value in labels.items() if labels_of(node).get(key) != value}
        if changed:
            self.kube.patch(path_of("v1", "nodes", name=node["metadata"]["name"]), {"metadata": {"labels": changed}}, MERGE)

    def _write_status(self, policy: Object, status: Object) -> None:
        self.kube.patch(path_of("nvidia.com/v1", "clusterpolicies", name=policy["metadata"]["name"]) + "/status", {"status": status}, MERGE)
