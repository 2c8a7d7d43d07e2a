# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans to look at, and the page as the playbooks render it."""

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmops.eks.plugins.filter.plan_page import FilterModule
from planned_models import FOUR_GPUS, LEAVING, UNKNOWN
from planned_models import planned as plan_models

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"


@pytest.fixture(scope="session")
def planned():
    """(models, problems): one on one GPU and scaled, one on four GPUs, one that is not known, one that leaves."""
    return plan_models(
        {"name": "llama-3-1-8b", "source": "hf://meta-llama/Llama-3.1-8B-Instruct", "max_model_len": 16384, "replicas": {"max": 4}}, FOUR_GPUS, UNKNOWN, LEAVING
    )


@pytest.fixture(scope="session")
def render():
    """render(models, problems) -> the HTML page."""

    def call(models, problems=()) -> str:
        loader = DataLoader()
        loader.set_basedir(str(PLAYBOOKS))
        page = FilterModule().filters()["plan_page"](models, problems, "prod", "us-east-1")
        templar = Templar(loader=loader, variables={"ansible_search_path": [str(PLAYBOOKS)], "page": page})
        return str(templar.template(trust_as_template("{{ lookup('ansible.builtin.template', 'plan.html.j2') }}")))

    return call
