# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of llmops.eks.apply: its options, its objects with their kinds, its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import _apply_diff, _apply_errors, _apply_manifest, _problems
from ._kube import ApiError, Cluster, Kind

CRD = "CustomResourceDefinition"


@dataclass(frozen=True)
class Options:
    """The options of the action that do not name objects."""

    field_manager: str = "llmops.eks"
    force_conflicts: bool = False
    check_mode: bool = False
    check_mode_groups: tuple[str, ...] = ()
    wait_deleted: int = 0
    keep_existing: bool = False
    handed_over: tuple[str, ...] = ()
    prune: tuple[Mapping[str, str], ...] = ()


@dataclass
class Item:
    """One object of the batch. `kind` is None where the cluster does not serve it (yet); `crd` is the item that will bring it."""

    manifest: dict[str, Any]
    kind: Kind | None = None
    crd: Item | None = None
    live: dict[str, Any] | None = None
    action: str = ""
    reason: str = ""
    written: bool = False
    taken_back: bool = False  # its only conflicts are about fields in options.handed_over

    @property
    def label(self) -> str:
        return _apply_manifest.label(self.manifest)

    @property
    def name(self) -> str:
        return self.manifest["metadata"]["name"]

    @property
    def namespace(self) -> str | None:
        return self.manifest["metadata"].get("namespace")

    @property
    def group(self) -> str:
        return self.manifest["apiVersion"].rpartition("/")[0]

    @property
    def is_namespace(self) -> bool:
        return (self.group, self.manifest["kind"]) == ("", "Namespace")

    @property
    def is_crd(self) -> bool:
        return (self.group, self.manifest["kind"]) == ("apiextensions.k8s.io", CRD)

    @property
    def path(self) -> str:
        assert self.kind is not None
        return self.kind.path(self.namespace, self.name)

    @property
    def changed(self) -> bool:
        return self.action in ("created", "configured", "deleted")

    def row(self) -> dict[str, Any]:
        told = {"kind": self.manifest["kind"], "namespace": self.namespace or "", "name": self.name, "action": self.action, "changed": self.changed}
        return {**told, "reason": self.reason} if self.reason else told


@dataclass
class Batch:
    """All objects of a call in writing order, and what came of them."""

    cluster: Cluster
    options: Options
    items: list[Item]
    diff: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        return {"changed": any(i.changed for i in self.items), "objects": [i.row() for i in self.items], "diff": self.diff, "warnings": self.warnings}

    def add_diff(self, item: Item, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, notes: tuple[str, str] = ("", "")) -> None:
        self.diff.append(_apply_diff.diff(item.label, before, after, notes))


class Refused(Exception):
    """Something is wrong with the batch. `rows` are problems; `result` is what had been done by then, empty if nothing was written."""

    def __init__(self, headline: str, rows: Iterable[Mapping[str, str]], result: Mapping[str, Any] | None = None) -> None:
        self.rows = list(rows)
        self.result = dict(result or {})
        super().__init__(_problems.message(self.rows, headline))


def load(cluster: Cluster, definitions: Any, options: Options, absent: bool) -> Batch:
    """Read the definitions, find their kinds, put Namespaces and CRDs first. Raises Refused with every problem of shape or kind."""
    manifests, rows = _apply_manifest.read(definitions)
    if rows:
        raise Refused(_nothing_written(rows), rows)
    items = sorted((Item(manifest) for manifest in manifests), key=lambda i: not (i.is_namespace or i.is_crd))
    brought = {key: item for item in items if item.is_crd for key in _kinds_of(item.manifest)}
    for item in items:
        rows += _resolve(cluster, item, brought, options, absent)
    rows += _duplicates(items)
    if rows:
        raise Refused(_nothing_written(rows), rows)
    return Batch(cluster, options, items)


def refuse(rows: list[dict[str, str]]) -> None:
    if rows:
        raise Refused(_nothing_written(rows), rows)


def _nothing_written(rows: list[dict[str, str]]) -> str:
    return f"{len(rows)} problem{'s' if len(rows) > 1 else ''} found, nothing was written:"


def _resolve(cluster: Cluster, item: Item, brought: Mapping[tuple[str, str], Item], options: Options, absent: bool) -> list[dict[str, str]]:
    """Find the kind of an item and see that its namespace fits the kind."""
    api_version, kind = item.manifest["apiVersion"], item.manifest["kind"]
    try:
        item.kind = cluster.find(api_version, kind)
    except ApiError as error:
        return _apply_errors.rows(error, item.label, item.manifest, None)
    item.crd = brought.get((api_version, kind))
    if item.kind is not None:
        namespaced = item.kind.namespaced
    elif item.crd is not None:
        namespaced = item.crd.manifest["spec"].get("scope") == "Namespaced"
    elif absent or (options.check_mode and item.group in options.check_mode_groups):
        return []
    else:
        return [_apply_errors.missing_kind(item.label, api_version, kind)]
    if not namespaced:
        item.manifest["metadata"].pop("namespace", None)  # as kubectl does; templates set it everywhere
    elif not item.namespace:
        return [_problems.problem("namespace", item.label, "no metadata.namespace", f"one, because {kind} is namespaced", "set metadata.namespace")]
    return []


def _kinds_of(crd: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(apiVersion, kind) of every version that a CRD serves. A malformed CRD brings none; the API server will say what is wrong with it."""
    spec = crd.get("spec") or {}
    try:
        return [(f"{spec['group']}/{version['name']}", spec["names"]["kind"]) for version in spec["versions"] if version.get("served")]
    except (KeyError, TypeError, AttributeError):
        return []


def _duplicates(items: list[Item]) -> list[dict[str, str]]:
    seen, rows = set(), []
    for item in items:
        key = (item.group, item.manifest["kind"], item.namespace, item.name)
        if key in seen:
            rows.append(_problems.problem("duplicate", item.label, "two definitions of it", "one", "remove or rename one"))
        seen.add(key)
    return rows
