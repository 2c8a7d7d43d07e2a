# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP surface of one vLLM 0.33.0 server: same paths, same status codes, same places where the API key is asked for.

The answers are made up (the prompt's words, repeated), so nothing about quality, tokenisation or speed can be learnt here.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .vllm_engine import Engine

VERSION = "0.33.0"
GUARDED = ("/v1", "/v2", "/inference", "/cohere")  # prefixes for which --api-key asks; everything else stays open
UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version")
KNOWN_404 = "Not Found"


class HttpError(Exception):
    """An answer other than 200: status and JSON body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def refused(status: int, message: str, kind: str = "Bad Request") -> HttpError:
    """An error in OpenAI's form."""
    return HttpError(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})


def words_of(request: dict[str, Any]) -> list[str]:
    """The prompt's words: the stand-in's tokens."""
    if "messages" in request:
        texts = [m.get("content", "") for m in request["messages"] if isinstance(m, dict)]
        return " ".join(t if isinstance(t, str) else json.dumps(t) for t in texts).split()
    prompt = request.get("prompt", "")
    return (prompt if isinstance(prompt, str) else json.dumps(prompt)).split()


def answer_words(request: dict[str, Any]) -> tuple[list[str], str]:
    """(words of the answer, finish reason): the prompt's words in turn, `max_tokens` of them; the same request gives the same answer."""
    limit = int(request.get("max_completion_tokens") or request.get("max_tokens") or 16)
    source = words_of(request) or ["empty"]
    natural = max(len(source), 8)
    count = min(limit, natural)
    return [source[i % len(source)] for i in range(count)], "length" if limit < natural else "stop"


class VllmServer:
    """One server on a port of 127.0.0.1 that refuses connections until `listen`.

    `seconds_per_token` paces answers. `draining` (SIGTERM with --shutdown-timeout) makes new requests fail with 500 while /health stays 200.
    `dead` (the engine process is gone) makes /health 503.
    """

    def __init__(self, engine: Engine, seconds_per_token: float = 0.0) -> None:
        self.engine = engine
        self.seconds_per_token = seconds_per_token
        self.draining = False
        self.dead = False
        self._aborted = False
        self.closed = threading.Event()
        # Bound but not listening is how vLLM waits for its engine: connections are refused.
        self._http = _Listener(("127.0.0.1", 0), _handler_class(self), bind_and_activate=False)
        self._http.server_bind()
        self.port: int = self._http.server_address[1]
        self._thread: threading.Thread | None = None

    @property
    def listening(self) -> bool:
        return self._thread is not None and not self.closed.is_set()

    def listen(self) -> None:
        """The engine is ready: answer."""
        self._http.server_activate()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name=f"vllm-{self.port}", daemon=True)
        self._thread.start()

    def abort(self) -> None:
        """SIGTERM without --shutdown-timeout: the port closes, open requests get neither a word nor an end while the process stays."""
        if not self._aborted:
            self._aborted = True
            if self._thread:
                self._http.shutdown()
            self._http.server_close()

    def close(self) -> None:
        """The process is gone: connections are refused again and open ones end."""
        self.abort()
        self.closed.set()

    def authorised(self, path: str, method: str, header: str) -> bool:
        """True if this request needs no key or has one."""
        keys = self.engine.args.api_keys
        guarded = any(path == prefix or path.startswith(prefix + "/") for prefix in GUARDED)
        if not keys or method == "OPTIONS" or not guarded:
            return True
        scheme, _, key = header.partition(" ")
        return scheme.lower() == "bearer" and any(hmac.compare_digest(key.encode(), k.encode()) for k in keys)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[str, str]:
        """(content type, body) for every path but the streamed ones. Raises HttpError."""
        handler = self._routes().get((method, path))
        if handler is None:
            raise HttpError(404, {"detail": KNOWN_404})
        result = handler(body)
        return result if isinstance(result, tuple) else ("application/json", json.dumps(result) if result is not None else "")

    def _routes(self) -> dict[tuple[str, str], Callable[[dict[str, Any]], Any]]:
        routes: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
            ("GET", "/metrics"): lambda _: ("text/plain; version=1.0.0; charset=utf-8", self.engine.metrics()),
            ("GET", "/version"): lambda _: {"version": VERSION},
            ("GET", "/load"): lambda _: {"server_load": self.engine.real if self.engine.args.load_tracking else 0},
            ("GET", "/kv_event_sources"): lambda _: {},
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): self._generate,
            ("POST", "/v1/chat/completions"): self._generate,
            ("POST", "/invocations"): self._invocations,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): lambda body: self._require(body, "tokens") or {"prompt": " ".join(map(str, body["tokens"]))},
            ("POST", "/generative_scoring"): lambda body: self._require(body, "query", "items", "label_token_ids"),
            ("POST", "/scale_elastic_ep"): lambda body: self._require(body, "new_data_parallel_size"),
            ("POST", "/is_scaling_elastic_ep"): lambda _: {"is_scaling_elastic_ep": False, "phase": "idle", "epoch": None, "error": None},
        }
        for method in ("GET", "POST"):
            routes[method, "/health"] = routes[method, "/ping"] = self._health
        if self.engine.args.docs:
            for path in ("/docs", "/redoc", "/openapi.json"):
                routes["GET", path] = lambda _: {"info": {"title": "FastAPI", "version": VERSION}}
        return routes

    def _health(self, _: dict[str, Any]) -> None:
        if self.dead:
            raise HttpError(503, {})

    def _models(self, _: dict[str, Any]) -> dict[str, Any]:
        args, created = self.engine.args, int(self.engine.created)
        rows = [
            {"id": name, "object": "model", "created": created, "owned_by": "vllm", "root": args.model, "parent": None, "max_model_len": args.max_model_len}
            for name in args.served_names
        ]
        return {"object": "list", "data": rows}

    @staticmethod
    def _require(body: dict[str, Any], *keys: str) -> None:
        """400 in vLLM's words when a field is missing."""
        missing = [key for key in keys if key not in body]
        if missing:
            rows = "\n".join(f"  {{'type': 'missing', 'loc': 'body.{key}', 'msg': 'Field required'}}" for key in missing)
            raise refused(400, f"{len(missing)} validation error{'s' if len(missing) > 1 else ''}:\n{rows}")

    def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        if "messages" not in body:
            self._require(body, "prompt")
        words = words_of(body)
        return {"count": len(words), "max_model_len": self.engine.args.max_model_len, "tokens": list(range(len(words))), "token_strs": None}

    def _invocations(self, body: dict[str, Any]) -> dict[str, Any]:
        if not words_of(body):
            raise refused(400, "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)")
        return self._generate(body)

    def check_request(self, body: dict[str, Any]) -> None:
        """Refuse what vLLM refuses before it schedules a request. Raises HttpError."""
        if self.draining:
            raise refused(500, "cannot schedule new futures after shutdown", "Internal Server Error")
        if self.dead:
            raise refused(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", "Internal Server Error")
        names, asked = self.engine.args.served_names, body.get("model")
        if asked is not None and asked not in names:
            raise refused(404, f"The model `{asked}` does not exist. Valid aliases: {', '.join(names)}", "NotFoundError")
        if "messages" not in body:
            self._require(body, "prompt")
        if len(words_of(body)) > self.engine.args.max_model_len:
            raise refused(
                400,
                f"This model's maximum context length is {self.engine.args.max_model_len} tokens. However, your request has "
                f"{len(words_of(body))} input tokens. Please reduce the length of the input messages.",
                "BadRequestError",
            )

    def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        self.check_request(body)
        chunks = list(self.generate(body))
        words, reason = answer_words(body)
        text = " ".join(words)
        usage = {"prompt_tokens": len(words_of(body)), "completion_tokens": len(chunks), "total_tokens": len(words_of(body)) + len(chunks)}
        chat = "messages" in body
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        return {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": body.get("model") or self.engine.args.served_names[0],
            "choices": [choice],
            "usage": usage,
        }

    def generate(self, body: dict[str, Any]) -> Any:
        """Yield the answer's words at the engine's pace and count the request. Ends early when the server closes; blocks when hung."""
        started, (words, reason) = time.monotonic(), answer_words(body)
        self.engine.begin()
        sent = 0
        try:
            if self.engine.hung:
                self.closed.wait()
            for word in words:
                if self._aborted:
                    self.closed.wait()
                if self.closed.wait(self.seconds_per_token) if self.seconds_per_token else self.closed.is_set():
                    reason = "abort"
                    return
                sent += 1
                yield word
        finally:
            self.engine.end()
            if not self.engine.hung:
                self.engine.finish(len(words_of(body)), sent, time.monotonic() - started, reason if sent == len(words) else "abort")


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def _handler_class(server: VllmServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "uvicorn"

        def log_message(self, *_: object) -> None:
            """Requests are counted in the metrics; the pod's log keeps to the server's life."""

        def _serve(self) -> None:
            path = self.path.split("?", 1)[0]
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = 200
            try:
                if not server.authorised(path, self.command, self.headers.get("Authorization", "")):
                    raise HttpError(401, {"error": "Unauthorized"})
                try:
                    body = json.loads(raw) if raw else {}
                except ValueError:
                    raise refused(400, "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body', 'msg': 'JSON decode error'}") from None
                if body.get("stream") and (self.command, path) in server._routes() and path.startswith("/v1/"):
                    self._stream(path, body)
                else:
                    self._send(200, *server.answer(self.command, path, body))
            except HttpError as error:
                status = error.status
                self._send(status, "application/json", json.dumps(error.body) if error.body else "")
            finally:
                if path not in UNCOUNTED:
                    server.engine.count_http(path, self.command, status)

        do_GET = do_POST = do_DELETE = do_PUT = do_OPTIONS = _serve

        def _send(self, status: int, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

        def _stream(self, path: str, body: dict[str, Any]) -> None:
            server.check_request(body)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            chat = path.endswith("chat/completions")
            head = {
                "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
                "created": int(time.time()),
                "object": "chat.completion.chunk" if chat else "text_completion",
                "model": body.get("model") or server.engine.args.served_names[0],
            }
            words, reason = answer_words(body)
            sent = 0
            with contextlib.suppress(ConnectionError):
                for word in server.generate(body):
                    text = word if sent == 0 else f" {word}"
                    sent += 1
                    last = reason if sent == len(words) else None
                    part = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
                    self._chunk(json.dumps({**head, "choices": [{"index": 0, **part, "logprobs": None, "finish_reason": last}]}))
                if sent == len(words):
                    self._chunk("[DONE]")
                    self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        def _chunk(self, text: str) -> None:
            data = f"data: {text}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler
