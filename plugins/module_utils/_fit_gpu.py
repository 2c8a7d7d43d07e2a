# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU as the fit arithmetic sees it: the memory CUDA reports, and what moves data in and out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import _data

GIB = 2**30


class UnknownGpu(ValueError):
    """The name is none of the table's and no visible memory was given."""


@dataclass(frozen=True)
class Gpu:
    """`visible_gib` is torch.cuda.mem_get_info's total (GiB), bandwidth in GB/s, TFLOPS dense, `link` nvlink or pcie.

    The zeros and None of a GPU that is not in the table mean "not known": the roofline then refuses, the memory arithmetic does not need them.
    """

    name: str
    visible_gib: float
    capability: float = 0.0
    multiprocessors: int = 0
    bandwidth: float = 0.0
    bf16_tflops: float = 0.0
    fp8_tflops: float | None = None
    link: str = "pcie"
    link_bandwidth: float = 0.0
    source: str = ""

    @property
    def nvlink(self) -> bool:
        return self.link == "nvlink"


def find_gpu(name: str, visible_gib: float | None = None, memory_mib: float | None = None) -> Gpu:
    """Return the GPU of that name.

    `name` is free text: "A10G", "NVIDIA H100 80GB HBM3", Karpenter's label "rtx-pro-server-6000". `memory_mib` is EC2's or nvidia-smi's figure; it tells
    the two A100 apart and is turned into visible memory by the factor measured for that GPU. `visible_gib` wins over both (a MIG slice, a running node).
    Raises UnknownGpu when the name is not in the table and no memory is given.
    """
    key, row = _row(name, memory_mib)
    if row is None:
        if visible_gib is None:
            raise UnknownGpu(f"GPU {name!r} is not in the table ({', '.join(_table())}); give its visible memory in GiB")
        return Gpu(name=name, visible_gib=visible_gib, source="visible memory as given; the GPU is not in the table")
    if visible_gib is not None:
        source = "as given"
    elif memory_mib and "factor" in row:
        visible_gib, source = memory_mib / 1024 * row["factor"], f"{memory_mib:g} MiB x {row['factor']}"
    else:
        visible_gib, source = row["visible_gib"], f"table of {_data.load('fit_constants')['as_of']}"
    return Gpu(
        name=key,
        visible_gib=visible_gib,
        capability=row["capability"],
        multiprocessors=row["multiprocessors"],
        bandwidth=row["bandwidth"],
        bf16_tflops=row["bf16"],
        fp8_tflops=row["fp8"],
        link="pcie" if "pcie" in name.lower() else row["link"],
        link_bandwidth=row["link_bandwidth"],
        source=source,
    )


def _table() -> dict[str, dict]:
    return _data.load("fit_constants")["gpus"]


def _row(name: str, memory_mib: float | None) -> tuple[str, dict | None]:
    """The table's entry all of whose words are in `name`, the one with most words; (name, None) when there is none."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    if "a100" in words:
        large = memory_mib > 50_000 if memory_mib else not words & {"40", "40gb"}
        key = "A100-80" if large else "A100-40"
        return key, _table()[key]
    found = [
        (len(wanted), key, row)
        for key, row in _table().items()
        for alias in [key, *row.get("also", [])]
        if (wanted := set(re.findall(r"[a-z0-9]+", alias.lower()))) <= words
    ]
    if not found:
        return name, None
    _, key, row = max(found, key=lambda item: item[0])
    return key, row
