# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the pod: what it must have, what page cache it may fill, and /dev/shm.

/dev/shm: vLLM's broadcast rings, 160 MiB and 240 MiB a worker (distributed/device_communicators/shm_broadcast.py), twice for NCCL's segments.
Page cache: reading weights from a network file system prefetches the checkpoint when it is at most 90 % of the memory the cgroup has
(model_executor/model_loader/weight_utils.py); cache is reclaimed, not killed for.
Streaming: every worker reads into a buffer whose size --model-loader-extra-config sets (runai_model_streamer_loader.py); it holds at least one tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import _data
from ._fit_engine import Engine, version
from ._fit_gpu import GIB
from ._fit_model import ModelDescription
from ._fit_weights import BYTES, checkpoint_formula_bytes


@dataclass(frozen=True)
class HostMemory:
    """GiB for requests.memory and limits.memory, MiB for the emptyDir at /dev/shm (counted in both), with the sums.

    stream_gib: the buffer of each worker that streams the weights; 0 when nothing is streamed.
    """

    request_gib: int
    limit_gib: int
    shm_mib: int
    stream_gib: int
    explain: tuple[str, ...]


def host_memory(model: ModelDescription, engine: Engine, weights: str = "disk") -> HostMemory:
    """Host memory of one replica. `weights`: "disk", "volume" (EFS, FSx or another network file system) or "stream" (Run:ai streamer)."""
    facts, workers = _data.load("fit_constants")["host"], engine.gpus
    shm_mib, rings = facts["shm_min_gib"] * 1024, 0
    if workers > 1:
        each = version(engine.vllm_version).constants["shm_worker_mib"]
        rings = facts["shm_ring_mib"] + each * workers
        shm_mib = max(shm_mib, math.ceil(facts["shm_factor"] * rings / 16) * 16)
    parts = {"API server and engine": facts["server_gib"], f"{workers} worker(s) x {facts['worker_gib']:g}": facts["worker_gib"] * workers}
    if model.vision and engine.multimodal:
        parts[f"multimodal cache of {engine.api_servers} API server(s)"] = facts["multimodal_cache_gib"] * engine.api_servers
    if engine.kv_offload_gib:
        parts["KV cache offloaded to the host"] = engine.kv_offload_gib
    stream = 0
    if weights == "stream":
        largest = model.vocabulary * model.hidden * BYTES.get(model.dtype, 2) / GIB  # the embedding
        stream = max(facts["stream_buffer_gib"], math.ceil(largest))
        parts[f"streaming buffers {workers} x {stream}"] = stream * workers
    if workers > 1:
        parts["/dev/shm"] = shm_mib / 1024
    anonymous = sum(parts.values())
    checkpoint = (model.checkpoint_bytes or checkpoint_formula_bytes(model)) / GIB
    cache = checkpoint / facts["prefetch_share"] if weights == "volume" else 0.0
    reason = f"{checkpoint:.1f} GiB checkpoint / {facts['prefetch_share']}" if cache else "weights not on a network volume"
    explain = (
        "request: " + " + ".join(f"{name} {size:g} GiB" for name, size in parts.items()),
        f"limit: request + page cache {cache:.1f} GiB ({reason})",
        f"shm: {facts['shm_factor']} x (ring {facts['shm_ring_mib']} + workers {rings - facts['shm_ring_mib']}) MiB" if rings else "shm: one GPU uses no ring",
    )
    return HostMemory(math.ceil(anonymous), math.ceil(anonymous + cache), shm_mib, stream, explain)
