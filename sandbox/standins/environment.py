# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve a container's environment and volumes through the API, as a kubelet does before it starts the container."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any

from .kube import Kube, Object, path_of


class ConfigError(RuntimeError):
    """A Secret, ConfigMap or key is missing; the message is the kubelet's (CreateContainerConfigError)."""


class Source:
    """Reads ConfigMaps and Secrets of one pod's namespace."""

    def __init__(self, kube: Kube, pod: Object) -> None:
        self.kube = kube
        self.pod = pod
        self.namespace: str = pod["metadata"]["namespace"]

    def data(self, plural: str, name: str, optional: bool) -> dict[str, bytes] | None:
        """Keys and values of a ConfigMap or Secret; None when it is missing and optional. Raises ConfigError."""
        item = self.kube.get(path_of("v1", plural, self.namespace, name))
        if item is None:
            if optional:
                return None
            raise ConfigError(f'{plural.removesuffix("s")} "{name}" not found')
        encoded = item.get("data") or {}
        if plural == "secrets":
            return {key: base64.b64decode(value) for key, value in encoded.items()}
        binary = {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
        return {**{key: value.encode() for key, value in encoded.items()}, **binary}

    def key(self, plural: str, reference: Object) -> str | None:
        """One value; None when it is missing and optional. Raises ConfigError."""
        optional = bool(reference.get("optional"))
        data = self.data(plural, reference["name"], optional)
        if data is None or reference["key"] not in data:
            if optional:
                return None
            kind = {"secrets": "Secret", "configmaps": "ConfigMap"}[plural]
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {self.namespace}/{reference['name']}")
        return data[reference["key"]].decode()

    def field(self, path: str) -> str:
        """A downward API field, such as ``metadata.name`` or ``metadata.labels['app']``. Raises ConfigError."""
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str(self.pod["metadata"].get(match[1], {}).get(match[2], ""))
        value: Any = self.pod
        for part in path.split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if isinstance(value, dict | list):
            raise ConfigError(f'unsupported fieldPath: "{path}"')
        return str(value)


def environment_of(kube: Kube, pod: Object, container: Object) -> dict[str, str]:
    """The container's variables with all references resolved and ``$(NAME)`` expanded. Raises ConfigError."""
    source, env = Source(kube, pod), dict[str, str]()
    for row in container.get("envFrom", []):
        for kind, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if reference := row.get(kind):
                data = source.data(plural, reference["name"], bool(reference.get("optional"))) or {}
                env |= {row.get("prefix", "") + key: value.decode() for key, value in data.items()}
    for row in container.get("env", []):
        origin = row.get("valueFrom", {})
        value: str | None = None
        if reference := origin.get("secretKeyRef"):
            value = source.key("secrets", reference)
        elif reference := origin.get("configMapKeyRef"):
            value = source.key("configmaps", reference)
        elif reference := origin.get("fieldRef"):
            value = source.field(reference["fieldPath"])
        elif reference := origin.get("resourceFieldRef"):
            part, _, resource = reference["resource"].partition(".")
            value = str(container.get("resources", {}).get(part, {}).get(resource, ""))
        else:
            value = re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), row.get("value", "") or "")
        if value is not None:
            env[row["name"]] = value
    return env


def claim_folder(state_dir: Path, namespace: str, claim: str) -> Path:
    """Where the content of a PersistentVolumeClaim lies."""
    return Path(state_dir) / "volumes" / namespace / claim


def volume_folders(kube: Kube, pod: Object, state_dir: Path, scratch: Path) -> dict[str, Path]:
    """{volume name: folder with its content}. Claims are shared between pods, all else lies in `scratch`. Raises ConfigError."""
    source, folders = Source(kube, pod), dict[str, Path]()
    for volume in pod["spec"].get("volumes", []):
        name = volume["name"]
        if claim := volume.get("persistentVolumeClaim"):
            folders[name] = claim_folder(state_dir, source.namespace, claim["claimName"])
            folders[name].mkdir(parents=True, exist_ok=True)
            continue
        folders[name] = folder = scratch / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        projected = volume.get("projected", {}).get("sources", [])
        for row in [volume, *projected]:
            for kind, plural, key in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName" if row is volume else "name")):
                if kind in row:
                    _write_files(folder, row[kind], source.data(plural, row[kind][key], bool(row[kind].get("optional"))) or {})
    return folders


def _write_files(folder: Path, spec: Object, data: dict[str, bytes]) -> None:
    chosen = {row["key"]: row["path"] for row in spec.get("items", [])} or {key: key for key in data}
    for key, path in chosen.items():
        if key not in data:
            raise ConfigError(f"references non-existent config key: {key}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[key])


def mounts_of(container: Object, folders: dict[str, Path]) -> dict[str, Path]:
    """{mount path in the container: folder or file on this machine}, longest path first."""
    mounts = {m["mountPath"].rstrip("/") or "/": folders[m["name"]] / m.get("subPath", "") for m in container.get("volumeMounts", []) if m["name"] in folders}
    return dict(sorted(mounts.items(), key=lambda row: -len(row[0])))


def translate(text: str, mounts: dict[str, Path]) -> str:
    """Replace mount paths in a word of a command line or a variable by where they are on this machine."""
    if not mounts:
        return text
    # A path begins where no path character stands before it, and ends at "/" or where no name goes on.
    pattern = r"(?<![\w./-])(" + "|".join(re.escape(path) for path in mounts) + r")(?=/|$|[^\w.-])"
    return re.sub(pattern, lambda m: str(mounts[m[1]]), text)


def clear(folder: Path) -> None:
    """Remove a pod's scratch folder."""
    shutil.rmtree(folder, ignore_errors=True)
