# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as `ansible-galaxy` installs it: what is in the artifact, and the same playbook and documentation by name, from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from site_runs import BIN, ROOT, Site

# Everything else is for those who develop the collection.
CONTENT = {
    "CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "changelogs", "docs", "inventories", "meta", "playbooks", "plugins",
    "requirements.txt", "requirements.yml", "roles", "site.yml",
}  # fmt: skip
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def galaxy(*arguments: str, cwd: Path, **env: str) -> str:
    argv = [str(BIN / "ansible-galaxy"), "collection", *arguments]
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    galaxy("build", "--output-path", str(folder), str(ROOT), cwd=ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collections path with nothing but ours; those it depends on lie in the Python environment, and no server is asked."""
    path = tmp_path_factory.mktemp("collections")
    galaxy("install", "--offline", "-p", str(path), str(artifact), cwd=path, ANSIBLE_COLLECTIONS_PATH=str(path))
    return path


def test_artifact_is_small_and_holds_the_collection_only(artifact):
    with tarfile.open(artifact) as archive:
        names = archive.getnames()
    assert {name.split("/")[0] for name in names} == CONTENT
    assert {name.split("/")[1] for name in names if name.startswith("inventories/")} == {"example"}
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".tar.gz"))] == []
    assert artifact.stat().st_size < 500_000
    assert {f"roles/{role}/meta/argument_specs.yml" for role in ROLES} <= set(names)


def test_every_module_and_role_has_documentation_by_its_name(installed, tmp_path):
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(installed)}
    for kind, names in (("module", MODULES), ("role", ROLES)):
        argv = [str(BIN / "ansible-doc"), "--json", "-t", kind, *(f"llmops.eks.{name}" for name in names)]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert set(told) == {f"llmops.eks.{name}" for name in names}
        if kind == "module":
            assert all(Path(entry["doc"]["filename"]).is_relative_to(installed) for entry in told.values())
        else:
            assert all(Path(entry["path"]).is_relative_to(installed) for entry in told.values())


def test_site_by_name_from_an_empty_folder_is_the_site_of_the_clone(site: Site, installed, tmp_path):
    """One phase of all roles is enough: it finds every role, template and filter under its full name."""
    variables = [f"-e@{path}" for path in sorted((ROOT / "inventories" / "sandbox" / "group_vars" / "all").glob("*.yml"))]
    with site.nothing_written():
        by_name = site.run("--tags", "check", *variables, playbook="llmops.eks.site", cwd=tmp_path, collections=installed)
        clone = site.run("--tags", "check")
    assert (clone.code, clone.failure) == (0, "")
    assert (by_name.code, by_name.failure) == (0, "")
    assert [(task, result.get("changed")) for task, result in by_name.results] == [(task, result.get("changed")) for task, result in clone.results]
    assert by_name.of("Plan the models")["models"] == clone.of("Plan the models")["models"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("playbook", ["site", "plan", "check", "teardown"])
def test_playbooks_are_found_by_name(installed, tmp_path, playbook):
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(installed)}
    argv = [str(BIN / "ansible-playbook"), f"llmops.eks.{playbook}", "--list-tasks"]
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert str(installed / "ansible_collections" / "llmops" / "eks" / "playbooks" / f"{playbook}.yml") in done.stdout
