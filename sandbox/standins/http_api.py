# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server of the stand-ins: control API (JSON) and the metrics pages of pods, which have no reachable address of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .settings import BadRequestError

Pages = Callable[[str], str | None]  # path -> Prometheus text, None: no such page


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class HttpApi:
    """`actions` maps POST paths to functions of the JSON body's keys; `state` answers GET /state; `pages` gives metrics pages."""

    def __init__(self, port: int, actions: dict[str, Callable[..., None]], state: Callable[[], dict[str, Any]], pages: Pages) -> None:
        self._http = _Server(("127.0.0.1", port), _handler(actions, state, pages))
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, name="http-api", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._http.shutdown()
        self._http.server_close()


def _handler(actions: dict[str, Callable[..., None]], state: Callable[[], dict[str, Any]], pages: Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet: Prometheus asks every few seconds."""

        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._send(200, "text/plain", "ok")
            elif self.path == "/state":
                self._json(200, state())
            elif (page := pages(self.path)) is not None:
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", page)
            else:
                self._json(
                    404,
                    {
                        "error": f"found no page {self.path}; needed: /state, /healthz, /kube-state-metrics/metrics, or "
                        "/pods/<namespace>/<pod>/metrics of a pod that serves one"
                    },
                )

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            action = actions.get(self.path)
            if action is None:
                self._json(404, {"error": f"found no action {self.path}; needed: one of {', '.join(actions)}"})
                return
            try:
                body = json.loads(raw or b"{}")
                if not isinstance(body, dict):
                    raise BadRequestError(f"found {body!r}; needed: a JSON object")
                action(**body)
            except (TypeError, ValueError) as error:  # wrong or missing keys, no JSON, BadRequestError
                self._json(400, {"error": str(error)})
                return
            self._json(200, {"ok": True})

        def _json(self, status: int, body: Any) -> None:
            self._send(status, "application/json", json.dumps(body))

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
