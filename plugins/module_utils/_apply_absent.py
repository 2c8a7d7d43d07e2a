# SPDX-License-Identifier: GPL-3.0-or-later
"""state: absent. Delete in reverse order; keep namespaces and CRDs that still hold what others put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import _apply_errors, _problems
from ._apply_batch import Batch, Item, Refused, refuse
from ._kube import ApiError, Cluster, Kind, KubeError, poll

KUBERNETES_NAMESPACES = {"default", "kube-node-lease", "kube-public", "kube-system"}
# What Kubernetes itself puts into every namespace, or derives from other objects in it: (group, kind) -> names, None for all.
KUBERNETES_OBJECTS: dict[tuple[str, str], set[str] | None] = {
    ("", "ConfigMap"): {"kube-root-ca.crt"},
    ("", "ServiceAccount"): {"default"},
    ("", "Event"): None,
    ("events.k8s.io", "Event"): None,
    ("", "Endpoints"): None,
    ("discovery.k8s.io", "EndpointSlice"): None,
    ("coordination.k8s.io", "Lease"): None,  # who leads; a controller that is gone leaves it behind
}
TOKEN_OWNER = "kubernetes.io/service-account.name"
ALL_GROUPS = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
SHOWN = 5  # objects named in a reason


def run(batch: Batch) -> None:
    """Read everything, then delete."""
    batch.items.reverse()
    rows: list[dict[str, str]] = []
    for item in batch.items:
        try:
            item.live = batch.cluster.get(item.path) if item.kind else None
        except ApiError as error:
            rows += _apply_errors.rows(error, item.label, item.manifest, None)
    refuse(rows)
    for item in batch.items:
        # One that is already on its way out was deleted by an earlier run.
        if item.live is None or item.live["metadata"].get("deletionTimestamp"):
            item.action = "absent"
            continue
        try:
            delete(batch, item)
        except (ApiError, KubeError) as error:
            gone = [i.label for i in batch.items if i.written]
            headline = f"half-deleted: deleted {', '.join(gone) or 'nothing'}; stopped at {item.label}. Correct the problem and run again:"
            raise Refused(headline, _apply_errors.rows(error, item.label, item.manifest, item.live), batch.result()) from error
    if batch.options.wait_deleted and not batch.options.check_mode:
        _await_gone(batch)


def delete(batch: Batch, item: Item) -> None:
    assert item.live is not None
    item.reason = _why_keep(batch, item)
    if item.reason:
        item.action = "kept"
        return
    item.action = "deleted"
    batch.add_diff(item, item.live, None)
    if batch.options.check_mode:
        return
    # Who waits wants the pods gone with their Deployment; who does not lets the garbage collector work on.
    policy = "Foreground" if batch.options.wait_deleted else "Background"
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "preconditions": {"uid": item.live["metadata"]["uid"]}}
    try:
        batch.cluster.request("DELETE", item.path, body=body)
    except ApiError as error:
        if error.status != 404:
            raise
    item.written = True


def _why_keep(batch: Batch, item: Item) -> str:
    """The reason to keep a Namespace or CRD, empty for none."""
    if item.is_namespace and item.name in KUBERNETES_NAMESPACES:
        return "a namespace of Kubernetes itself"
    if not (item.is_namespace or item.is_crd):
        return ""
    going = {(i.group, i.manifest["kind"], i.namespace or "", i.name) for i in batch.items if i.action in ("deleted", "absent")}
    kinds = list(_namespaced_kinds(batch.cluster)) if item.is_namespace else _kind_of_crd(item)
    left = []
    for kind in kinds:
        try:
            listed = batch.cluster.request("GET", kind.path(item.name if item.is_namespace else None), accept=METADATA_ONLY)["items"] or []
        except ApiError as error:
            if error.status in (404, 405):
                continue
            return f"cannot tell whether it is empty: {error.message}"
        left += [
            f"{kind.kind} {'' if item.is_namespace or not kind.namespaced else o['metadata']['namespace'] + '/'}{o['metadata']['name']}"
            for o in listed
            if not _leaves_by_itself(kind, o["metadata"]) and (kind.group, kind.kind, o["metadata"].get("namespace", ""), o["metadata"]["name"]) not in going
        ]
    if not left:
        return ""
    return f"still holds {', '.join(left[:SHOWN])}" + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else "")


def _leaves_by_itself(kind: Kind, metadata: Mapping[str, Any]) -> bool:
    """True for Kubernetes' own objects, for those being deleted, and for dependents (their owner is listed, too, or already gone)."""
    names = KUBERNETES_OBJECTS.get((kind.group, kind.kind), set())
    return (
        names is None
        or metadata["name"] in names
        or bool(metadata.get("deletionTimestamp"))
        or bool(metadata.get("ownerReferences"))
        or (kind.kind == "Secret" and (metadata.get("annotations") or {}).get(TOKEN_OWNER) == "default")
    )


def _kind_of_crd(item: Item) -> list[Kind]:
    assert item.live is not None
    spec = item.live["spec"]
    version = next((v["name"] for v in spec["versions"] if v["served"]), None)
    return [Kind(f"{spec['group']}/{version}", spec["names"]["kind"], spec["names"]["plural"], spec["scope"] == "Namespaced")] if version else []


def _namespaced_kinds(cluster: Cluster) -> Iterator[Kind]:
    """Every stored namespaced kind of the cluster, each once. Kinds that cannot be deleted (metrics) hold nothing."""
    seen = set()
    for root in ("/api", "/apis"):
        for group in cluster.request("GET", root, accept=ALL_GROUPS)["items"] or []:
            prefix = group["metadata"].get("name", "")
            for version in group.get("versions") or []:
                for r in version.get("resources") or []:
                    key = (prefix, r["resource"])
                    if r["scope"] != "Namespaced" or not {"list", "delete"} <= set(r["verbs"]) or key in seen:
                        continue
                    seen.add(key)
                    served = r["responseKind"].get("version") or version["version"]
                    yield Kind(f"{prefix}/{served}" if prefix else served, r["responseKind"]["kind"], r["resource"], True)


def _await_gone(batch: Batch) -> None:
    waiting = [item for item in batch.items if item.live and item.action in ("deleted", "absent")]
    for _seconds in poll(batch.options.wait_deleted):
        found = [(item, batch.cluster.get(item.path)) for item in waiting]
        left = [(item, now) for item, now in found if now and item.live and now["metadata"]["uid"] == item.live["metadata"]["uid"]]
        if not left:
            return
        waiting = [item for item, _now in left]
    rows = []
    for item, now in left:
        held = now["metadata"].get("finalizers") or now.get("spec", {}).get("finalizers") or []
        found = "it still being deleted" + (f", held by finalizers {', '.join(held)}" if held else "")
        needed = f"it gone within {batch.options.wait_deleted} s"
        rows.append(_problems.problem("deleting", item.label, found, needed, "see that the controller of these finalizers runs, or raise wait_deleted"))
    raise Refused(f"{len(rows)} objects are not gone after {batch.options.wait_deleted} s:", rows, batch.result())
