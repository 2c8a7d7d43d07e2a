# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that an earlier call left behind: they match a selector and are not among the definitions any more."""

from __future__ import annotations

from . import _apply_errors
from ._apply_absent import delete as delete_item
from ._apply_batch import Batch, Item, Refused, refuse
from ._kube import ApiError, KubeError


def find(batch: Batch) -> list[Item]:
    """The leftovers of every selector in the options. A kind that the cluster does not serve has none. Raises Refused before anything is written."""
    wanted = {(item.group, item.manifest["kind"], item.namespace or "", item.name) for item in batch.items}
    leftovers: list[Item] = []
    rows: list[dict[str, str]] = []
    for selector in batch.options.prune:
        # Ansible's tagged strings cannot be written into the YAML of a diff.
        selector = {key: str(value) for key, value in selector.items() if value is not None}
        label = f"{selector['kind']} with {selector['label_selector']}"
        try:
            kind = batch.cluster.find(selector["api_version"], selector["kind"])
            listed = batch.cluster.items(kind.path(selector.get("namespace")), {"labelSelector": selector["label_selector"]}) if kind else []
        except ApiError as error:
            rows += _apply_errors.rows(error, label, {"apiVersion": selector["api_version"], "kind": selector["kind"]}, None)
            continue
        for live in listed:
            # Items of a list do not carry their type.
            identity = {key: live["metadata"][key] for key in ("name", "namespace") if key in live["metadata"]}
            manifest = {"apiVersion": selector["api_version"], "kind": selector["kind"], "metadata": identity}
            item = Item(manifest, kind=kind, live={**live, "apiVersion": selector["api_version"], "kind": selector["kind"]})
            if (item.group, selector["kind"], item.namespace or "", item.name) not in wanted and not live["metadata"].get("deletionTimestamp"):
                leftovers.append(item)
    refuse(rows)
    return leftovers


def delete(batch: Batch, leftovers: list[Item]) -> None:
    """Delete them and add them to the batch's result."""
    for item in leftovers:
        try:
            delete_item(batch, item)
        except (ApiError, KubeError) as error:
            headline = f"half-applied: everything is written, but {item.label} is not deleted. Correct the problem and run again:"
            raise Refused(headline, _apply_errors.rows(error, item.label, item.manifest, item.live), batch.result()) from error
        batch.items.append(item)
