# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn refusals of the API server into rows that name object, field and cure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ._kube import ApiError, KubeError
from ._problems import problem

# API group -> what brings it.
INSTALLERS = {
    "gateway.networking.k8s.io": "the Gateway API CRDs",
    "http.keda.sh": "the KEDA HTTP add-on (chart keda-add-ons-http)",
    "karpenter.k8s.aws": "Karpenter (role llmops.eks.karpenter_gpu)",
    "karpenter.sh": "Karpenter (role llmops.eks.karpenter_gpu)",
    "keda.sh": "KEDA (role llmops.eks.keda_scaler)",
    "leaderworkerset.x-k8s.io": "the LeaderWorkerSet controller",
    "monitoring.coreos.com": "the Prometheus Operator (e.g. chart kube-prometheus-stack)",
    "nfd.k8s-sigs.io": "Node Feature Discovery (role llmops.eks.gpu_operator)",
    "nvidia.com": "the NVIDIA GPU Operator (role llmops.eks.gpu_operator)",
}

UNKNOWN_FIELD = re.compile(r'(?P<a>\.[^\s:]+): field not declared in schema|unknown field "(?P<b>[^"]+)"')
WRONG_TYPE = re.compile(r"(?P<path>\.[^\s:]+): expected (?P<want>[^,]+), got (?:&?value\.\w+\{Value:(?P<value>.*?)\}|(?P<type>\w+))")
CONFLICT = re.compile(r'conflict with "(?P<manager>[^"]*)"(?: with subresource "(?P<subresource>[^"]*)")?')
LIST_KEYS = re.compile(r"\[(?P<keys>[^\]]+)\]")


def missing_kind(subject: str, api_version: str, kind: str) -> dict[str, str]:
    group = api_version.rpartition("/")[0]
    who = INSTALLERS.get(group, f"whatever brings the API group {group}" if group else "a newer Kubernetes")
    return problem("missing_kind", subject, f"no kind {kind} in {api_version} in the cluster", f"the kind {kind} of {api_version}", f"install {who} first")


def rows(error: ApiError | KubeError, subject: str, manifest: Mapping[str, Any], live: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The refusal of one object as problems, one a field where the server names fields."""
    if isinstance(error, KubeError):  # a write without an answer may have been carried out
        needed, fix = "an answer of the API server to this write", "see that it answers, and run again: what is done already is not done twice"
        return [problem("no_answer", subject, error.found, needed, fix)]
    secret = manifest["kind"] == "Secret"
    conflicts = [cause for cause in error.causes if cause.get("reason") == "FieldManagerConflict"]
    if conflicts:
        return [_conflict(cause, subject, manifest, live, secret) for cause in conflicts]
    if fields := [m["a"] or m["b"] for m in UNKNOWN_FIELD.finditer(error.message)]:
        needed = f"a field of {manifest['apiVersion']} {manifest['kind']}"
        return [problem("unknown_field", subject, f"the unknown field {field}", needed, "correct its name or drop it") for field in dict.fromkeys(fields)]
    if types := list(WRONG_TYPE.finditer(error.message)):
        return [
            problem(
                "field_type",
                subject,
                f"{m['path']} of another type{'' if secret else ' (' + (m['value'] or m['type']) + ')'}",
                f"a value of type {m['want']}",
                "quote it for a string, leave quotes away for a number or bool",
            )
            for m in types
        ]
    if error.status == 403 and not error.causes:
        return [problem("forbidden", subject, error.message, "the permission", "grant this user the verb (RBAC), or log in as another user")]
    if error.status == 422 and error.causes:
        return [_invalid(cause, subject, secret) for cause in error.causes]
    cure = "run again; look at the API server or the webhook named in the message" if error.status >= 500 else "correct the object"
    return [problem("refused", subject, f"HTTP {error.status} {error.reason}: {error.message}", "an object that the API server accepts", cure)]


def _invalid(cause: Mapping[str, str], subject: str, secret: bool) -> dict[str, str]:
    text = cause.get("message") or cause.get("reason") or "invalid"
    if secret and ": Invalid value: " in f": {text}":
        text = "an invalid value"
    cure = "delete the object first (state: absent) or give it another name" if "immutable" in text else "correct the field"
    return problem("invalid_field", subject, f"{cause.get('field', '')}: {text}", "a valid value", cure)


def _conflict(cause: Mapping[str, str], subject: str, manifest: Mapping[str, Any], live: Mapping[str, Any] | None, secret: bool) -> dict[str, str]:
    path = cause.get("field", "")
    match = CONFLICT.search(cause.get("message", ""))
    manager = match["manager"] if match else cause.get("message", "another manager")
    if match and match["subresource"]:
        manager += f" (subresource {match['subresource']})"

    def shown(obj: Mapping[str, Any] | None) -> str:
        known, value = lookup(obj or {}, path)
        return "" if secret or not known else f" = {json.dumps(value)}"

    return problem(
        "field_conflict",
        subject,
        f"{path}{shown(live)}, owned by {manager}",
        f"{path}{shown(manifest)}",
        "drop the field from the manifest, or set force_conflicts: true to take it over",
    )


def lookup(obj: Any, path: str) -> tuple[bool, Any]:
    """(found, value) of a field path as the API server writes it: .spec.containers[name="x"].image"""
    if not path:
        return True, obj
    if isinstance(obj, Mapping):
        # Keys may hold dots themselves (.metadata.labels.app.kubernetes.io/name): the longest one that fits.
        fitting = [key for key in obj if path == f".{key}" or path.startswith((f".{key}.", f".{key}["))]
        if fitting:
            key = max(fitting, key=len)
            return lookup(obj[key], path[len(key) + 1 :])
    elif isinstance(obj, list) and (part := LIST_KEYS.match(path)):
        try:
            keys = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in part["keys"].split(","))}
        except ValueError:
            return False, None
        found = [item for item in obj if isinstance(item, Mapping) and all(item.get(k, v) == v for k, v in keys.items())]
        if len(found) == 1:
            return lookup(found[0], path[part.end() :])
    return False, None
