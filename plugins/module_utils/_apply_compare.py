# SPDX-License-Identifier: GPL-3.0-or-later
"""Would server-side apply of this manifest change anything? Answered from the live object, without a request.

The live object lists in metadata.managedFields what our manager applied last time (fieldsV1: `f:<field>`, `k:{<list keys>}`, `v:<value>`).
Nothing changes if the manifest names exactly those fields and all values are the live ones. A "no" is certain to be right only when it is
`True` here; every doubt returns False, and a dry run then decides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

# Served by the API server itself, so these kinds are decoded into Go types: quantities come back in canonical form, defaults are known.
BUILT_IN_GROUPS = {"", "admissionregistration.k8s.io", "apiextensions.k8s.io", "apps", "autoscaling", "batch", "networking.k8s.io", "policy"}
BUILT_IN_GROUPS |= {"rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io"}

# Identity, not intent: managedFields never holds these.
IDENTITY = {"apiVersion", "kind"}
METADATA_IDENTITY = {"name", "namespace"}

# Field (or the field it lies in) whose value is a quantity in built-in kinds.
QUANTITY_MAPS = {"limits", "requests", "capacity", "hard", "overhead"}
QUANTITY_FIELDS = {"sizeLimit", "divisor", "averageValue"}

# What the API server fills into values that are owned as a whole (atomic lists and maps): (field it lies in, key) -> value.
ATOMIC_DEFAULTS = {
    ("fieldRef", "apiVersion"): "v1",
    ("ports", "protocol"): "TCP",
    ("resourceFieldRef", "divisor"): "0",
    ("rules", "scope"): "*",
    ("serviceAccountToken", "expirationSeconds"): 3600,
}

SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def owned_fields(live: Mapping[str, Any], manager: str, api_version: str) -> dict[str, Any] | None:
    """fieldsV1 of what `manager` applied, {} if it applied nothing, None if it did so through another API version."""
    for entry in live["metadata"].get("managedFields") or []:
        if entry["manager"] == manager and entry["operation"] == "Apply" and not entry.get("subresource"):
            return entry.get("fieldsV1") or {} if entry["apiVersion"] == api_version else None
    return {}


def unchanged(manifest: Mapping[str, Any], live: Mapping[str, Any], manager: str) -> bool:
    """True if applying `manifest` as `manager` is sure to change neither content nor ownership of `live`."""
    owned = owned_fields(live, manager, manifest["apiVersion"])
    if owned is None:
        return False
    intent = {key: value for key, value in manifest.items() if key not in IDENTITY}
    metadata = {key: value for key, value in intent["metadata"].items() if key not in METADATA_IDENTITY}
    intent["metadata"] = metadata
    if not metadata:
        del intent["metadata"]
    return _Comparison(manifest["apiVersion"].rpartition("/")[0] in BUILT_IN_GROUPS).map(intent, live, owned, "")


def keep_handed_over(manifest: dict[str, Any], live: Mapping[str, Any], manager: str, paths: tuple[str, ...]) -> None:
    """Put fields that the manifest leaves out, but `manager` applied earlier and still owns, back into it with their live value.

    Without that the API server would take away the value together with the ownership, and the default would come back.
    """
    for path in paths:
        keys = path.split(".")
        owned, value = _reach(owned_fields(live, manager, manifest["apiVersion"]), [f"f:{key}" for key in keys]), _reach(live, keys)
        if owned is None or value is None:
            continue
        below = manifest
        for key in keys[:-1]:
            below = below.setdefault(key, {})
        below.setdefault(keys[-1], value)


def _reach(tree: Any, keys: list[str]) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


class _Comparison:
    """Walks manifest, live object and owned fields side by side. `built_in`: the kind is one of the API server's own."""

    def __init__(self, built_in: bool) -> None:
        self.built_in = built_in

    def map(self, want: Mapping[str, Any], live: Any, owned: Mapping[str, Any], inside: str) -> bool:
        """A map whose keys are owned one by one. `inside` is the field that holds it."""
        fields = {key[2:]: below for key, below in owned.items() if key.startswith("f:")}
        if len(fields) != len(owned.keys() - {"."}) or fields.keys() != want.keys():
            return False
        present = live if isinstance(live, Mapping) else {}
        return all(self.value(value, present.get(key), fields[key], key, inside) for key, value in want.items())

    def value(self, want: Any, live: Any, owned: Mapping[str, Any], name: str, inside: str) -> bool:
        below = owned.keys() - {"."}
        if not below:
            return self.whole(want, live, name, inside)
        if isinstance(want, Mapping):
            return self.map(want, live, owned, name)
        if isinstance(want, list) and isinstance(live, list):
            if all(key.startswith("k:") for key in below):
                return self.keyed_list(want, live, owned, name)
            if all(key.startswith("v:") for key in below):
                ours = [json.loads(key[2:]) for key in below]
                return len(ours) == len(want) and all(item in ours for item in want) and [item for item in live if item in want] == want
        return False

    def keyed_list(self, want: list[Any], live: list[Any], owned: Mapping[str, Any], name: str) -> bool:
        """A list whose items have an identity (containers by name). Their order is content, too: env refers backwards."""
        items = [(json.loads(key[2:]), below) for key, below in owned.items() if key.startswith("k:")]
        if len(items) != len(want):
            return False
        places = []
        for item in want:
            if not isinstance(item, Mapping):
                return False
            # A key that the manifest leaves out was filled in by the API server (protocol: TCP).
            fitting = [(keys, below) for keys, below in items if all(item.get(key, value) == value for key, value in keys.items())]
            if len(fitting) != 1:
                return False
            keys, below = fitting[0]
            found = [i for i, other in enumerate(live) if isinstance(other, Mapping) and all(other.get(k) == v for k, v in keys.items())]
            if len(found) != 1 or not self.map(item, live[found[0]], below, name):
                return False
            places.append(found[0])
        return places == sorted(set(places))

    def whole(self, want: Any, live: Any, name: str, inside: str) -> bool:
        """A scalar, or a list or map that is owned as one (atomic, or empty)."""
        if live is None:
            # Go's "omitempty": a zero value that was applied is not shown.
            return self.built_in and (want is None or want in ("", 0, [], {}))
        if want is None or isinstance(want, bool) or isinstance(live, bool):
            return want is live
        if isinstance(want, Mapping):
            return isinstance(live, Mapping) and self._atomic_map(want, live, name)
        if isinstance(want, list):
            return isinstance(live, list) and len(want) == len(live) and all(self.whole(a, b, name, inside) for a, b in zip(want, live, strict=True))
        if want == live and isinstance(want, str) == isinstance(live, str):
            return True
        return self.built_in and (inside in QUANTITY_MAPS or name in QUANTITY_FIELDS) and same_quantity(want, live)

    def _atomic_map(self, want: Mapping[str, Any], live: Mapping[str, Any], name: str) -> bool:
        extra = live.keys() - want.keys()
        if extra and not (self.built_in and all(ATOMIC_DEFAULTS.get((name, key)) == live[key] for key in extra)):
            return False
        return all(self.whole(value, live.get(key), key, name) for key, value in want.items())


def same_quantity(a: Any, b: Any) -> bool:
    """True if both are Kubernetes quantities of the same amount ("0.5" and "500m", "1024Mi" and "1Gi")."""
    one, other = quantity(a), quantity(b)
    return one is not None and one == other


def quantity(value: Any) -> Decimal | None:
    """The amount of a Kubernetes quantity, None if `value` is none."""
    text = str(value).strip()
    number, factor = text, Decimal(1)
    if text[-2:] in BINARY:
        number, factor = text[:-2], Decimal(1024) ** BINARY[text[-2:]]
    elif text[-1:] in SUFFIXES and text[-1:].isalpha():
        number, factor = text[:-1], Decimal(10) ** SUFFIXES[text[-1:]]
    try:
        amount = Decimal(number) * factor
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None
