# SPDX-License-Identifier: GPL-3.0-or-later
"""state: present. Read everything, rehearse what may differ, and only when all of it is accepted write what does differ."""

from __future__ import annotations

import re
from typing import Any

from . import _apply_errors, _problems
from ._apply_batch import Batch, Item, Refused, refuse
from ._apply_compare import keep_handed_over, owned_fields, unchanged
from ._apply_diff import content, ownership_notes
from ._kube import ApiError, KubeError, poll

# CRDs are Established within a second or two; a name conflict never is.
ESTABLISHED_SECONDS = 60
# Objects of a namespace that this batch creates are rehearsed here, under a name that nobody has.
REHEARSAL_NAMESPACE, REHEARSAL_NAME = "default", "llmops-eks-rehearsal"
# Kinds that the API server looks up by name before it accepts an object (a Pod's ServiceAccount); the batch may be about to create them.
NOT_FOUND = re.compile(r'"([^"]+)" not found')


def run(batch: Batch) -> None:
    rows: list[dict[str, str]] = []
    missing_namespaces = _read_live(batch, rows)
    refuse(rows)
    forthcoming: set[str] = set()
    for item in batch.items:
        rows += _decide(batch, item, missing_namespaces, forthcoming)
        if item.action == "created":
            forthcoming.add(item.name)
    refuse(rows)
    if not batch.options.check_mode:
        _write(batch)


def _read_live(batch: Batch, rows: list[dict[str, str]]) -> set[str]:
    """Set `live` of every item; return the namespaces that are not there yet."""
    cluster = batch.cluster
    own = {item.name: item for item in batch.items if item.is_namespace}
    present: dict[str, bool] = {}
    for item in batch.items:
        try:
            item.live = cluster.get(item.path) if item.kind else None
        except ApiError as error:
            rows += _apply_errors.rows(error, item.label, item.manifest, None)
            continue
        if item.live and item.live["metadata"].get("deletionTimestamp"):
            rows.append(_terminating(item.label, item.live))
        elif item.live is None and item.namespace and item.namespace not in present:
            present[item.namespace] = _namespace_is_there(batch, item, own, rows)
    return {name for name, there in present.items() if not there}


def _namespace_is_there(batch: Batch, item: Item, own: dict[str, Item], rows: list[dict[str, str]]) -> bool:
    name = item.namespace or ""
    if name in own:  # stands before this item, so it has been read
        return own[name].live is not None
    try:
        found = batch.cluster.get(f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.status == 403:  # a user of one namespace may not read it, but live in it
            return True
        raise
    if found is None and batch.options.check_mode:
        batch.warnings.append(f"namespace {name} does not exist; this prediction takes it that an earlier task of the run creates it")
    elif found is None:
        told = f"no namespace {name} in the cluster or in this batch"
        rows.append(_problems.problem("namespace", item.label, told, "the namespace", "add a Namespace to the definitions"))
    elif found["metadata"].get("deletionTimestamp"):
        rows.append(_terminating(f"Namespace {name}", found))
    return found is not None


def _terminating(subject: str, live: dict[str, Any]) -> dict[str, str]:
    since, held = live["metadata"]["deletionTimestamp"], live["metadata"].get("finalizers") or live.get("spec", {}).get("finalizers") or []
    found = f"it being deleted since {since}" + (f", held by finalizers {', '.join(held)}" if held else "")
    return _problems.problem("terminating", subject, found, "an object that stays", "wait until it is gone (wait_deleted with state: absent), then run again")


def _decide(batch: Batch, item: Item, missing_namespaces: set[str], forthcoming: set[str]) -> list[dict[str, str]]:
    """Set the item's action, by comparison where that is enough, else by a dry run."""
    options = batch.options
    if item.live:
        keep_handed_over(item.manifest, item.live, options.field_manager, options.handed_over)
    if item.live and (options.keep_existing or unchanged(item.manifest, item.live, options.field_manager)):
        item.action = "unchanged"
        return []
    item.action = "configured" if item.live else "created"
    if item.kind is None:  # its CRD comes with this run; nobody can check it yet
        batch.add_diff(item, None, item.manifest)
        return []
    homeless = item.namespace in missing_namespaces
    try:
        after = _rehearse_elsewhere(batch, item) if homeless else _rehearse(batch, item)
    except ApiError as error:
        awaited = item.live is None and set(NOT_FOUND.findall(error.message)) & forthcoming
        if not awaited:
            return _apply_errors.rows(error, item.label, item.manifest, item.live)
        after = None
    if item.live is None:
        batch.add_diff(item, None, item.manifest)
        return []
    owned = [owned_fields(obj, options.field_manager, item.manifest["apiVersion"]) or {} for obj in (item.live, after or {"metadata": {}})]
    if content(item.live) == content(after) and owned[0] == owned[1]:
        item.action = "unchanged"
    else:
        batch.add_diff(item, item.live, after, ownership_notes(options.field_manager, *owned))
    return []


def _rehearse(batch: Batch, item: Item) -> dict[str, Any]:
    """Dry run. Conflicts that are all about fields in options.handed_over are no reason to refuse: these come back to us."""
    try:
        return _apply(batch, item, dry_run=True)
    except ApiError as error:
        contested = {cause.get("field", "") for cause in error.causes if cause.get("reason") == "FieldManagerConflict"}
        if not contested or contested - {f".{path}" for path in batch.options.handed_over}:
            raise
    item.taken_back = True
    return _apply(batch, item, dry_run=True)


def _apply(batch: Batch, item: Item, dry_run: bool) -> dict[str, Any]:
    return batch.cluster.apply(item.path, item.manifest, batch.options.field_manager, batch.options.force_conflicts or item.taken_back, dry_run)


def _rehearse_elsewhere(batch: Batch, item: Item) -> None:
    """Check the fields of an object whose namespace does not exist yet: dry run of a twin in the default namespace.

    Only what the object itself has wrong counts; permissions, quotas and policies of the other namespace do not.
    """
    twin = {**item.manifest, "metadata": {**item.manifest["metadata"], "name": REHEARSAL_NAME, "namespace": REHEARSAL_NAMESPACE}}
    assert item.kind is not None
    try:
        batch.cluster.apply(item.kind.path(REHEARSAL_NAMESPACE, REHEARSAL_NAME), twin, batch.options.field_manager, False, dry_run=True)
    except ApiError as error:
        if error.status in (400, 422, 500):
            raise


def _write(batch: Batch) -> None:
    established: set[str] = set()
    for item in batch.items:
        if item.action == "unchanged":
            continue
        try:
            if item.kind is None:
                _await_kind(batch, item, established)
            _apply(batch, item, dry_run=False)
        except (ApiError, KubeError) as error:
            raise _half_applied(batch, _apply_errors.rows(error, item.label, item.manifest, item.live)) from error
        item.written = True


def _await_kind(batch: Batch, item: Item, established: set[str]) -> None:
    """Wait until the CRD that this batch has just written is served."""
    crd = item.crd
    assert crd is not None
    wanted, conditions = (item.manifest["apiVersion"], item.manifest["kind"]), []
    for _seconds in poll(ESTABLISHED_SECONDS):
        if crd.name not in established:
            conditions = (batch.cluster.get(crd.path) or {}).get("status", {}).get("conditions") or []
            if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                if any(c["type"] == "NamesAccepted" and c["status"] == "False" for c in conditions):
                    break
                continue
            established.add(crd.name)
        item.kind = batch.cluster.find(*wanted, fresh=True)
        if item.kind:
            return
    told = "; ".join(f"{c['type']}={c['status']} {c.get('message', '')}".strip() for c in conditions) or "no conditions"
    needed = f"the kind {item.manifest['kind']} served within {ESTABLISHED_SECONDS} s"
    raise _half_applied(batch, [_problems.problem("crd", crd.label, told, needed, "look at kubectl describe crd " + crd.name)])


def _half_applied(batch: Batch, rows: list[dict[str, str]]) -> Refused:
    """A write failed although its rehearsal passed (or could not be held): say what stands in the cluster now."""
    done = [item.label for item in batch.items if item.written]
    rest = [item.label for item in batch.items if item.changed and not item.written]
    for item in batch.items:
        if item.changed and not item.written:
            item.action = "unwritten"
    headline = f"half-applied: written {', '.join(done) or 'nothing'}; not written {', '.join(rest)}. Correct the problem and run again:"
    return Refused(headline, rows, batch.result())
