# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operations of this package are written with: the call, the error, the registry and the pages of a list."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moto.core.exceptions import ServiceException

if TYPE_CHECKING:
    from sandbox.aws.state import State

DATA = Path(__file__).resolve().parent / "data"
PASS_ON = object()
"""What an operation returns when moto's own answer is the right one after all."""


class AwsError(ServiceException):
    """An error as AWS answers it: `code` (an error shape of the service) and a message; `status` overrides the service model's HTTP status."""

    def __init__(self, code: str, message: str, status: int | None = None):
        super().__init__(code, message)
        self.status = status


@dataclass(frozen=True)
class Call:
    """One AWS request. `service` is boto3's name of the service, `operation` its API name such as CreateNodegroup."""

    service: str
    operation: str
    region: str
    access_key: str
    state: State


Handler = Callable[[Call, dict[str, Any]], Any]
HANDLERS: dict[tuple[str, str], Handler] = {}


def answers(service: str, operation: str) -> Callable[[Handler], Handler]:
    """Register a function(call, params) -> result as the answer to one operation; both dicts have the API's own key names."""

    def register(handler: Handler) -> Handler:
        HANDLERS[service, operation] = handler
        return handler

    return register


def page(items: list, params: dict[str, Any], size: int = 100, keys: tuple[str, str] = ("maxResults", "nextToken")) -> tuple[list, str | None]:
    """One page of a list: the items and the token of the next page, None on the last. Tokens are offsets."""
    limit = params.get(keys[0]) or size
    token = params.get(keys[1])
    if token and not token.isdigit():
        raise AwsError("InvalidParameterException", f"Invalid pagination token: {token}")
    start = int(token or 0)
    end = start + limit
    return items[start:end], str(end) if end < len(items) else None


def load(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())
