# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

import pytest
from ansible_collections.kubernetes.core.plugins.module_utils.k8s import client as k8s_client
from ansible_collections.llmops.eks.plugins.module_utils import _apply_manifest as manifest
from ansible_collections.llmops.eks.plugins.module_utils import _kube

NAMED = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}


@pytest.mark.parametrize(
    ("definitions", "found"),
    [
        (5, "a int"),
        ("- a\n- b", "a list"),
        (["text"], "a str"),
        ([{"kind": "Pod", "metadata": {"name": "p"}}], "no apiVersion"),
        ([{**NAMED, "metadata": None}], "no metadata.name"),
        ([{**NAMED, "metadata": {"name": 5}}], "metadata.name 5"),
        ([{**NAMED, "metadata": {"name": "c", "namespace": True}}], "metadata.namespace True"),
        ([{**NAMED, "data": {1: "x"}}], "the key 1 (int) at data.1"),
        ([{**NAMED, "data": {"day": datetime.date(2026, 1, 1)}}], "a date at data.day"),
        ([{**NAMED, "data": {"on": True}}], "a bool (True) at data.on"),
        ([{**NAMED, "metadata": {"name": "c", "labels": {"v": 1.5}}}], "a float (1.5) at metadata.labels.v"),
        (
            [{**NAMED, "kind": "Pod", "spec": {"nodeSelector": {"gpu": True}, "containers": [{"name": "s", "env": [{"name": "N", "value": 5}]}]}}],
            "a bool (True) at spec.nodeSelector.gpu; a int (5) at spec.containers[s].env[N].value",
        ),
    ],
)
def test_errors_of_shape_name_the_place(definitions, found):
    manifests, rows = manifest.read(definitions)
    assert manifests == []
    assert "; ".join(row["found"] for row in rows) == found
    assert all(row["fix"] for row in rows)


def test_custom_resources_have_their_own_types():
    widget = {"apiVersion": "a.b/v1", "kind": "W", "metadata": {"name": "w"}, "spec": {"env": [{"name": "N", "value": 5}], "labels": {"a": 1}}}
    assert manifest.read(widget) == ([widget], [])


def test_what_the_server_owns_is_dropped_and_string_data_folded():
    given = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "uid": "1", "creationTimestamp": None}, "stringData": {"a": "b"}, "status": {}}
    assert manifest.read([given, None]) == ([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "Yg=="}}], [])
    assert "uid" in given["metadata"], "the caller's data is left alone"


def test_the_login_functions_of_kubernetes_core_are_there():
    """Private names of another collection, so that a new release that lacks them is noticed."""
    for name in ("_create_auth_spec", "_create_configuration", "_create_headers", "_set_header"):
        assert callable(getattr(k8s_client, name))
    assert {"kubeconfig", "context", "host", "api_key", "impersonate_groups"} <= _kube.AUTH_ARG_SPEC.keys()


def test_environment_of_a_task_lasts_for_its_block(monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    before = _kube.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    with _kube.environment({"KUBECONFIG": "/k", "K8S_AUTH_HOST": "h"}):
        assert _kube.kube_config.KUBE_CONFIG_DEFAULT_LOCATION == "/k"
        assert k8s_client._create_auth_spec()["host"] == "h"
    assert before == _kube.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    assert "host" not in k8s_client._create_auth_spec()
