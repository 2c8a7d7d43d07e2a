#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the real vLLM engine for its KV cache, and compare its words with the fit arithmetic.

    tests/oracle/run.py [--case NAME ...] [--record]

The engine (vLLM built for CPUs, see install.py) is started with random weights on tiny models, a fixed KV cache of 1 GiB and vLLM's own block size for
CPUs. It logs "KV cache size: N tokens" and "Maximum concurrency for L tokens per request: C x". Both must equal ours to the last digit.
--record writes the engine's figures into recorded.json, which the unit tests hold ours against wherever the engine is not.
Exit codes: 0 all equal, 1 a difference, 2 the engine did not start on a case, 3 the engine cannot be had here: then nothing was compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import install
from cases import CASES, Case

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.llmops.eks.plugins.module_utils import _fit  # noqa: E402
from ansible_collections.llmops.eks.plugins.module_utils._fit_engine import resolve, version  # noqa: E402

KV_GIB = 1
BLOCK = 128  # vLLM's own on CPUs, but for latent attention
SHARED = {"max_model_len": 4096, "max_num_batched_tokens": 1024, "max_num_seqs": 8}
RECORDED = Path(__file__).with_name("recorded.json")
SECONDS = 600  # for one case
LINES = {"tokens": r"KV cache size: ([\d,]+) tokens", "concurrency": r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x"}
# No network, no statistics to vLLM's makers, one thread, one process.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "VLLM_CPU_KVCACHE_SPACE": str(KV_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


class Failed(Exception):
    """The engine did not say what was asked."""


def asked(cases: list[Case], interpreter: Path, folder: Path) -> Iterator[tuple[Case, dict[str, str] | Failed]]:
    """The engine's own figures of each case, as it writes them, one after another."""
    jobs = []
    for case in cases:
        place = folder / case.name
        place.mkdir()
        (place / "config.json").write_text(json.dumps(case.config), encoding="utf-8")
        jobs.append({"model": str(place), "load_format": "dummy", "enforce_eager": True, "skip_tokenizer_init": True, **SHARED, **case.settings})
    environment = {**os.environ, **ENVIRONMENT, "HOME": str(folder), "VLLM_CACHE_ROOT": str(folder / "cache")}
    command = [str(interpreter), str(Path(__file__).with_name("probe.py")), str(SECONDS)]
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    with (folder / "jobs.json").open() as stdin, (folder / "log").open("w") as stderr:
        probe = subprocess.Popen(command, env=environment, cwd=folder, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, process_group=0)
        try:
            told = iter(probe.stdout)
            for case in cases:
                line = next((line for line in told if line.strip() == str(folder / case.name)), "")
                log = folder / case.name / "log" if line else folder / "log"
                yield case, _figures(log.read_text(encoding="utf-8", errors="replace"))
            probe.wait()
        finally:
            # The engine of a case is a child of the probe: where we are left early, both must go before their folder does.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(probe.pid, signal.SIGKILL)
            probe.wait()


def _figures(log: str) -> dict[str, str] | Failed:
    found = {name: match[1].replace(",", "") for name, pattern in LINES.items() if (match := re.search(pattern, log))}
    if set(found) == set(LINES):
        return found
    errors = [line for line in log.splitlines() if re.search(r"\w(Error|Exception)\b", line)] or log.splitlines() or ["no output"]
    return Failed(errors[-1][-300:])


def ours(case: Case) -> dict[str, str]:
    """The same figures by the fit arithmetic."""
    settings = {**SHARED, **case.settings}
    model = _fit.ModelDescription.from_config(case.config, name=case.name)
    engine = _fit.Engine(
        vllm_version=install.VLLM,
        max_model_len=settings["max_model_len"],
        max_num_seqs=settings["max_num_seqs"],
        max_num_batched_tokens=settings["max_num_batched_tokens"],
        block_size=16 if "mla" in {kind.kind for kind in model.attention} else BLOCK,
        async_scheduling=False,  # platforms/cpu.py
        prefix_caching=settings.get("enable_prefix_caching"),
    )
    engine = resolve(engine, model, _fit.Gpu("CPU", 16.0))
    pool = _fit.kv_layout(model, engine)
    memory, length = KV_GIB * 2**30, engine.max_model_len
    by_concurrency = version(engine.vllm_version).constants["tokens_by_concurrency"]
    return {"tokens": str(pool.tokens(memory, length, by_concurrency)), "concurrency": f"{pool.concurrency(memory, length):.2f}"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="only this one (may be repeated)")
    parser.add_argument("--record", action="store_true", help=f"write the engine's figures into {RECORDED.name}")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of `finally`
    try:
        interpreter = install.python()
    except install.NotAvailable as error:
        print(f"oracle: not available here, nothing was compared: {error}", file=sys.stderr)
        return 3
    wanted = [case for case in CASES if not options.case or case.name in options.case]
    print(f"vLLM {install.VLLM} (third-party CPU build), {KV_GIB} GiB of KV cache, block size {BLOCK}, {SHARED}", flush=True)
    different, failed, logged = 0, 0, {}
    with tempfile.TemporaryDirectory(prefix="oracle-") as folder:
        for case, engine in asked(wanted, interpreter, Path(folder)):
            if isinstance(engine, Failed):
                failed += 1
                print(f"{case.name:24s} the engine did not start: {engine}", flush=True)
                continue
            own, logged[case.name] = ours(case), engine
            same = engine == own
            different += not same
            verdict = "equal" if same else f"DIFFERENT: ours {own['tokens']} tokens, {own['concurrency']}x"
            print(f"{case.name:24s} {engine['tokens']:>9s} tokens  {engine['concurrency']:>8s}x  {verdict}", flush=True)
    if options.record:
        record = {"engine": f"vllm-cpu {install.VLLM}", "as_of": time.strftime("%Y-%m-%d", time.gmtime()), "cases": logged}
        earlier = json.loads(RECORDED.read_text(encoding="utf-8")) if options.case and RECORDED.exists() else {}
        if earlier.get("engine") == record["engine"]:
            record["cases"] = earlier["cases"] | logged
        RECORDED.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{len(wanted)} cases: {len(wanted) - different - failed} equal, {different} different, {failed} where the engine did not start")
    return 1 if different else 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
