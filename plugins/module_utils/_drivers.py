# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA drivers: which one an AMI carries, what it can run, how long it is maintained. Pure; the facts are in _data/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _data

AMI_KINDS = {"AL2_x86_64_GPU": "al2", "AL2023_x86_64_NVIDIA": "al2023", "AL2023_ARM_64_NVIDIA": "al2023"}


@dataclass(frozen=True)
class Driver:
    """`version` "580.159.03", or None when only the branch is known; `branch` 580; `max_cuda` "13.0" or None when not known."""

    version: str | None
    branch: int
    max_cuda: str | None

    def __str__(self) -> str:
        return self.version or f"R{self.branch}"


def numbers(version: str) -> tuple[int, ...]:
    """ "580.65.06" -> (580, 65, 6). Raises ValueError for text that is no version."""
    return tuple(int(part) for part in version.split("."))


def driver(version: str, max_cuda: str | None = None) -> Driver:
    """From "580.159.03", or from a bare branch "580"."""
    branch, _dot, rest = version.partition(".")
    return Driver(version if rest else None, int(branch), max_cuda or _data.load("cuda_driver")["max_cuda"].get(branch))


def release_date(release: str | None) -> str | None:
    """The date part "v20260714" of an AMI release ("1.36.2-20260714", "v20260714"), else None."""
    match = re.search(r"(?:^|[-@])v?(\d{8})$", release or "")
    return f"v{match[1]}" if match else None


def of_al2023(ami_type: str, kubernetes: str | None, release: str | None, gpu_name: str | None) -> Driver | None:
    """The driver of an Amazon Linux AMI by its release date. None when the table does not say."""
    table, date = _data.load("eks_ami_driver"), release_date(release)
    if date is None:
        return None
    dual = table["dual"]
    if date >= dual["from"]:
        return driver(dual["new"] if gpu_name in dual["new_gpus"] else dual["lts"])
    found = None
    for row in table["drivers"].get(ami_type, {}).get(kubernetes or "", []):
        if row["first"] <= date:
            found = row["driver"]
    if found and date > table["last_read"]:
        found = found.partition(".")[0]  # the branch has not changed until the two-tree AMIs, the exact number was not read
    return driver(found) if found else None


def of_al2(kubernetes: str | None, release: str | None) -> Driver:
    """AL2 GPU AMIs have ended: without a release it is at best the newest driver they ever had."""
    return of_al2023("AL2_x86_64_GPU", kubernetes, release, None) or driver(_data.load("eks_ami_driver")["kind_newest"]["al2"]["driver"])


def of_bottlerocket(version: str, kubernetes: str | None, gpu_name: str | None) -> Driver | None:
    """By the operating system's version, e.g. "1.66.0"."""
    table, found = _data.load("cuda_driver"), None
    for row in table["bottlerocket"]:
        if numbers(row["from"]) <= numbers(version):
            found = row
    if found is None:
        return None
    if gpu_name in _data.load("eks_ami_driver")["dual"]["new_gpus"] and kubernetes in found.get("new_driver_kubernetes", ()):
        return driver(found["new_driver"])
    return driver(found.get("by_kubernetes", {}).get(kubernetes, found["driver"]))


def known_bad(ami_kind: str | None, release: str | None, kubernetes: str | None, kernel: str | None) -> list[Mapping[str, Any]]:
    """Rows of the table of faulty AMI releases that apply: by release date, or, where none is known, by the faulty kernel."""
    date, found = release_date(release), []
    for row in _data.load("eks_ami_driver")["known_bad"]:
        if row["ami_kind"] != ami_kind or (row["kubernetes"] and kubernetes not in row["kubernetes"]):
            continue
        if row["from"] <= date <= row["to"] if date else row["kernel"] and (kernel or "").startswith(f"{row['kernel']}-"):
            found.append(row)
    return found


def gpu_facts(gpu_name: str | None) -> Mapping[str, str]:
    """{compute_capability, family, product} of Karpenter's GPU name ("a10g"); empty for one that is not in the table."""
    return _data.load("cuda_driver")["gpus"].get(gpu_name or "", {})


def gpu_name(product: str) -> str | None:
    """Karpenter's name ("a10g") of GFD's product label ("NVIDIA-A10G", "Tesla-T4", "NVIDIA-H100-80GB-HBM3-SHARED"), else None."""
    text = f"-{product.upper().replace(' ', '-')}-"
    matches = [name for name, facts in _data.load("cuda_driver")["gpus"].items() if f"-{facts['product']}-" in text]
    # An A100 says "A100-SXM4-40GB", a V100 "V100-SXM2-16GB": the name is always a word of its own.
    return matches[0] if len(matches) == 1 else None


def ended(branch: int, month: str) -> str | None:
    """Why a branch gets no more fixes in `month` ("2026-11"): text with the end, or None while it is maintained or not known."""
    row = _data.load("cuda_driver")["branches"].get(str(branch))
    if row is None or not (row["ended"] or (row["eol"] and row["eol"] < month)):
        return None
    return f"ended {row['eol']}" if row["eol"] else "ended"
