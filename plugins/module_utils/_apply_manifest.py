# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the user wrote to plain manifests, with every error of shape that can be seen without a cluster."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

from ._apply_compare import BUILT_IN_GROUPS
from ._problems import problem

try:
    import yaml
except ImportError:  # ansible-core itself needs it; absent only where nothing of this runs
    yaml = None

# Maps of strings in built-in kinds. A number in them is refused by the API server with an internal error that names no field.
STRING_MAPS = {"labels", "annotations", "matchLabels", "nodeSelector"}
STRING_FIELDS = {"ConfigMap": ("data", "binaryData"), "Secret": ("data", "stringData")}
# Written by the API server; harmless leftovers of an exported object.
SERVER_OWNED = ("creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")


def read(definitions: Any) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return (manifests, problems) of a dict, a list of dicts, or YAML text with several documents. Empty documents and Lists are unfolded."""
    if isinstance(definitions, str):
        try:
            definitions = list(yaml.safe_load_all(str(definitions)))
        except yaml.YAMLError as error:
            return [], [problem("yaml", "definitions", " ".join(str(error).split()), "YAML documents", "correct the text at that line")]
    if isinstance(definitions, Mapping):
        definitions = [definitions]
    if not isinstance(definitions, (list, tuple)):
        found = type(definitions).__name__
        fix = "pass e.g. lookup('template', ...) | from_yaml_all | list"
        return [], [problem("shape", "definitions", f"a {found}", "a list of objects, or YAML text", fix)]
    manifests, rows = [], []
    for number, given in enumerate(_unfold(definitions), 1):
        wrong: list[dict[str, str]] = []
        manifest = _plain(given, f"definition {number}", "", wrong)
        if not wrong:
            wrong = _check(manifest, number)
        rows += wrong
        if not wrong:
            manifests.append(_tidy(manifest))
    return manifests, rows


def label(manifest: Mapping[str, Any]) -> str:
    """`Kind namespace/name`, or `Kind name`."""
    metadata = manifest["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{manifest['kind']} {place}{metadata['name']}"


def _unfold(definitions: Any) -> Iterator[Any]:
    for definition in definitions:
        if isinstance(definition, Mapping) and definition.get("kind") == "List" and isinstance(definition.get("items"), (list, tuple)):
            yield from _unfold(definition["items"])
        elif definition is not None:
            yield definition


def _plain(value: Any, subject: str, path: str, rows: list[dict[str, str]]) -> Any:
    """A copy in JSON's own types; Ansible hands over tagged subclasses and lazily decrypted vault strings."""
    if value is None or isinstance(value, bool):
        return value
    for cls in (str, int, float):
        if isinstance(value, cls):
            return cls(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                at = f"{path}.{key}".lstrip(".")
                rows.append(problem("shape", subject, f"the key {key!r} ({type(key).__name__}) at {at}", "a string", "put the key into quotes"))
        return {str(key): _plain(below, subject, f"{path}.{key}", rows) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(below, subject, f"{path}[{i}]", rows) for i, below in enumerate(value)]
    if type(value).__name__ == "EncryptedString":
        return str(value)
    rows.append(problem("shape", subject, f"a {type(value).__name__} at {path.lstrip('.')}", "a JSON value", "put it into quotes to make it a string"))
    return None


def _check(manifest: Any, number: int) -> list[dict[str, str]]:
    """Problems of one manifest."""
    if not isinstance(manifest, dict):
        return [problem("shape", f"definition {number}", f"a {type(manifest).__name__}", "a Kubernetes object (a mapping)", "correct this list item")]
    metadata = manifest.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    subject = f"definition {number} ({manifest.get('kind') or 'no kind'} {named.get('name') or 'no name'})"
    rows = []
    for field, value in (("apiVersion", manifest.get("apiVersion")), ("kind", manifest.get("kind")), ("metadata.name", named.get("name"))):
        if not isinstance(value, str) or not value:
            found = f"{field} {value!r}" if value is not None else f"no {field}"
            rows.append(problem("shape", subject, found, f"a non-empty string in {field}", f"set {field}; quote it if it looks like a number or a bool"))
    if not isinstance(named.get("namespace", ""), (str, type(None))):
        rows.append(problem("shape", subject, f"metadata.namespace {named['namespace']!r}", "a string", "put it into quotes"))
    if rows:
        return rows
    for path, value, holder in _strings(manifest):
        if value is not None and not isinstance(value, str):
            shown = "" if manifest["kind"] == "Secret" else f" ({value})"
            rows.append(
                problem(
                    "string",
                    label(manifest),
                    f"a {type(value).__name__}{shown} at {path}",
                    f"a string, as everywhere in {holder}",
                    "put it into quotes, or add `| string` and quotes in the template",
                )
            )
    return rows


def _strings(manifest: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Every place that must hold a string: (path, value, what it lies in)."""
    for field in ("labels", "annotations"):
        yield from _entries(manifest["metadata"].get(field), f"metadata.{field}")
    if manifest["apiVersion"].rpartition("/")[0] not in BUILT_IN_GROUPS or manifest["kind"] == "CustomResourceDefinition":
        return
    for field in STRING_FIELDS.get(manifest["kind"], ()):
        yield from _entries(manifest.get(field), field)
    yield from _deep(manifest.get("spec"), "spec")


def _deep(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            if key in STRING_MAPS:
                yield from _entries(below, f"{path}.{key}")
            elif key == "env" and isinstance(below, list):
                for i, item in enumerate(below):
                    if isinstance(item, dict):
                        yield f"{path}.env[{item.get('name', i)}].value", item.get("value"), "env"
            else:
                yield from _deep(below, f"{path}.{key}")
    elif isinstance(value, list):
        for i, below in enumerate(value):
            mark = below.get("name", i) if isinstance(below, dict) else i
            yield from _deep(below, f"{path}[{mark}]")


def _entries(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{path}.{key}", below, path


def _tidy(manifest: dict[str, Any]) -> dict[str, Any]:
    """Drop what the server owns; fold a Secret's write-only stringData into data, or a removed key would stay for ever."""
    manifest.pop("status", None)
    for field in SERVER_OWNED:
        manifest["metadata"].pop(field, None)
    if manifest["apiVersion"] == "v1" and manifest["kind"] == "Secret" and manifest.get("stringData") is not None:
        texts = manifest.pop("stringData")
        encoded = {key: base64.b64encode((text or "").encode()).decode() for key, text in texts.items()}
        manifest["data"] = {**(manifest.get("data") or {}), **encoded}
    return manifest
