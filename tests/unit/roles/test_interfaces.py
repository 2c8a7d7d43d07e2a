# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's variables are documented as they are, and the parts of the tree agree."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(p.name for p in (ROOT / "roles").iterdir() if p.is_dir())


def read(path: Path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options(role: str) -> dict:
    return read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]


def shared_input(default, option: dict) -> str | None:
    """The variable in "{{ llm_models | default([]) }}" when that is the default of a list or dict."""
    match = re.fullmatch(r"\{\{ (llm_\w+) \| default\((?:\[\]|\{\})\) \}\}", str(default))
    return match[1] if match and option["type"] in ("list", "dict") else None


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_argument_specs(role):
    defaults = read(ROOT / "roles" / role / "defaults" / "main.yml")
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    # ansible-doc's schema takes no expression as the default of a list or dict: there the text names the shared input.
    told = {
        name: defaults[name]
        for name, option in options(role).items()
        if (shared := shared_input(defaults.get(name), option)) and f"C({shared})" in str(option["description"])
    }
    assert documented | told == defaults
    assert all(option.get("required") for name, option in options(role).items() if name not in defaults), "an option without a default must be required"


@pytest.mark.parametrize("role", ROLES)
def test_the_checks_take_the_same_variables(role):
    """The playbooks include tasks/check.yml of every role first, and Ansible validates variables by the entry point of that name only."""
    specs = read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    assert specs["check"]["options"] == specs["main"]["options"]


@pytest.mark.parametrize("role", ROLES)
def test_public_variables_carry_the_roles_name(role):
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []
    assert all(option.get("description") for option in options(role).values())


@pytest.mark.parametrize("role", ROLES)
def test_tasks_use_no_shortcut(role):
    for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"ansible\.builtin\.(shell|raw|pause):|ignore_errors: *true|failed_when: *false", text), path.name


def every_task(tasks: list):
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from every_task(task.get(part, []))


def test_check_mode_makes_no_change_set():
    """amazon.aws.cloudformation makes and deletes a real one to tell what would change."""
    tasks = [task for path in (ROOT / "roles").glob("*/tasks/*.yml") for task in every_task(read(path))]
    stacks = [task for task in tasks if task.get("amazon.aws.cloudformation", {}).get("state") == "present"]
    assert [task["when"] for task in stacks] == ["not ansible_check_mode"] * 2


@pytest.mark.parametrize(("playbook", "roles"), [("site", ROLES), ("teardown", ["karpenter_gpu", "keda_scaler", "vllm"])])
def test_what_may_refuse_is_asked_before_the_first_change(playbook, roles):
    (play,) = [play for play in read(ROOT / "playbooks" / f"{playbook}.yml") if "tasks" in play]
    steps = [task["ansible.builtin.include_role"] for task in play["tasks"] if "ansible.builtin.include_role" in task]
    first = next(n for n, step in enumerate(steps) if step["tasks_from"] != "check")
    assert sorted(step["name"].removeprefix("llmops.eks.") for step in steps[:first]) == sorted(roles)


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_reads_is_there(role):
    files = [p for folder in ("tasks", "templates", "defaults", "vars") for p in (ROOT / "roles" / role / folder).glob("*")]
    text = "".join(p.read_text(encoding="utf-8") for p in files)
    told = set(re.findall(rf"^ +({role}_\w+):", text, re.M))  # facts for others
    tags = {f"{role}_{step}" for step in ("check", "apply", "wait")}
    assert set(re.findall(rf"(?<![\w.])({role}_\w+)", text)) - set(options(role)) - told - tags == set()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_no_other_roles_variables(role):
    shared = {
        "llm_models",
        "llm_model_defaults",
        "llm_plan",
        "llm_namespace",
        "llm_cluster_name",
        "llm_region",
        "llm_ami_alias",
        "llm_prometheus_url",
        "llm_monitoring_release",
    }
    others = [r for r in ROLES if r != role]
    for path in (ROOT / "roles" / role).rglob("*"):
        if path.is_file() and path.parent.name in ("tasks", "templates", "defaults", "vars"):
            text = path.read_text(encoding="utf-8")
            for other in others:
                assert not re.search(rf"(?<![\w./:-])(?:__)?{other}_[a-z]\w*(?=[ \]}})|.])", text), f"{path} reads a variable of {other}"
            assert set(re.findall(r"\bllm_[a-z_]+\b", re.sub(r"#.*|llmops\.eks\.\w+", "", text))) <= shared, path


def test_every_plugin_that_logs_in_is_in_an_action_group():
    groups = read(ROOT / "meta" / "runtime.yml")["action_groups"]
    listed = {name for members in groups.values() for name in members if isinstance(name, str)}
    modules = {p.stem for p in (ROOT / "plugins" / "modules").glob("*.py")}
    assert listed == modules
