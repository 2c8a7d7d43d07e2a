# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of the stand-ins' control API, for tests and demonstrations::

control = Control(os.environ["LLM_SANDBOX_CONTROL"])
control.load("llama-3-1-8b", concurrency=40)
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class ControlError(RuntimeError):
    """The stand-ins refused or did not answer; the message is theirs."""


class Control:
    """`url` is what `python -m sandbox up` prints as LLM_SANDBOX_CONTROL, such as http://127.0.0.1:18800."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ControlError(f"{path}: {json.loads(error.read()).get('error', error.reason)}") from error
        except OSError as error:
            raise ControlError(f"{self.url}: found no stand-ins answering ({error}); needed: a running sandbox; run: python -m sandbox up") from error

    def load(self, model: str, concurrency: float, kv_cache_usage: float | None = None) -> None:
        """Put `concurrency` requests in flight for `model` (first served name), spread over its ready servers."""
        self._call("/load", {"model": model, "concurrency": concurrency, "kv_cache_usage": kv_cache_usage})

    def model(self, name: str, **behaviour: Any) -> None:
        """Set `load_seconds` (s), `seconds_per_token` (s) or `fail` (crash, kv_cache, oom, hang, engine_dead, or "" to heal) of a model."""
        self._call("/model", {"name": name, **behaviour})

    def image(self, image: str, pull: str) -> None:
        """`pull` "fail" or "ok" for every image whose name contains `image`."""
        self._call("/image", {"image": image, "pull": pull})

    def node(self, name: str, **faults: Any) -> None:
        """Set `unhealthy_gpus`, `xid`, `temperature` (C), `row_remap_failure` or `telemetry` of a GPU node."""
        self._call("/node", {"name": name, **faults})

    def operator(self, reason: str = "", message: str = "") -> None:
        """Force the ClusterPolicy's reason (as OperandNotReady); empty lets the controller decide again."""
        self._call("/operator", {"reason": reason, "message": message})

    def state(self) -> dict[str, Any]:
        """Settings, the vLLM pods and what each stand-in has done."""
        return self._call("/state")
