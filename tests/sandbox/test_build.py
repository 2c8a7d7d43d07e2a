# SPDX-License-Identifier: GPL-3.0-or-later
"""The first build, with a Go of the test's own instead of the toolchain."""

import fcntl
import json
import re
import shutil
import threading
from pathlib import Path

import pytest

from sandbox import build

GO = """#!/bin/sh
case "$1" in
  build|install)
    echo k8s.io/some/package >&2
    sleep {seconds}
    {then}
    while [ $# -gt 0 ]; do case "$1" in -o) out="$2";; esac; last="$1"; shift; done
    name=$(basename "${{last%@*}}")
    : ${{out:=$GOBIN/$name}}
    mkdir -p "$(dirname "$out")"; echo built > "$out" ;;
  mod) printf '{{"Dir": "%s"}}' {module} ;;
esac
"""


@pytest.fixture
def builder(monkeypatch, tmp_path):
    """make(seconds, then): a Builder in an empty cache, whose compiler takes so long and then runs a line of shell; its lines are in `said`."""
    monkeypatch.setenv("LLMOPS_EKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PROGRESS_SECONDS", 0.1)
    module = tmp_path / "module"
    for folder in ("charts/karpenter", "charts/karpenter-crd", "pkg/apis/crds", "config/crd/bases", "kustomize/crd/bases"):
        (module / folder).mkdir(parents=True)

    def make(seconds=0.0, then=":"):
        said: list[str] = []
        made = build.Builder(said.append)
        go = Path(made.go)
        go.parent.mkdir(parents=True, exist_ok=True)
        go.write_text(GO.format(seconds=seconds, then=then, module=module))
        go.chmod(0o755)
        return made, said

    return make


def test_every_program_is_announced_and_a_long_one_says_what_it_is_at(builder):
    made, said = builder(seconds=0.3)
    assert made.build() == build.home()
    assert made.complete()
    for number, program in enumerate(build.programs(), 1):
        assert f"  [{number}/8] {program.name} ..." in said
        assert (made.home / "bin" / program.name).read_text() == "built\n"
    assert [line for line in said if re.fullmatch(r"        kubeall: \d+ s, k8s.io/some/package", line)]


def test_second_build_does_nothing(builder):
    made, said = builder()
    made.build()
    said.clear()
    assert made.build() == build.home()
    assert said == []


def test_failure_names_the_program_and_the_log(builder):
    made, _said = builder(then="echo undefined: frobnicate >&2; exit 2")
    with pytest.raises(build.BuildError, match=r"(?s)kubeall failed \(exit 2\)\. Last lines of .*build\.log:.*undefined: frobnicate"):
        made.build()
    assert not made.complete()


def test_build_that_was_broken_off_goes_on_where_it_was(builder):
    made, said = builder(then='case "$*" in *kwok*) exit 1;; esac')
    with pytest.raises(build.BuildError, match="kwok failed"):
        made.build()
    assert (made.home / "bin" / "kubeall").exists()
    go = Path(made.go)
    go.write_text(go.read_text().replace("exit 1", ":"))
    said.clear()
    made.build()
    assert "(12 to 25 minutes on 2 cores, 7 programs" in said[0]
    assert json.loads((made.home / "complete").read_text()) == build.VERSIONS


def test_second_build_at_a_time_waits_and_takes_what_the_first_made(builder):
    made, said = builder()
    build.cache_root().mkdir(exist_ok=True)
    with (build.cache_root() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits = threading.Event()
        made.say = lambda line: (said.append(line), waits.set())
        thread = threading.Thread(target=made.build)
        thread.start()
        assert waits.wait(20)
        made.home.mkdir()
        (made.home / "complete").touch()  # by the other build
    thread.join(20)
    assert not thread.is_alive()
    assert said == [f"Waiting for another build in {build.cache_root()}"]


def test_too_small_a_disk_is_refused_before_anything_is_done(builder, monkeypatch):
    made, said = builder()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(40 * 10**9, 35 * 10**9, 5 * 10**9))
    with pytest.raises(build.BuildError, match=r"found 5\.0 GB free; needed: 13\.0 GB while it builds.*make room, or set LLMOPS_EKS_CACHE"):
        made.build()
    assert said == []
    assert not made.home.exists()
