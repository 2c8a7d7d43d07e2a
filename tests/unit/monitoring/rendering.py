# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's objects as the role renders them, and what can be read from PromQL without a parser."""

import json
import re
from pathlib import Path

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

REPO = Path(__file__).resolve().parents[3]
ROLE = REPO / "roles" / "gpu_monitoring"
DATA = Path(__file__).parent / "data"


def template(expression: str, **variables):
    """Value of a Jinja expression with the role's defaults and vars; `variables` win, as extra vars do."""
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    known = {}
    for name in ("defaults", "vars"):
        known |= loader.load_from_file(str(ROLE / name / "main.yml"), trusted_as_template=True)
    known |= {"ansible_search_path": [str(ROLE)], "role_path": str(ROLE), "ansible_check_mode": False, **variables}
    value = Templar(loader=loader, variables=known).template(trust_as_template("{{ " + expression + " }}"))
    return json.loads(json.dumps(value))  # Ansible's tagged containers become plain ones


def write_rules(path: Path, groups: list) -> Path:
    path.write_text(yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000))
    return path


def metric_names(promql: str) -> set[str]:
    """Names of the series in an expression: identifiers that are neither functions, label lists, matchers nor durations."""
    rest = re.sub(r'"(\\.|[^"\\])*"', "", promql)
    rest = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", " ", rest)
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", " ", rest)
    rest = re.sub(r"\boffset\s+\w+", " ", rest)
    names = set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])", rest))
    return names - {"and", "or", "unless", "bool", "offset"}
