# SPDX-License-Identifier: GPL-3.0-or-later
from ansible_collections.llmops.eks.plugins.filter.differences import differences


def test_equal_or_wider_objects_have_no_difference():
    assert differences({"a": {"b": 1, "c": 2}, "d": []}, {"a": {"b": 1}}) == []
    assert differences({}, {"a": {}, "b": [], "c": None}) == []


def test_each_leaf_that_differs_is_named():
    found = {"driver": {"enabled": True}, "toolkit": None}
    assert differences(found, {"driver": {"enabled": False}, "toolkit": {"enabled": False}, "cdi": {"enabled": True}}) == [
        "driver.enabled is True instead of False",
        "toolkit.enabled is missing instead of False",
        "cdi is missing instead of {'enabled': True}",
    ]
