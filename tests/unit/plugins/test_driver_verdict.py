# SPDX-License-Identifier: GPL-3.0-or-later
"""Image to CUDA, AMI to driver, and the verdict on both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _data, _drivers
from ansible_collections.llmops.eks.plugins.module_utils._drivers_verdict import image, judge

REPO = "docker.io/vllm/vllm-openai"


@pytest.mark.parametrize(
    ("reference", "cuda", "floor", "source"),
    [
        (f"{REPO}:v0.33.0", "13.0", "7.5", "table"),
        (f"{REPO}:v0.32.0-cu129", "12.9", "7.5", "tag"),
        (f"{REPO}:v0.32.0-cu129-ubuntu2404", "12.9", "7.5", "tag"),
        (f"{REPO}:v0.19.0", "12.9", "7.0", "table"),
        (f"{REPO}:v0.17.0-cu130", "13.0", "7.0", "tag"),
        (f"{REPO}:v0.9.2", "12.8", "7.0", "table"),
        (f"{REPO}:v0.33.0@sha256:{'a' * 64}", "13.0", "7.5", "table"),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com:443/vllm:0.33.0", "13.0", "7.5", "table"),
        (f"{REPO}:v0.6.0", None, None, "unknown"),  # older than the table
        (f"{REPO}:latest", None, None, "unknown"),
        ("registry.example.com/acme/llm-server:2.1.0", None, None, "unknown"),  # its own numbers
        ("registry.example.com/vllm/server:2.1.0", None, None, "unknown"),
        ("acme/my-vllm:v0.33.0-build7", "13.0", "7.5", "table"),
        (f"{REPO}:nightly-cu134", "13.4", None, "tag"),
        (f"{REPO}@sha256:{'a' * 64}", None, None, "unknown"),
    ],
)
def test_image(reference, cuda, floor, source):
    found = image(reference)
    assert (found.cuda, found.min_compute_capability, found.source) == (cuda, floor, source)


def test_image_cuda_wins_over_the_tag():
    assert image(f"{REPO}:v0.32.0-cu129", "13.0").cuda == "13.0"


@pytest.mark.parametrize(
    ("cuda", "version", "gpu", "level", "check"),
    [
        ("13.0", "580.159.03", "a10g", "ok", "driver"),
        ("13.0", "595.91.07", "a10g", "ok", "driver"),
        ("13.0", "620.10", "a10g", "ok", "driver"),
        ("13.0", "580", "a10g", "ok", "driver"),
        ("13.0", "570.195.03", "a10g", "fail", "driver_cuda_major"),
        ("13.0", "575.57.08", "h100", "fail", "driver_cuda_major"),
        ("13.0", "580.30", "a10g", "warn", "driver_cuda_minor"),  # of the branch, older than the toolkit's own driver
        ("13.2", "580.159.03", "a10g", "warn", "driver_cuda_minor"),
        ("13.4", "595.91.07", "a10g", "ok", "driver"),  # the toolkit driver of 13.4 was not read: only the major rule
        ("12.9", "550.90.07", "a10g", "warn", "driver_cuda_minor"),
        ("12.8", "570.195.03", "a10g", "warn", "driver_end_of_life"),
        ("12.9", "580.159.03", "a10g", "ok", "driver"),
        ("12.9", "520.61.05", "t4", "fail", "driver_cuda_major"),
        ("14.0", "620.10", "a10g", "unknown", "image_cuda"),
        ("13.0", "580.159.03", "rtx-pro-4500", "fail", "driver_branch"),
        ("13.0", "595.91.07", "rtx-pro-4500", "ok", "driver"),
        ("12.9", "595.91.07", "v100", "fail", "compute_capability"),
        ("13.0", "580.159.03", "v100", "fail", "compute_capability"),
        ("13.0", None, "a10g", "unknown", "driver_unknown"),
    ],
)
def test_judge(cuda, version, gpu, level, check):
    capability = _drivers.gpu_facts(gpu)["compute_capability"]
    verdict = judge(image(f"{REPO}:v0.33.0", cuda), gpu, capability, version and _drivers.driver(version), {}, "2026-11")
    assert (verdict.level, verdict.check) == (level, check)


def test_old_images_run_on_volta_up_to_branch_580():
    old = image(f"{REPO}:v0.19.0")
    assert judge(old, "v100", "7.0", _drivers.driver("580.159.03"), {}, "2026-11").level == "ok"
    assert judge(old, "v100", "7.0", _drivers.driver("595.91.07"), {}, "2026-11").check == "driver_branch"


def test_compute_capability_is_compared_as_numbers():
    assert judge(image(f"{REPO}:v0.33.0"), "b200", "10.0", _drivers.driver("580.159.03"), {}, "2026-11").level == "ok"


@pytest.mark.parametrize(
    ("branch", "gpu", "env", "level", "hint"),
    [
        ("570.172.08", "a10g", {}, "fail", True),
        ("570.172.08", "a10g", {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}, "warn", False),
        ("535.230.02", "l4", {"VLLM_ENABLE_CUDA_COMPATIBILITY": 1}, "warn", False),
        ("550.90.07", "a10g", {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}, "fail", False),  # R550 is not named by the documentation
    ],
)
def test_forward_compatibility(branch, gpu, env, level, hint):
    verdict = judge(image(f"{REPO}:v0.33.0"), gpu, "8.6", _drivers.driver(branch), env, "2026-11")
    assert verdict.level == level
    assert ("VLLM_ENABLE_CUDA_COMPATIBILITY=1" in verdict.fix) == hint


@pytest.mark.parametrize(
    ("branch", "month", "text"), [(595, "2027-03", None), (595, "2027-04", "ended 2027-03"), (590, "2026-11", "ended"), (999, "2026-11", None)]
)
def test_end_of_life(branch, month, text):
    assert _drivers.ended(branch, month) == text


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA-A10G", "a10g"), ("NVIDIA-A10G-SHARED", "a10g"), ("Tesla-T4", "t4"), ("NVIDIA-L4", "l4"), ("NVIDIA-L40S", "l40s"),
        ("NVIDIA-H100-80GB-HBM3", "h100"), ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "a100"), ("Tesla-V100-SXM2-32GB", "v100"),
        ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition", "rtx-pro-server-6000"), ("NVIDIA-A10", None), ("NVIDIA-GeForce-RTX-4090", None),
    ],
)  # fmt: skip
def test_gpu_name(product, name):
    assert _drivers.gpu_name(product) == name


def test_every_gpu_of_the_instance_table_is_known():
    names = {row["karpenter_gpu_name_label"] for row in _data.load("instances")["instances"] if row["gpu_count"]}
    assert names == set(_data.load("cuda_driver")["gpus"])


@pytest.mark.parametrize(
    ("release", "expected"),
    [("1.36.2-20260714", "v20260714"), ("v20260714", "v20260714"), ("al2023@v20260714", "v20260714"), ("1.61.0-2d5a5f2", None), (None, None)],
)
def test_release_date(release, expected):
    assert _drivers.release_date(release) == expected


def test_known_bad_releases_by_date_or_by_kernel():
    def sources(*args):
        return [row["source"] for row in _drivers.known_bad(*args)]

    assert sources("al2023", "v20261003", "1.35", None) == ["#2845"]
    assert sources("al2023", "v20261003", "1.36", None) == []
    assert sources("al2023", None, "1.35", "6.12.110-120.190.amzn2023.x86_64") == ["#2845"]
    assert sources("al2023", "v20260714", "1.36", None) == []
    assert sources("bottlerocket", None, "1.35", "6.12.110") == []


FACTS = Path(__file__).resolve().parents[4] / "shared" / "facts" / "data"


@pytest.mark.skipif(not FACTS.exists(), reason="the collected facts are not beside the clone")
def test_tables_hold_all_that_was_collected():
    collected, ours = json.loads((FACTS / "cuda_driver.json").read_text()), _data.load("cuda_driver")
    first = {row["cuda"]: row["toolkit_driver_linux"] for row in collected["toolkit_drivers_linux"] if row["release"].startswith("GA")}
    assert ours["toolkit_drivers"] == {cuda: driver for cuda, driver in first.items() if driver}
    assert ours["max_cuda"] == collected["driver_max_cuda"]["branches"]
    assert ours["cuda_majors"] == {str(row["cuda_major"]): int(row["min_driver_linux"]) for row in collected["minor_version_compatibility"]["majors"]}
    branches = {row["branch"]: (row["designation"].split()[0], row.get("eol"), row.get("ended", False)) for row in collected["driver_branches"]["branches"]}
    assert {name: (row["designation"], row["eol"], row["ended"]) for name, row in ours["branches"].items()} == branches
    amis = json.loads((FACTS / "eks_ami_driver.json").read_text())["drivers"]
    assert {kind: {minor: [(row["first"], row["driver"]) for row in rows] for minor, rows in minors.items()} for kind, minors in amis.items()} == {
        kind: {minor: [(row["first"], row["driver"]) for row in rows] for minor, rows in minors.items()}
        for kind, minors in _data.load("eks_ami_driver")["drivers"].items()
    }


@pytest.mark.parametrize("name", ["cuda_driver", "eks_ami_driver", "vllm_images", "aws_quotas"])
def test_data_says_when_and_from_where(name):
    data = _data.load(name)
    assert data["as_of"] == "2026-11-23"
    # One for the file, or one for each of its tables; a word alone could not be looked up.
    sources = data["source"] if isinstance(data["source"], dict) else {"as_of": data["source"]}
    assert {table for tables in sources for table in tables.split(", ")} <= data.keys()
    assert [text for text in sources.values() if len(text.split()) < 4] == []
