# SPDX-License-Identifier: GPL-3.0-or-later
"""Check and cast user input against the options of a DOCUMENTATION block, reporting every problem instead of the first."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ._problems import problem

Rows = list[dict[str, str]]


def nearest(word: str, known: list[str]) -> str:
    """' (did you mean X?)' when a known word is close, else ''."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def cast(options: Mapping[str, Any], value: Any, subject: str, path: str = "") -> tuple[dict[str, Any], Rows]:
    """Return (value with casts and defaults, problems). `options` is the `suboptions` mapping of a DOCUMENTATION block."""
    rows: Rows = []
    if not isinstance(value, Mapping):
        return {}, [problem("type", subject, f"{path or 'item'} = {value!r}", "a mapping", f"write {path or 'the item'} as key: value pairs")]
    for key in value:
        if key not in options:
            rows.append(
                problem(
                    "unknown_key",
                    subject,
                    f"{path}{key}",
                    f"one of {', '.join(sorted(options))}",
                    f"remove or correct the key{nearest(str(key), list(options))}",
                )
            )
    result: dict[str, Any] = {}
    for key, option in options.items():
        given = value.get(key)
        if given is None:
            if option.get("required"):
                rows.append(
                    problem(
                        "missing_key",
                        subject,
                        f"no {path}{key}",
                        option["description"] if isinstance(option["description"], str) else option["description"][0],
                        f"set {path}{key}",
                    )
                )
            given = option.get("default")
            if given is None:
                result[key] = None
                continue
        result[key], more = _cast_one(option, given, subject, f"{path}{key}")
        rows += more
    return result, rows


def _cast_one(option: Mapping[str, Any], given: Any, subject: str, path: str) -> tuple[Any, Rows]:
    kind = option["type"]
    if kind == "raw":
        return given, []
    if kind == "dict":
        if "suboptions" in option:
            return cast(option["suboptions"], given, subject, f"{path}.")
        if not isinstance(given, Mapping):
            return {}, [problem("type", subject, f"{path} = {given!r}", "a mapping", f"write {path} as key: value pairs")]
        return dict(given), []
    if kind == "list":
        if not isinstance(given, (list, tuple)):
            return [], [problem("type", subject, f"{path} = {given!r}", "a list", f"write {path} as a list")]
        element = {"type": option["elements"], **{key: option[key] for key in ("suboptions", "choices") if option.get(key)}}
        pairs = [_cast_one(element, item, subject, f"{path}[{index}]") for index, item in enumerate(given)]
        return [item for item, _ in pairs], [row for _, more in pairs for row in more]
    try:
        result = {"int": _integer, "float": _number, "bool": _truth, "str": _text}[kind](given)
    except (TypeError, ValueError):
        name = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}[kind]
        return None, [problem("type", subject, f"{path} = {given!r}", name, f"give {path} {name}")]
    if option.get("choices") and result not in option["choices"]:
        return result, [
            problem("choice", subject, f"{path} = {result}", f"one of {', '.join(option['choices'])}", f"correct {path}{nearest(result, option['choices'])}")
        ]
    return result, []


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, float) and value != int(value):
        raise ValueError
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    return boolean(value, strict=True)


def _text(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple, bool)):
        raise TypeError
    return str(value)
