# SPDX-License-Identifier: GPL-3.0-or-later
"""A vLLM engine as its metrics show it: requests that run, wait and finish. Text is made up, time is accounted for.

Injected load is imitated: requests of PROMPT_TOKENS and OUTPUT_TOKENS each, TOKENS_PER_SECOND a running request.
"""

from __future__ import annotations

import bisect
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .vllm_args import DATA, ServeArgs

PROMPT_TOKENS = 512
OUTPUT_TOKENS = 256
TOKENS_PER_SECOND = 40.0  # of one running request
SECONDS_PER_REQUEST = OUTPUT_TOKENS / TOKENS_PER_SECOND
KV_TOKENS = 200_000  # size of the imitated KV cache
SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Line:
    """One line of the recorded page: a comment (`name` empty), or a sample."""

    text: str
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    value: str = "0"


@cache
def recorded_page(path: Path = DATA / "vllm_metrics.prom") -> tuple[Line, ...]:
    """The lines of a real server's /metrics, which decide every name and label that the stand-in shows."""
    lines = []
    for text in path.read_text().splitlines():
        match = None if text.startswith("#") else SAMPLE.fullmatch(text)
        lines.append(Line(text, match["name"], tuple(LABEL.findall(match["labels"] or "")), match["value"]) if match else Line(text))
    return tuple(lines)


class Histogram:
    """Counts per bucket bound (seconds or tokens), with weights because imitated requests finish in fractions of one."""

    def __init__(self) -> None:
        self.observed: list[tuple[float, float]] = []  # (value, weight), sorted by value

    def add(self, value: float, weight: float = 1.0) -> None:
        position = bisect.bisect_left(self.observed, (value,))
        if position < len(self.observed) and self.observed[position][0] == value:
            self.observed[position] = (value, self.observed[position][1] + weight)
        else:
            self.observed.insert(position, (value, weight))

    def below(self, bound: float) -> float:
        """Cumulative count of values up to `bound`."""
        return sum(weight for value, weight in self.observed if value <= bound)

    @property
    def total(self) -> float:
        return sum(value * weight for value, weight in self.observed)


@dataclass
class Load:
    """What the control API injects into one pod: requests in flight, KV cache usage (0-1, None: computed)."""

    in_flight: float = 0.0
    kv_cache_usage: float | None = None


@dataclass
class Engine:
    """State of one server. `hung` engines take requests and never finish one, while /health stays 200."""

    args: ServeArgs
    created: float = field(default_factory=time.time)
    hung: bool = False
    load: Load = field(default_factory=Load)
    real: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    http: dict[tuple[str, str, str], int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._advanced = time.monotonic()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return int(min(self.load.in_flight + self.real, self.args.max_num_seqs))

    @property
    def waiting(self) -> int:
        """Requests that found no place in the batch."""
        return int(max(0, self.load.in_flight + self.real - self.args.max_num_seqs))

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache in use, 0-1."""
        if self.load.kv_cache_usage is not None:
            return self.load.kv_cache_usage
        return min(1.0, self.running * (PROMPT_TOKENS + OUTPUT_TOKENS / 2) / KV_TOKENS)

    def set_load(self, load: Load) -> None:
        """Account for the time so far under the old load, then take the new one."""
        with self._lock:
            self.advance()
            self.load = load

    def begin(self) -> None:
        """A real request enters."""
        with self._lock:
            self.advance()
            self.real += 1

    def end(self) -> None:
        """A real request leaves."""
        with self._lock:
            self.advance()
            self.real -= 1

    def finish(self, prompt: int, output: int, seconds: float, reason: str, weight: float = 1.0, queued: float = 0.0) -> None:
        """Count `weight` finished requests of `prompt` and `output` tokens that took `seconds` after `queued` seconds in the queue."""
        with self._lock:
            for name, amount in (("prompt_tokens", prompt), ("generation_tokens", output), ("prefix_cache_queries", prompt)):
                self.counters[name] = self.counters.get(name, 0) + amount * weight
            self.finished[reason] = self.finished.get(reason, 0) + weight
            per_token = seconds / max(output, 1)
            prefill = min(seconds, prompt / 20000)
            values = {
                "request_prompt_tokens": prompt,
                "request_generation_tokens": output,
                "request_max_num_generation_tokens": output,
                "request_params_max_tokens": output,
                "request_params_n": 1,
                "request_num_preemptions": 0,
                "request_prefill_kv_computed_tokens": prompt,
                "time_to_first_token_seconds": queued + prefill + per_token,
                "request_time_per_output_token_seconds": per_token,
                "e2e_request_latency_seconds": queued + seconds,
                "request_queue_time_seconds": queued,
                "request_inference_time_seconds": seconds,
                "request_prefill_time_seconds": prefill,
                "request_decode_time_seconds": seconds - prefill,
            }
            for name, value in values.items():
                self._histogram(name).add(float(value), weight)
            self._histogram("inter_token_latency_seconds").add(per_token, max(output - 1, 0) * weight)
            self._histogram("iteration_tokens_total").add(float(max(self.running, 1)), output * weight / max(self.running, 1))

    def count_http(self, handler: str, method: str, status: int) -> None:
        """Count an answered HTTP request as the instrumentator does."""
        with self._lock:
            key = (handler, method, f"{status // 100}xx")
            self.http[key] = self.http.get(key, 0) + 1

    def advance(self) -> None:
        """Let the injected requests make progress up to now."""
        with self._lock:
            passed = time.monotonic() - self._advanced
            self._advanced += passed
            injected = min(self.load.in_flight, self.args.max_num_seqs)
            if self.hung or injected <= 0 or passed <= 0:
                return
            queued = self.waiting / injected * SECONDS_PER_REQUEST
            # Rounded, so that the histograms keep few distinct values however often a page is read.
            self.finish(PROMPT_TOKENS, OUTPUT_TOKENS, SECONDS_PER_REQUEST, "stop", injected * passed / SECONDS_PER_REQUEST, round(queued, 1))

    def _histogram(self, name: str) -> Histogram:
        return self.histograms.setdefault(name, Histogram())

    def metrics(self) -> str:
        """The /metrics page: every name and label of the recorded page, with this engine's model name and values."""
        with self._lock:
            self.advance()
            return "\n".join(self._render(line) for line in recorded_page()) + "\n"

    def _render(self, line: Line) -> str:
        if not line.name:
            return line.text
        labels = dict(line.labels)
        if "model_name" in labels:
            labels["model_name"] = self.args.served_names[0]
        text = ",".join(f'{k}="{v}"' for k, v in labels.items())
        value = self._value(line, labels)
        return f"{line.name}{{{text}}} {value!r}" if labels else f"{line.name} {value!r}"

    def _value(self, line: Line, labels: dict[str, str]) -> float:
        name = line.name
        if name.endswith("_created") or name == "process_start_time_seconds":
            return self.created
        if name.startswith("http_"):
            requests = sum(self.http.values())
            return {"http_requests_total": self.http.get(("/v1/completions", "POST", labels.get("status", "")), 0)}.get(
                name, requests if name.endswith(("_count", "_bucket")) else 0.0
            ) * 1.0
        if not name.startswith("vllm:"):
            return float(line.value)
        short = name.removeprefix("vllm:")
        gauges = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": self.kv_cache_usage,
            "num_requests_waiting_by_reason": self.waiting if labels.get("reason") == "capacity" else 0,
            "engine_sleep_state": labels.get("sleep_state") == "awake",
            "cache_config_info": 1,
            "request_success_total": self.finished.get(labels.get("finished_reason", ""), 0),
        }
        if short in gauges:
            return float(gauges[short])
        for ending in ("_bucket", "_count", "_sum"):
            histogram = self.histograms.get(short.removesuffix(ending))
            if short.endswith(ending) and histogram:
                if ending == "_sum":
                    return histogram.total
                return histogram.below(float(labels["le"].replace("+Inf", "inf")) if ending == "_bucket" else float("inf"))
        base = short.removesuffix("_total")
        if base == "prompt_tokens_by_source":
            return self.counters.get("prompt_tokens", 0.0) if labels.get("source") == "local_compute" else 0.0
        return float(self.counters.get(base, 0.0))
