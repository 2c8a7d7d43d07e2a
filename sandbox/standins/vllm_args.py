# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a container's arguments as `vllm serve` 0.33.0 does: what its parser refuses is refused here, with the same exit code 2.

Values are not checked beyond what the stand-in uses; choices, JSON and combinations are left to the real parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).with_name("data")
FLAGS: dict[str, dict] = json.loads((DATA / "vllm_flags.json").read_text())["flags"]
CANONICAL = {name: flag for flag, row in FLAGS.items() for name in (flag, *row.get("also", ()))}
DEFAULT_MODEL = "Qwen/Qwen3-0.6B"
DEFAULT_MAX_NUM_SEQS = 256  # of GPUs below 70 GiB and of the A100; 1024 on larger ones


class UsageError(ValueError):
    """The parser refuses; the message is what the container's log shows. Exit code 2."""


@dataclass(frozen=True)
class ServeArgs:
    """What the stand-in needs to know: names served, path or id of the model, TCP port, limits, drain seconds, GPUs, keys."""

    model: str
    served_names: tuple[str, ...]
    port: int = 8000
    max_num_seqs: int = DEFAULT_MAX_NUM_SEQS
    max_model_len: int = 8192
    shutdown_timeout: float = 0.0
    gpus: int = 1
    api_keys: tuple[str, ...] = ()
    docs: bool = True
    load_tracking: bool = False
    values: dict[str, list[str]] = field(default_factory=dict)


def _resolve(name: str) -> str:
    """Canonical flag of `name`, which may be an unambiguous beginning, as argparse allows. Raises UsageError."""
    base = name.split(".", 1)[0]  # --compilation-config.mode 3 sets one key of a JSON value
    if base.startswith("--"):
        base = base.replace("_", "-")
    if base in CANONICAL:
        return CANONICAL[base]
    if base.startswith("--"):
        matches = sorted({c for c in CANONICAL if c.startswith(base)})
        if len({CANONICAL[m] for m in matches}) == 1:
            return CANONICAL[matches[0]]
        if matches:
            raise UsageError(f"ambiguous option: {name} could match {', '.join(matches)}")
    raise UsageError(f"unrecognized arguments: {name}")


def _normalise(argv: Sequence[str]) -> list[str]:
    """Split ``--flag=value``, and write ``-O3`` as the long option it stands for."""
    words: list[str] = []
    for word in argv:
        if match := re.fullmatch(r"-O(\d)?", word):
            words += ["--optimization-level", *([match[1]] if match[1] else [])]
        elif re.match(r"--?[A-Za-z]", word) and "=" in word:
            words += word.split("=", 1)
        else:
            words.append(word)
    return words


def _is_flag(word: str) -> bool:
    return bool(re.match(r"--?[A-Za-z]", word))


def collect(argv: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Split arguments into positional ones and {flag: values}; a switch has its own spelling as value. Raises UsageError."""
    words = _normalise(argv)
    positional: list[str] = []
    values: dict[str, list[str]] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not _is_flag(word):
            positional.append(word)
            continue
        flag = _resolve(word)
        kind = FLAGS[flag]["kind"]
        taken: list[str] = []
        if kind == "switch":
            taken = [word]
        else:
            limit = len(words) if kind == "values" else 1
            while position < len(words) and len(taken) < limit and not _is_flag(words[position]):
                taken.append(words[position])
                position += 1
            if not taken and kind != "optional":
                raise UsageError(f"argument {flag}: expected {'at least ' if kind == 'values' else ''}one argument")
        values[flag] = taken
    if len(positional) > 1:
        raise UsageError(f"unrecognized arguments: {' '.join(positional[1:])}")
    return positional, values


def _integer(values: dict[str, list[str]], flag: str, default: int) -> int:
    if flag not in values:
        return default
    text = values[flag][0]
    if text in ("auto", "-1"):
        return default
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
    if not match:
        raise UsageError(f"argument {flag}: invalid int value: '{text}'")
    # As vLLM reads human-readable integers: small letters are decimal, capital ones binary.
    scale = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}[match[2]]
    return int(float(match[1]) * scale)


def parse(argv: Sequence[str]) -> ServeArgs:
    """Arguments of the container (without ``vllm serve``). Raises UsageError with the text that vLLM's parser prints."""
    try:
        positional, values = collect(argv)
        model = positional[0] if positional else values.get("--model", [DEFAULT_MODEL])[0]
        tensor, pipeline = (_integer(values, f"--{kind}-parallel-size", 1) for kind in ("tensor", "pipeline"))
        return ServeArgs(
            model=model,
            served_names=tuple(values.get("--served-model-name", [model])),
            port=_integer(values, "--port", 8000),
            max_num_seqs=_integer(values, "--max-num-seqs", DEFAULT_MAX_NUM_SEQS),
            max_model_len=_integer(values, "--max-model-len", 8192),
            shutdown_timeout=float(_integer(values, "--shutdown-timeout", 0)),
            gpus=tensor * pipeline,
            api_keys=tuple(values.get("--api-key", ())),
            docs=values.get("--disable-fastapi-docs", ["--enable-fastapi-docs"])[0] != "--disable-fastapi-docs",
            load_tracking=values.get("--enable-server-load-tracking", [""])[0] == "--enable-server-load-tracking",
            values=values,
        )
    except UsageError as error:
        raise UsageError(f"usage: vllm serve [model_tag] [options]\nvllm serve: error: {error}") from None


def of_container(container: dict, environment: dict[str, str]) -> ServeArgs | None:
    """Parsed arguments of a container spec, or None when it does not run `vllm serve`. Raises UsageError.

    Without `command` the image's entry point ``vllm serve`` is assumed. ``$(NAME)`` is expanded as the kubelet does.
    """
    words = [re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), word) for word in (container.get("command") or [])]
    arguments = [re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), word) for word in (container.get("args") or [])]
    if not words:
        return parse(arguments)
    if Path(words[0]).name == "vllm" and words[1:2] == ["serve"]:
        return parse([*words[2:], *arguments])
    if "-m" in words and any(w.startswith("vllm.entrypoints") for w in words):
        rest = words[words.index("-m") + 2 :]
        return parse([*rest[1:], *arguments] if rest[:1] == ["serve"] else [*rest, *arguments])
    return None
