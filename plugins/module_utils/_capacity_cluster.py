# SPDX-License-Identifier: GPL-3.0-or-later
"""The lists that gpu_node_info and gpu_capacity_check read. Controller side only; reads, never writes."""

from __future__ import annotations

from typing import Any

from ._capacity_context import Objects, Unread
from ._kube import ApiError, Cluster

PAGE = 500


def read(cluster: Cluster, node_pools: bool = True) -> Objects:
    """Nodes, pods that have not ended, EC2NodeClasses and (if asked for) NodePools. A refused list (403) becomes an Unread; other errors are raised."""
    unread: list[Unread] = []

    def listed(api_version: str, plural: str, **query: str) -> list[dict[str, Any]] | None:
        group = api_version.rpartition("/")[0]
        try:
            return _pages(cluster, f"/{'apis' if group else 'api'}/{api_version}/{plural}", query)
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
    return Objects(nodes, pods, pools, listed("karpenter.k8s.aws/v1", "ec2nodeclasses"), tuple(unread))


def _pages(cluster: Cluster, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
    """All pages of a list. Version 0 lets the API server answer from its cache, which is cheap for etcd and at most seconds old."""
    asked: dict[str, Any] = {**query, "limit": PAGE, "resourceVersion": "0"}
    found: list[dict[str, Any]] = []
    while True:
        page = cluster.request("GET", path, asked)
        found += page["items"]
        token = page["metadata"].get("continue")
        if not token:
            return found
        asked = {**query, "limit": PAGE, "continue": token}
