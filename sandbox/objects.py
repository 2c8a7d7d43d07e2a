# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sandbox itself puts into its cluster at the start, as Kubernetes objects in plain dicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
HELM_OWNER = "kube-system"  # namespace of the release `karpenter-crd`


def system_nodes(region: str) -> list[Object]:
    """Two CPU nodes in two zones, as a managed node group for controllers would give; the annotation hands them to KWOK."""
    return [_node(f"system-{number}", f"{region}{zone}", region, number) for number, zone in ((1, "a"), (2, "b"))]


def _node(name: str, zone: str, region: str, number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "m6i.4xlarge",
                "topology.kubernetes.io/region": region,
                "topology.kubernetes.io/zone": zone,
                "eks.amazonaws.com/nodegroup": "system",
                "eks.amazonaws.com/capacityType": "ON_DEMAND",
            },
        },
        "spec": {"providerID": f"aws:///{zone}/i-{number:017x}"},
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "80Gi", "pods": "110"},
            "allocatable": {"cpu": "15890m", "memory": "59Gi", "ephemeral-storage": "72Gi", "pods": "110"},
        },
    }


def keda_metrics_api(port: int) -> list[Object]:
    """KEDA's namespace, and its metrics adapter on this machine's `port` as the API server's external.metrics.k8s.io."""
    service = {"name": "keda-metrics-apiserver", "namespace": "keda"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keda"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**service, "port": port},
            },
        },
    ]


def custom_resource_definitions(share: Path, own: Path) -> list[Object]:
    """The CRDs of everything that the roles write: from the built modules (`share`/crds) and from this folder (`own`).

    Karpenter's carry the marks of the Helm release `karpenter-crd`, so that the chart can take them over.
    """
    karpenter = [_helm_owned(crd, "karpenter-crd") for crd in _documents(share / "crds" / "karpenter")]
    # KWOK reads these to know where logs, exec and port-forward of a pod lead.
    kwok = [c for c in _documents(share / "crds" / "kwok") if c["spec"]["names"]["kind"] in KWOK_KINDS]
    return [*karpenter, *kwok, *_documents(share / "crds" / "keda"), *_documents(own)]


KWOK_KINDS = ("ClusterPortForward", "ClusterLogs", "ClusterExec")


def _documents(folder: Path) -> list[Object]:
    """Every CRD in the YAML files of a folder."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [d for path in sorted(folder.glob("*.yaml")) for d in yaml.load_all(path.read_text(), Loader=loader)]
    return [d for d in found if d and d.get("kind") == "CustomResourceDefinition"]


def _helm_owned(crd: Object, release: str) -> Object:
    metadata = crd["metadata"]
    return {
        **crd,
        "metadata": {
            **metadata,
            "labels": {**metadata.get("labels", {}), "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                **metadata.get("annotations", {}),
                "meta.helm.sh/release-name": release,
                "meta.helm.sh/release-namespace": HELM_OWNER,
            },
        },
    }
