# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that the eks_* modules document are those they take: names, types, choices, defaults, nested ones too."""

import importlib

import pytest
import yaml
from ansible_collections.amazon.aws.plugins.doc_fragments.tags import ModuleDocFragment as Tags
from ansible_collections.llmops.eks.plugins.doc_fragments.eks import ModuleDocFragment as Eks

KEYS = ("type", "required", "default", "choices", "elements", "aliases")


class Taken(Exception):
    """Carries what a module hands to AnsibleAWSModule."""


def argument_spec(module, monkeypatch):
    def take(**kwargs):
        raise Taken(kwargs)

    monkeypatch.setattr(module, "AnsibleAWSModule", take)
    with pytest.raises(Taken) as taken:
        module.main()
    settings = taken.value.args[0]
    assert settings["supports_check_mode"] is True
    return settings["argument_spec"]


def facts(options, nested):
    """The comparable part of an argument spec or of documented options. `nested` is the key of suboptions."""
    return {
        name: {**{k: o[k] for k in KEYS if o.get(k) not in (None, False)}, **({"options": facts(o[nested], nested)} if nested in o else {})}
        for name, o in options.items()
    }


@pytest.mark.parametrize("name", ["eks_nodegroup", "eks_access_entry", "eks_pod_identity_association"])
def test_options_are_documented_as_they_are(name, monkeypatch):
    module = importlib.import_module(f"ansible_collections.llmops.eks.plugins.modules.{name}")
    documented = {}
    for text in (Eks.DOCUMENTATION, Tags().MODULES, module.DOCUMENTATION):
        documented.update(yaml.safe_load(text)["options"])
    assert facts(argument_spec(module, monkeypatch), "options") == facts(documented, "suboptions")


@pytest.mark.parametrize("name", ["eks_nodegroup", "eks_access_entry", "eks_pod_identity_association"])
def test_examples_and_return_values_are_yaml(name):
    module = importlib.import_module(f"ansible_collections.llmops.eks.plugins.modules.{name}")
    assert all(f"llmops.eks.{name}" in task for task in yaml.safe_load(module.EXAMPLES))
    assert {"actions", "problems"} < set(yaml.safe_load(module.RETURN))
