# SPDX-License-Identifier: GPL-3.0-or-later
"""Render a role's templates as Ansible does, without a play and without a cluster."""

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.eks.plugins.module_utils._plan import plan

ROLES = Path(__file__).resolve().parents[3] / "roles"


def load(path: Path, loader: DataLoader) -> dict:
    """Variables of a YAML file, trusted as templates like Ansible trusts a role's own files."""
    return (loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.exists() else {}


@pytest.fixture
def value():
    """value(role, expression, **variables) -> what the expression is in the role. Its defaults and vars apply, `variables` win."""

    def call(role: str, expression: str, **variables):
        loader = DataLoader()
        folder = ROLES / role
        loader.set_basedir(str(folder))
        known = {**load(folder / "defaults" / "main.yml", loader), **load(folder / "vars" / "main.yml", loader), **variables}
        known |= {"ansible_search_path": [str(folder)], "role_path": str(folder)}
        return Templar(loader=loader, variables=known).template(trust_as_template(f"{{{{ {expression} }}}}"))

    return call


@pytest.fixture
def render(value):
    """render(role, template, **variables) -> list of objects."""

    def call(role: str, template: str, **variables) -> list[dict]:
        text = value(role, f"lookup('ansible.builtin.template', '{template}')", **variables)
        return [document for document in yaml.safe_load_all(text or "") if document]

    return call


@pytest.fixture
def planned():
    """planned(*models) -> planned models; fails on any error."""

    def call(*models: dict) -> list[dict]:
        result, rows = plan(list(models), {}, "llm-serving")
        assert [row for row in rows if row["severity"] == "error"] == []
        return result

    return call
