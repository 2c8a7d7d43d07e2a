# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of a change: YAML text of the object before and after, without what the server keeps for itself, and without secrets."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

try:
    import yaml
except ImportError:  # see _apply_manifest
    yaml = None

HIDDEN_METADATA = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def content(obj: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of an object that people write: no status, no bookkeeping of the server."""
    if not obj:
        return {}
    shown = {key: value for key, value in obj.items() if key != "status"}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in HIDDEN_METADATA}
    notes = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    if "annotations" in metadata:
        metadata["annotations"] = notes
    if not metadata.get("annotations", True):
        del metadata["annotations"]
    return {**shown, "metadata": metadata}


def diff(title: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, notes: tuple[str, str] = ("", "")) -> dict[str, str]:
    """One entry of Ansible's `diff` list. `notes` are comment lines appended to each side."""
    left, right = mask(content(before), content(after))
    return {"before_header": title, "after_header": title, "before": _text(left) + notes[0], "after": _text(right) + notes[1]}


def mask(before: dict[str, Any], after: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Replace the values of Secrets by their length; a value that differs is told by the words old and new."""
    if "Secret" not in (before.get("kind"), after.get("kind")) or "v1" not in (before.get("apiVersion"), after.get("apiVersion")):
        return before, after
    left, right = before.get("data") or {}, after.get("data") or {}
    same = {key for key in left.keys() & right.keys() if left[key] == right[key]}

    def masked(obj: dict[str, Any], values: Mapping[str, Any], word: str) -> dict[str, Any]:
        shown = {key: f"*** ({_decoded_size(str(value))} bytes{'' if key in same else ', ' + word})" for key, value in values.items()}
        return {**obj, "data": shown} if "data" in obj else obj

    return masked(before, left, "old"), masked(after, right, "new")


def _decoded_size(encoded: str) -> int:
    """Bytes that a base64 text stands for."""
    return len(encoded) * 3 // 4 - encoded.count("=")


def ownership_notes(manager: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Comment lines for fields that `manager` stops or begins to own (arguments: fieldsV1)."""
    left, right = set(paths(before)), set(paths(after))

    def note(gone: set[str]) -> str:
        return f"# owned by {manager}: {', '.join(sorted(gone))}\n" if gone else ""

    return note(left - right), note(right - left)


def paths(owned: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Field paths of a fieldsV1 tree, written as in conflict messages: .spec.containers[name="x"].image"""
    below = {key: value for key, value in owned.items() if key != "."}
    if not below and at:
        yield at
    for key, value in below.items():
        kind, rest = key[0], key[2:]
        if kind == "k":
            rest = "[" + ",".join(f"{name}={json.dumps(v)}" for name, v in json.loads(rest).items()) + "]"
        else:
            rest = f".{rest}" if kind == "f" else f"[{rest}]"
        yield from paths(value, at + rest)


def _text(obj: Mapping[str, Any]) -> str:
    return yaml.dump(obj, Dumper=_dumper(), default_flow_style=False, width=10000, allow_unicode=True) if obj else ""


@functools.cache
def _dumper() -> Any:
    """Long texts (a dashboard in a ConfigMap) as blocks, so that a diff shows the changed line."""

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return Dumper
