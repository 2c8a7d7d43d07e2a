# SPDX-License-Identifier: GPL-3.0-or-later
"""May this image run on this GPU with this driver? One verdict, with the reason. Pure; the facts are in _data/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _data
from ._drivers import Driver, ended, numbers
from ._vllm_args import version_of


@dataclass(frozen=True)
class Image:
    """`cuda` "13.0" and `min_compute_capability` "7.5", or None when not known; `source` says from where: tag, table, option."""

    reference: str
    cuda: str | None
    min_compute_capability: str | None
    source: str


@dataclass(frozen=True)
class Verdict:
    """`level` ok, warn, fail or unknown; `check` names the rule that decided; the texts are those of a problem row."""

    level: str
    check: str
    found: str
    needed: str
    fix: str


def image(reference: str, image_cuda: str | None = None) -> Image:
    """What an image needs, from its release and its -cu129 like suffix; `image_cuda` wins. An unknown tag gives None, never a guess."""
    table, version = _data.load("vllm_images"), version_of(reference) if is_vllm(reference) else None
    row = None
    for candidate in table["releases"] if version else ():
        if numbers(candidate["from"]) <= version:
            row = candidate
    floor = row["min_compute_capability"] if row else None
    if image_cuda:
        return Image(reference, image_cuda, floor, "option")
    tagged = re.search(r"-cu(\d{2})(\d+)(?:-|$|@)", reference)
    if tagged:
        return Image(reference, f"{tagged[1]}.{tagged[2]}", floor, "tag")
    return Image(reference, row["cuda"], floor, "table") if row else Image(reference, None, None, "unknown")


def is_vllm(reference: str) -> bool:
    """Whether the number in an image's tag is a release of vLLM: not so for "acme/llm-server:2.1.0"."""
    return "vllm" in reference.partition("@")[0].rpartition("/")[2].partition(":")[0]


def judge(wanted: Image, gpu_name: str | None, capability: str | None, driver: Driver | None, env: Mapping[str, Any], month: str) -> Verdict:
    """The first rule that objects decides, hardest first: compute capability, driver branch of the board, CUDA major, minor, end of life."""
    facts = _data.load("cuda_driver")
    minimum = wanted.min_compute_capability
    if capability and minimum and numbers(capability) < numbers(minimum):
        return Verdict(
            "fail", "compute_capability", f"compute capability {capability} ({gpu_name or 'GPU'})", f">= {minimum} for {wanted.reference}",
            "use instance types with a newer GPU (g4dn or later); other releases of the image that still run there are below the security floor",
        )  # fmt: skip
    if driver is None:
        return Verdict(
            "unknown", "driver_unknown", "no driver version", f"a driver for {wanted.reference}",
            "install GPU Feature Discovery (its labels name the driver) or give node_groups[].release_version",
        )  # fmt: skip
    supported, limits = facts["supported_branch"], facts["branch_limits"].get(gpu_name or "", {})
    if driver.branch < limits.get("min", 0) or driver.branch > limits.get("max", driver.branch):
        bound = f">= {limits['min']}" if "min" in limits else f"<= {limits['max']}"
        return Verdict(
            "fail", "driver_branch", f"driver {driver}", f"{bound} on {gpu_name}: {limits['reason']}", _newer_ami(limits.get("min", supported["lts"]))
        )
    if wanted.cuda is None:
        return Verdict("unknown", "image_cuda", f"CUDA of {wanted.reference} not known", "a release tag such as v0.33.0", "pin a release tag or set image_cuda")
    return _cuda(wanted, gpu_name, driver, env) or _life(driver, month) or Verdict("ok", "driver", f"driver {driver}", f"CUDA {wanted.cuda}", "")


def _cuda(wanted: Image, gpu_name: str | None, driver: Driver, env: Mapping[str, Any]) -> Verdict | None:
    facts, major = _data.load("cuda_driver"), wanted.cuda.partition(".")[0]
    least = facts["cuda_majors"].get(major)
    if least is None:
        known = ", ".join(facts["cuda_majors"])
        return Verdict(
            "unknown", "image_cuda", f"CUDA {wanted.cuda}", f"a CUDA major of the driver table ({known})", "correct image_cuda or update the collection"
        )
    compat = facts["forward_compatibility"]
    if driver.branch < least:
        possible = driver.branch in compat["branches"] and gpu_name not in compat["excluded_gpus"]
        switch = compat["environment"]
        if possible and str(env.get(switch, "")) == "1":
            return Verdict(
                "warn", "forward_compatibility", f"driver {driver} with {switch}=1", f"driver >= {least} for CUDA {wanted.cuda}",
                f"replace the AMI: forward compatibility works on {compat['note']}. {_newer_ami(least)}",
            )  # fmt: skip
        escape = f"; until then {switch}=1 in the model's env ({compat['note']})" if possible else ""
        return Verdict(
            "fail", "driver_cuda_major", f"driver {driver} (CUDA <= {driver.max_cuda or '?'})",
            f">= {least} for CUDA {wanted.cuda} in {wanted.reference}", _newer_ami(least) + escape,
        )  # fmt: skip
    toolkit = facts["toolkit_drivers"].get(wanted.cuda)
    if toolkit and (numbers(driver.version) < numbers(toolkit) if driver.version else driver.branch < numbers(toolkit)[0]):
        return Verdict(
            "warn", "driver_cuda_minor", f"driver {driver}", f">= {toolkit}, the toolkit's own driver of CUDA {wanted.cuda}",
            f"update the AMI: kernels compiled at run time (PTX) may fail with 'unsupported toolchain'. {_newer_ami(numbers(toolkit)[0])}",
        )  # fmt: skip
    return None


def _life(driver: Driver, month: str) -> Verdict | None:
    end = ended(driver.branch, month)
    if end is None:
        return None
    supported = _data.load("cuda_driver")["supported_branch"]
    return Verdict("warn", "driver_end_of_life", f"driver {driver}, branch R{driver.branch} {end}", "a maintained branch", _newer_ami(supported["lts"]))


def _newer_ami(branch: object) -> str:
    return (
        f"update the node's AMI to one with driver >= {branch} "
        "(AL2023 NVIDIA from v20251120 has 580, from v20260917 580 and 595; Bottlerocket from 1.53.0 has 580)"
    )
