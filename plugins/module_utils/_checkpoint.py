# SPDX-License-Identifier: GPL-3.0-or-later
"""What the folder of a checkpoint says of its model, wherever the folder lies: config, and bytes of the tensors.

Weights are never read. model.safetensors.index.json states their total; without it the headers of the safetensors do
(8 bytes of length, then JSON; huggingface/safetensors, README "Format"), a few KiB at the beginning of each file.
"""

from __future__ import annotations

import fnmatch
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from . import _mistral_params
from ._fit_weights import SAFETENSORS_BITS

CONFIG, PARAMS = "config.json", "params.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.gguf")
FIRST_READ = 128 << 10  # holds the header of most files
HEADER_MAX = 100 << 20  # safetensors' own limit

Tensors = dict[str, tuple[str, tuple[int, ...]]]


class Unreadable(Exception):
    """A place did not give what was asked: the fields of a problem row but its subject. `severity` is error only where a server cannot start either."""

    def __init__(self, check: str, found: str, needed: str, fix: str, severity: str = "warning") -> None:
        super().__init__(f"found {found}; needed {needed}; fix: {fix}")
        self.check, self.found, self.needed, self.fix, self.severity = check, found, needed, fix, severity


class Place(Protocol):
    """A folder. `where` names it to people. All methods raise Unreadable."""

    where: str

    def names(self) -> set[str] | None:
        """The files directly in it, and folders with a slash behind; None when it may not be listed."""

    def read(self, name: str) -> bytes | None:
        """A whole (small) file; None when it does not exist."""

    def part(self, name: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of a file, fewer at its end."""


@dataclass(frozen=True)
class Checkpoint:
    """`config` in the words of config.json; `checkpoint_bytes` of all tensors or None; `tensors` where headers were read; `files` that were read.

    `names` are those of the tensors as far as an index lists them.
    """

    config: dict[str, Any]
    checkpoint_bytes: int | None
    tensors: Tensors | None
    files: tuple[str, ...]
    names: frozenset[str] = frozenset()


def read(place: Place, to_serve: bool) -> Checkpoint:
    """Read what `place` says. `to_serve`: a server shall start from this folder, so that all weights must be there.

    Raises Unreadable: source_without_config, source_incomplete, source_unreadable, or what the place raises.
    """
    names = place.names()
    # As vLLM decides (transformers_utils/config.py get_config): Mistral's own format wins where both are.
    mistral = PARAMS in (names or ()) and bool(fnmatch.filter(names or (), "consolidated*.safetensors"))
    config, files = _json(place, CONFIG, names), [PARAMS if mistral else CONFIG]
    if mistral:
        try:
            config = _mistral_params.to_config(_json(place, PARAMS, names) or {}, config)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            found = f"{PARAMS} in {place.where} with fields that are not understood ({type(error).__name__}: {error})"
            raise Unreadable("config_incomplete", found, f"{PARAMS} as published", "set config to the model's config.json") from error
    if config is None:
        raise _without_config(place, names)
    stem = "consolidated" if mistral else "model"
    index = _json(place, f"{stem}.safetensors.index.json", names)
    if index is None:
        shards = _shards(names, stem)
        if to_serve and not shards:
            _need_weights(place, names)
        tensors = _headers(place, shards, required=names is not None)
        # Without the right to list, a folder of one file is tried.
        files += [f"the headers of {len(shards)} safetensors file(s)"] if tensors else []
        return Checkpoint(config, _bytes(tensors) if tensors else None, tensors or None, tuple(files))
    files.append(f"{stem}.safetensors.index.json")
    shards = sorted({str(name) for name in (index.get("weight_map") or {}).values()})
    missing = [name for name in shards if names is not None and "/" not in name and name not in names]
    if missing and to_serve:
        raise Unreadable(
            "source_incomplete",
            f"{place.where} without {len(missing)} of the {len(shards)} files that its index names ({', '.join(missing[:3])}{' ...' if missing[3:] else ''})",
            "the whole model",
            "upload the rest; the index lists every file",
            "error",
        )
    total = (index.get("metadata") or {}).get("total_size")
    if isinstance(total, (int, float)) and total > 0:
        return Checkpoint(config, int(total), None, tuple(files), frozenset(map(str, index.get("weight_map") or ())))
    tensors = _headers(place, [name for name in shards if name not in missing], required=True)
    return Checkpoint(config, _bytes(tensors), tensors, (*files, f"the headers of {len(shards)} safetensors file(s)"))


def read_config(place: Place, name: str) -> Checkpoint:
    """Only the file `name`, a config.json under another name. Raises Unreadable."""
    config = _json(place, name, None)
    if config is None:
        raise Unreadable("config", f"no file {name} in {place.where}", "a config.json", "correct the path", "error")
    return Checkpoint(config, None, None, (name,))


def _json(place: Place, name: str, names: set[str] | None) -> dict[str, Any] | None:
    content = place.read(name) if names is None or name in names else None
    if content is None:
        return None
    try:
        parsed = json.loads(content)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise Unreadable("source_unreadable", f"{name} in {place.where} that is no JSON object", "the file as it was published", "upload it again", "error")
    return parsed


def _without_config(place: Place, names: set[str] | None) -> Unreadable:
    found = f"no {CONFIG} in {place.where}" + ("" if names is None else f", which holds {_listed(names)}")
    fix = f"upload the whole model, or end the source at the folder in which {CONFIG} lies"
    return Unreadable("source_without_config", found, f"{CONFIG}, or {PARAMS} beside consolidated.safetensors", fix, "error")


def _listed(names: set[str]) -> str:
    if not names:
        return "no files"
    return ", ".join(sorted(names)[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _shards(names: set[str] | None, stem: str) -> list[str]:
    """The files with weights. Some publishers put the same weights as consolidated.safetensors beside the shards."""
    if names is None:
        return ["model.safetensors"]
    every = sorted(fnmatch.filter(names, "*.safetensors"))
    return [name for name in every if name.startswith(stem)] or [name for name in every if not name.startswith("consolidated")] or every


def _need_weights(place: Place, names: set[str]) -> None:
    if not any(fnmatch.filter(names, pattern) for pattern in OTHER_WEIGHTS):
        found = f"{place.where} with {CONFIG} but no weights: {_listed(names)}"
        raise Unreadable("source_incomplete", found, "*.safetensors", "upload the whole model", "error")


def _headers(place: Place, shards: list[str], required: bool) -> Tensors:
    """All tensors of the files; a tensor that two files hold counts once."""
    tensors: Tensors = {}
    for name in shards:
        start = place.part(name, 0, FIRST_READ)
        if not start and not required:
            return {}
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        if 0 < length <= HEADER_MAX and len(start) < 8 + length:
            start += place.part(name, len(start), 8 + length)
        try:
            header = json.loads(start[8 : 8 + length]) if 0 < length <= HEADER_MAX else None
            found = {key: (entry["dtype"], tuple(entry["shape"])) for key, entry in header.items() if key != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError):
            found = f"{name} in {place.where} that does not begin as a safetensors file does"
            raise Unreadable("source_unreadable", found, "whole files", "upload it again", "error") from None
        tensors |= found
    return tensors


def _bytes(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    return sum(math.prod(shape) * SAFETENSORS_BITS.get(kind, 16) // 8 for kind, shape in tensors.values())
