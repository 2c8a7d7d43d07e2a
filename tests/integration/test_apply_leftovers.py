# SPDX-License-Identifier: GPL-3.0-or-later
"""llmops.eks.apply: `existing: keep` and `prune`, against a real API server."""

from __future__ import annotations

import pytest
from action_runner import Runner
from ansible_collections.llmops.eks.plugins.module_utils import _kube

NAMESPACE = "t-leftovers"
SELECTOR = {"api_version": "v1", "kind": "ConfigMap", "namespace": NAMESPACE, "label_selector": "app=left"}


def config_map(name, data="a"):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "left"}}, "data": {"k": data}}


@pytest.fixture(scope="module")
def apply(control_plane):
    runner = Runner(control_plane.kubeconfig, control_plane.audit_log)
    runner("apply", definitions=[{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"x": "y"}}}])
    return runner


@pytest.fixture(scope="module")
def cluster(control_plane):
    return _kube.connect({"kubeconfig": str(control_plane.kubeconfig)})


def actions(result):
    assert not result.get("failed"), result["msg"]
    return {row["name"]: row["action"] for row in result["objects"]}


def names(cluster):
    listed = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps", {"labelSelector": "app=left"})
    return {item["metadata"]["name"]: item["data"]["k"] for item in listed["items"]}


def test_keep_creates_what_is_missing_and_leaves_the_rest(apply, cluster):
    assert actions(apply("apply", definitions=[config_map("kept", "first")], existing="keep")) == {"kept": "created"}
    again = apply("apply", definitions=[config_map("kept", "second"), config_map("new")], existing="keep")
    assert actions(again) == {"kept": "unchanged", "new": "created"}
    assert names(cluster) == {"kept": "first", "new": "a"}
    again = apply("apply", definitions=[config_map("kept", "third")], existing="keep")
    assert (again["changed"], apply.requests() if apply.audit_log else []) == (False, [])
    apply("apply", definitions=[config_map("kept"), config_map("new")], state="absent")


def test_prune_deletes_what_an_earlier_call_left(apply, cluster):
    apply("apply", definitions=[config_map("one"), config_map("two")])
    apply("apply", definitions=[{**config_map("other"), "metadata": {"name": "other", "namespace": NAMESPACE, "labels": {"app": "mine"}}}])
    predicted = apply("apply", check=True, definitions=[config_map("two"), config_map("three")], prune=[SELECTOR])
    assert actions(predicted) == {"two": "unchanged", "three": "created", "one": "deleted"}
    assert set(names(cluster)) == {"one", "two"}
    done = apply("apply", definitions=[config_map("two"), config_map("three")], prune=[SELECTOR])
    assert actions(done) == {"two": "unchanged", "three": "created", "one": "deleted"}
    assert set(names(cluster)) == {"two", "three"}
    assert cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/other")
    assert apply("apply", definitions=[config_map("two"), config_map("three")], prune=[SELECTOR])["changed"] is False


def test_prune_with_absent_removes_all_of_a_selector(apply, cluster):
    apply("apply", definitions=[config_map("four"), config_map("five")])
    gone = apply("apply", definitions=[], state="absent", prune=[SELECTOR])
    assert {"four": "deleted", "five": "deleted"}.items() <= actions(gone).items()
    assert names(cluster) == {}
    assert apply("apply", definitions=[], state="absent", prune=[SELECTOR])["changed"] is False


def test_with_absent_the_leftovers_go_first(apply):
    apply("apply", definitions=[config_map("claim"), config_map("job")])
    gone = apply("apply", definitions=[config_map("claim")], state="absent", prune=[SELECTOR], wait_deleted=30)
    assert [(row["name"], row["action"]) for row in gone["objects"]] == [("job", "deleted"), ("claim", "deleted")]


def test_a_kind_that_is_not_served_has_no_leftovers(apply):
    selector = {"api_version": "example.org/v1", "kind": "Nothing", "label_selector": "a=b"}
    assert apply("apply", definitions=[config_map("six")], prune=[selector])["changed"] is True
    apply("apply", definitions=[config_map("six")], state="absent")
