# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists that gpu_node_info and gpu_capacity_check read. Controller side only; reads, never writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import _gpu_nodes_exec, _gpu_nodes_smi
from ._capacity_context import Objects, Unread
from ._kube import ApiError, Cluster, KubeError, connect

# A login that somebody chose for this task must work; one that merely lies around need not.
_OPTIONS = ("kubeconfig", "context", "host", "api_key", "username", "client_cert")
_VARIABLES = ("KUBECONFIG", *(f"K8S_AUTH_{name}" for name in ("KUBECONFIG", "CONTEXT", "HOST", "API_KEY", "USERNAME", "CERT_FILE")))


def read_if_any(params: Mapping[str, Any], node_pools: bool = True, smi: bool = False) -> Objects:
    """Like `read`, after logging in; without a cluster that answers only `absent` is set. Raises KubeError and ApiError if one was configured."""
    chosen = any(params.get(name) for name in _OPTIONS) or any(os.environ.get(name) for name in _VARIABLES)
    cluster = None
    try:
        cluster = connect(params)
        objects = read(cluster, node_pools)
    except KubeError as error:
        if chosen:
            raise
        return Objects(absent=error.found, configured=cluster is not None)
    return measure(cluster, objects) if smi else objects


def measure(cluster: Cluster, objects: Objects) -> Objects:
    """Ask nvidia-smi in a pod of each GPU node whose driver no label and no ResourceSlice tells."""
    open_nodes = [
        row["name"]
        for row in objects.facts()
        if row["state"] not in ("not_ready", "deleting") and row["provenance"].get("driver", {}).get("confidence") != "measured"
    ]
    boards, silent = _gpu_nodes_exec.boards(cluster, _gpu_nodes_smi.where(objects.pods or (), open_nodes))
    return replace(objects, boards=boards, silent=tuple(silent))


def read(cluster: Cluster, node_pools: bool = True) -> Objects:
    """Nodes, pods that have not ended, EC2NodeClasses, NVIDIA's ResourceSlices and (if asked for) NodePools.

    A refused list (403) becomes an Unread; other errors are raised.
    """
    unread: list[Unread] = []

    def listed(api_version: str, plural: str, **query: str) -> list[dict[str, Any]] | None:
        group = api_version.rpartition("/")[0]
        try:
            return cluster.items(f"/{'apis' if group else 'api'}/{api_version}/{plural}", query, cached=True)
        except ApiError as error:
            if error.status == 404:  # the kind is not installed
                return None
            if error.status != 403:
                raise
            unread.append(Unread(plural, group, error.message))
            return None

    nodes = listed("v1", "nodes")
    pods = listed("v1", "pods", fieldSelector="spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed")
    pools = listed("karpenter.sh/v1", "nodepools") if node_pools else None
    classes = listed("karpenter.k8s.aws/v1", "ec2nodeclasses")
    slices = listed("resource.k8s.io/v1", "resourceslices", fieldSelector="spec.driver=gpu.nvidia.com")
    claims = listed("resource.k8s.io/v1", "resourceclaims") if slices else None
    device_classes = listed("resource.k8s.io/v1", "deviceclasses") if slices else None
    return Objects(nodes, pods, pools, classes, tuple(unread), slices or (), claims or (), device_classes or ())
