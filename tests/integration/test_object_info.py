# SPDX-License-Identifier: GPL-3.0-or-later
"""object_info against a real API server: one object, all of a kind, and what is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from action_runner import Runner

SPACES = ("t-info-a", "t-info-b")


def config_map(namespace: str, name: str, **labels: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": {"k": name}}


@pytest.fixture(scope="module")
def runner(control_plane) -> Iterator[Runner]:
    run = Runner(control_plane.kubeconfig, control_plane.audit_log)
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"t": "info"}}} for name in SPACES]
    definitions = [*spaces, config_map(SPACES[0], "one", app="x"), config_map(SPACES[0], "two", app="y", t="info"), config_map(SPACES[1], "one", app="x")]
    assert not run("apply", definitions=definitions).get("failed")
    yield run
    run("apply", definitions=definitions, state="absent")


def names(result: dict) -> list[tuple[str, str]]:
    assert not result.get("failed"), result
    return sorted((item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in result["resources"])


def test_one_object_with_its_type_and_without_its_managers(runner):
    result = runner("object_info", api_version="v1", kind="ConfigMap", namespace=SPACES[0], name="two")
    (found,) = result["resources"]
    assert (result["api_found"], result["changed"]) == (True, False)
    assert (found["apiVersion"], found["kind"], found["data"]) == ("v1", "ConfigMap", {"k": "two"})
    assert "managedFields" not in found["metadata"]
    assert runner.requests() == []


def test_all_of_a_kind_in_one_namespace_or_in_all(runner):
    listed = {"api_version": "v1", "kind": "ConfigMap"}
    assert names(runner("object_info", **listed, namespace=SPACES[0], label_selectors=["app=x"])) == [(SPACES[0], "one")]
    assert names(runner("object_info", **listed, label_selectors=["app=x"])) == [(SPACES[0], "one"), (SPACES[1], "one")]
    assert names(runner("object_info", **listed, namespace=SPACES[0], label_selectors=["app in (x,y)", "t=info"])) == [(SPACES[0], "two")]
    result = runner("object_info", api_version="v1", kind="Namespace", label_selectors=["t=info"])
    assert names(result) == [("", name) for name in SPACES]
    assert {(item["apiVersion"], item["kind"]) for item in result["resources"]} == {("v1", "Namespace")}


@pytest.mark.parametrize(
    ("asked", "api_found"),
    [
        ({"api_version": "v1", "kind": "ConfigMap", "namespace": SPACES[0], "name": "three"}, True),
        ({"api_version": "v1", "kind": "ConfigMap", "namespace": "t-info-none"}, True),
        ({"api_version": "v1", "kind": "Nothing"}, False),
        ({"api_version": "nothing.example.com/v1", "kind": "Nothing", "name": "n", "namespace": "n"}, False),
    ],
)
def test_what_is_not_there(runner, asked, api_found):
    result = runner("object_info", **asked)
    assert (names(result), result["api_found"]) == ([], api_found)


def test_one_object_needs_its_namespace(runner):
    result = runner("object_info", api_version="v1", kind="ConfigMap", name="one")
    assert result["failed"] is True
    assert result["msg"] == "ConfigMap one: found no namespace; needed one, because configmaps live in namespaces; fix: set namespace"


def test_a_refused_list_is_told_in_the_servers_words(runner):
    result = runner("object_info", api_version="v1", kind="Secret", impersonate_user="nobody")
    assert result["failed"] is True
    assert 'User "nobody" cannot list resource "secrets"' in result["msg"]
