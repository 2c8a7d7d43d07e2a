# SPDX-License-Identifier: GPL-3.0-or-later
"""What the control API has asked for, shared by all stand-ins. Every change wakes those that wait."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field
from typing import Any

FAILURES = ("crash", "kv_cache", "oom", "hang", "engine_dead")


class BadRequestError(ValueError):
    """The control API was asked for something it does not know; the message says what it knows."""


@dataclass
class Model:
    """How the servers of one model behave. `load_seconds` from start to ready; `fail` "" or one of FAILURES; `seconds_per_token` paces answers."""

    load_seconds: float = 3.0
    fail: str = ""
    seconds_per_token: float = 0.0


@dataclass
class Load:
    """Injected into one model: requests in flight over all its servers, and optionally the KV cache usage (0-1) that each shows."""

    concurrency: float = 0.0
    kv_cache_usage: float | None = None


@dataclass
class Node:
    """Faults of one GPU node: GPUs that the device plugin marks unhealthy, last XID, temperature in C, silent exporter."""

    unhealthy_gpus: int = 0
    xid: int = 0
    temperature: float = 45.0
    row_remap_failure: bool = False
    telemetry: bool = True


@dataclass
class Settings:
    """`images` maps a part of an image name to "fail". `operator` forces the GPU operator's reason. `load_seconds` is every model's default.

    `time_scale` shortens drains, preStop sleeps and back-offs: 0.1 makes a tenth of a kubelet's seconds.
    """

    load_seconds: float = 3.0
    time_scale: float = 0.1
    models: dict[str, Model] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    operator: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()

    def model(self, name: str) -> Model:
        """Behaviour of a model (its first served name)."""
        return self.models.get(name) or Model(self.load_seconds)

    def node(self, name: str) -> Node:
        """Faults of a node."""
        return self.nodes.get(name) or Node()

    def image_fails(self, image: str) -> bool:
        """True if this image cannot be pulled."""
        return "does-not-exist" in image or any(part in image and state == "fail" for part, state in self.images.items())

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def set_model(self, name: str, **values: Any) -> None:
        """Change the behaviour of a model; keys of Model."""
        _known(values, Model)
        if values.get("fail", "") not in ("", *FAILURES):
            raise BadRequestError(f"fail: found {values['fail']!r}; needed: one of {', '.join(FAILURES)}, or empty to heal")
        self.models[name] = Model(**{**asdict(self.model(name)), **values})
        self._wake()

    def set_load(self, model: str, concurrency: float, kv_cache_usage: float | None = None) -> None:
        """Put `concurrency` requests in flight for a model."""
        if concurrency < 0:
            raise BadRequestError(f"concurrency: found {concurrency}; needed: 0 or more requests in flight")
        if kv_cache_usage is not None and not 0 <= kv_cache_usage <= 1:
            raise BadRequestError(f"kv_cache_usage: found {kv_cache_usage}; needed: a share from 0 to 1")
        self.loads[model] = Load(float(concurrency), kv_cache_usage)
        self._wake()

    def set_image(self, image: str, pull: str) -> None:
        """`pull` "fail" or "ok" for images whose name contains `image`."""
        if pull not in ("fail", "ok"):
            raise BadRequestError(f"pull: found {pull!r}; needed: fail or ok")
        self.images[image] = pull
        self._wake()

    def set_node(self, name: str, **values: Any) -> None:
        """Change the faults of a node; keys of Node."""
        _known(values, Node)
        self.nodes[name] = Node(**{**asdict(self.node(name)), **values})
        self._wake()

    def set_operator(self, reason: str = "", message: str = "") -> None:
        """Force the ClusterPolicy's reason, or let the controller decide again (empty)."""
        self.operator = {"reason": reason, "message": message} if reason else {}
        self._wake()

    def to_dict(self) -> dict[str, Any]:
        """As JSON for GET /state."""
        return asdict(self)


def _known(values: dict[str, Any], kind: type) -> None:
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    if unknown := sorted(set(values) - set(fields)):
        raise BadRequestError(f"found unknown {', '.join(unknown)}; needed: {', '.join(fields)}")
    for key, value in values.items():
        default = fields[key].default
        if not isinstance(value, type(default)) and not (isinstance(default, float) and isinstance(value, int)):
            raise BadRequestError(f"{key}: found {value!r}; needed: a value like {default!r}")
