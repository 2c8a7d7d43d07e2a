# SPDX-License-Identifier: GPL-3.0-or-later
"""The vLLM stand-in against what a real vLLM 0.33.0 was recorded to do."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from sandbox.standins import vllm_args
from sandbox.standins.vllm_engine import Engine, Load, recorded_page
from sandbox.standins.vllm_server import VllmServer

ROWS = json.loads((vllm_args.DATA / "vllm_unauthenticated.json").read_text())["rows"]


def call(server: VllmServer, method: str, path: str, body: object = None, key: str = "") -> tuple[int, str]:
    data = json.dumps(body).encode() if body is not None else (b"{}" if method == "POST" else None)
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data=data, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def server() -> Iterator[VllmServer]:
    args = vllm_args.parse(["/models/tiny", "--served-model-name", "tiny-model", "alias", "--max-num-seqs=2", "--api-key", "key-one", "key-two"])
    one = VllmServer(Engine(args))
    one.listen()
    yield one
    one.close()


def samples(page: str) -> set[tuple[str, frozenset[str]]]:
    found = set()
    for line in page.splitlines():
        if match := re.fullmatch(r"([\w:]+)(?:\{(.*)\})? \S+", line):
            found.add((match[1], frozenset(re.findall(r'(\w+)="', match[2] or ""))))
    return found


def value(page: str, name: str, **labels: str) -> float:
    for line in page.splitlines():
        if line.startswith(f"{name}{{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no series {name} {labels}")


def test_metrics_page_has_the_recorded_names_and_labels(server: VllmServer) -> None:
    recorded = "\n".join(line.text for line in recorded_page())
    _, page = call(server, "GET", "/metrics")
    assert samples(page) == samples(recorded)
    assert len(samples(page)) > 100
    assert 'model_name="tiny-model"' in page
    assert 'model_name="tiny"' not in page


@pytest.mark.parametrize(("status", "method", "path"), ROWS)
def test_asks_for_the_key_exactly_where_vllm_does(server: VllmServer, status: int, method: str, path: str) -> None:
    assert call(server, method, path)[0] == status


@pytest.mark.parametrize(("key", "status"), [("key-one", 200), ("key-two", 200), ("other", 401), ("", 401)])
def test_any_of_several_keys_opens(server: VllmServer, key: str, status: int) -> None:
    assert call(server, "GET", "/v1/models", key=key)[0] == status


def test_refuses_connections_until_loaded() -> None:
    one = VllmServer(Engine(vllm_args.parse(["m"])))
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", one.port), 1)
        one.listen()
        assert call(one, "GET", "/health") == (200, "")
        one.dead = True
        assert call(one, "GET", "/health")[0] == 503
    finally:
        one.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", one.port), 1)


def test_completion_is_deterministic_and_counted(server: VllmServer) -> None:
    body = {"model": "alias", "prompt": "one two three", "max_tokens": 5}
    first, second = (json.loads(call(server, "POST", "/v1/completions", body, "key-one")[1]) for _ in range(2))
    assert first["choices"][0]["text"] == second["choices"][0]["text"] == "one two three one two"
    assert first["choices"][0]["finish_reason"] == "length"
    assert first["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    page = call(server, "GET", "/metrics")[1]
    assert value(page, "vllm:generation_tokens_total", model_name="tiny-model") == 10
    assert value(page, "vllm:request_success_total", finished_reason="length") == 2
    assert value(page, "vllm:e2e_request_latency_seconds_count") == 2


def test_unknown_model_is_404_with_the_aliases(server: VllmServer) -> None:
    status, text = call(server, "POST", "/v1/completions", {"model": "nope", "prompt": "x"}, "key-one")
    assert status == 404
    assert "Valid aliases: tiny-model, alias" in text


def test_chat_streams_chunks_and_done(server: VllmServer) -> None:
    body = {"messages": [{"role": "user", "content": "a b c"}], "max_tokens": 3, "stream": True}
    status, text = call(server, "POST", "/v1/chat/completions", body, "key-one")
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert status == 200
    assert events[-1] == "[DONE]"
    chunks = [json.loads(e) for e in events[:-1]]
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == "a b c"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_draining_refuses_new_requests_while_health_stays_200(server: VllmServer) -> None:
    server.draining = True
    assert call(server, "GET", "/health")[0] == 200
    status, text = call(server, "POST", "/v1/completions", {"prompt": "x"}, "key-one")
    assert status == 500
    assert "after shutdown" in text


def test_load_beyond_max_num_seqs_waits_for_capacity(server: VllmServer) -> None:
    server.engine.set_load(Load(6))
    page = call(server, "GET", "/metrics")[1]
    assert value(page, "vllm:num_requests_running") == 2
    assert value(page, "vllm:num_requests_waiting") == 4
    assert value(page, "vllm:num_requests_waiting_by_reason", reason="capacity") == 4
    assert value(page, "vllm:num_requests_waiting_by_reason", reason="deferred") == 0
    deadline = time.monotonic() + 20
    while value(call(server, "GET", "/metrics")[1], "vllm:generation_tokens_total") <= value(page, "vllm:generation_tokens_total"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_hung_engine_keeps_health_and_stops_counting(server: VllmServer) -> None:
    server.engine.set_load(Load(1))
    server.engine.hung = True
    before = value(call(server, "GET", "/metrics")[1], "vllm:iteration_tokens_total_count")
    blocked = threading.Thread(target=call, args=(server, "POST", "/v1/completions", {"prompt": "x"}, "key-one"), daemon=True)
    blocked.start()
    time.sleep(0.3)
    page = call(server, "GET", "/metrics")[1]
    assert blocked.is_alive()
    assert value(page, "vllm:num_requests_running") == 2
    assert value(page, "vllm:iteration_tokens_total_count") == before
    assert call(server, "GET", "/health")[0] == 200


def test_histogram_buckets_are_cumulative(server: VllmServer) -> None:
    server.engine.finish(100, 50, 2.0, "stop", 3)
    server.engine.finish(100, 50, 20.0, "stop", 1)
    page = call(server, "GET", "/metrics")[1]
    name = "vllm:e2e_request_latency_seconds_bucket"
    counts = [float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 4)
    assert value(page, name, le="2.5") == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["m", "--swap-space", "4"], "unrecognized arguments: --swap-space"),
        (["m", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["m", "--device", "cuda"], "ambiguous option: --device"),
        (["m", "--max-model-len"], "argument --max-model-len: expected one argument"),
        (["m", "extra"], "unrecognized arguments: extra"),
        (["m", "--max-num-seqs", "many"], "argument --max-num-seqs: invalid int value: 'many'"),
    ],
)
def test_refuses_what_the_real_parser_refuses(argv: list[str], message: str) -> None:
    with pytest.raises(vllm_args.UsageError, match=re.escape(message)):
        vllm_args.parse(argv)


def test_reads_the_arguments_it_needs() -> None:
    args = vllm_args.parse(
        [
            "s3://bucket/llama/",
            "--served-model-name",
            "a",
            "b",
            "--tensor-parallel-size=4",
            "--pipeline-parallel-size",
            "2",
            "--max-model-len",
            "16K",
            "--port=9000",
            "--shutdown-timeout",
            "120",
            "--disable-prefix-caching",
            "-O3",
            "-cc.mode=none",
            "--tensor-parallel",
            "4",
            "--disable-fastapi-docs",
        ]
    )
    assert (args.model, args.served_names, args.gpus) == ("s3://bucket/llama/", ("a", "b"), 8)
    assert (args.max_model_len, args.port, args.shutdown_timeout, args.docs) == (16384, 9000, 120.0, False)


def test_finds_arguments_behind_any_entry_point_and_expands_variables() -> None:
    env = {"KEY": "sekrit"}
    plain = vllm_args.of_container({"args": ["m", "--api-key", "$(KEY)"]}, env)
    module = vllm_args.of_container({"command": ["python3", "-m", "vllm.entrypoints.cli.main", "serve", "m"], "args": ["--port=1"]}, env)
    assert plain is not None
    assert plain.api_keys == ("sekrit",)
    assert module is not None
    assert (module.model, module.port) == ("m", 1)
    assert vllm_args.of_container({"command": ["sleep", "5"]}, env) is None
