# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that the eks_* actions document are those they take: names, types, choices, defaults, nested ones too."""

import importlib

import pytest
import yaml
from ansible_collections.amazon.aws.plugins.doc_fragments.common import ModuleDocFragment as Login
from ansible_collections.amazon.aws.plugins.doc_fragments.region import ModuleDocFragment as Region
from ansible_collections.amazon.aws.plugins.doc_fragments.tags import ModuleDocFragment as Tags
from ansible_collections.llmops.eks.plugins.doc_fragments.eks import ModuleDocFragment as Eks

KEYS = ("type", "required", "default", "choices", "elements", "aliases")
PACKAGE = "ansible_collections.llmops.eks.plugins"
NAMES = pytest.mark.parametrize("name", ["eks_nodegroup", "eks_access_entry", "eks_pod_identity_association"])


def facts(options, nested):
    """The comparable part of an argument spec or of documented options. `nested` is the key of suboptions."""
    told = {}
    for name, option in options.items():
        told[name] = {key: option[key] for key in KEYS if option.get(key) not in (None, False, "str")}
        if nested in option:
            told[name]["options"] = facts(option[nested], nested)
    return told


def documented(*texts):
    return {name: option for text in texts for name, option in yaml.safe_load(text)["options"].items()}


@NAMES
def test_options_are_documented_as_they_are(name):
    arguments = importlib.import_module(f"{PACKAGE}.action.{name}").ARGUMENTS
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    login = documented(Login.MODULES, Region.MODULES)
    own = documented(Eks.DOCUMENTATION, Tags().MODULES, module.DOCUMENTATION)
    assert set(arguments) == set(login) | set(own)
    assert facts({key: value for key, value in arguments.items() if key in own}, "options") == facts(own, "suboptions")
    assert facts({"validate_certs": arguments["validate_certs"]}, "options") == facts({"validate_certs": login["validate_certs"]}, "suboptions")


@NAMES
def test_examples_and_return_values_are_yaml(name):
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    assert all(f"llmops.eks.{name}" in task for task in yaml.safe_load(module.EXAMPLES))
    assert {"actions", "problems"} < set(yaml.safe_load(module.RETURN))
