# SPDX-License-Identifier: GPL-3.0-or-later
"""The local answer to "would server-side apply change anything?". fieldsV1 below is what a 1.36 API server wrote for these manifests."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _apply_compare as compare
from ansible_collections.llmops.eks.plugins.module_utils import _apply_diff as apply_diff
from ansible_collections.llmops.eks.plugins.module_utils import _apply_errors as apply_errors

MANIFEST = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "finalizers": ["x/y"]},
    "spec": {
        "tolerations": [],
        "nodeSelector": {},
        "containers": [
            {
                "name": "c",
                "image": "i",
                "args": ["a", "b"],
                "env": [{"name": "A", "value": ""}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            }
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
}
OWNED = {
    "f:metadata": {"f:finalizers": {'v:"x/y"': {}}, "f:labels": {"f:a": {}}},
    "f:spec": {
        "f:containers": {
            'k:{"name":"c"}': {
                ".": {},
                "f:args": {},
                "f:env": {
                    'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}},
                    'k:{"name":"IP"}': {".": {}, "f:name": {}, "f:valueFrom": {"f:fieldRef": {}}},
                },
                "f:image": {},
                "f:name": {},
                "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                "f:resources": {"f:limits": {"f:cpu": {}, "f:memory": {}}},
            }
        },
        "f:nodeSelector": {},
        "f:tolerations": {},
        "f:volumes": {'k:{"name":"v"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
    },
}
LIVE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "namespace": "n",
        "uid": "1",
        "labels": {"a": "b", "theirs": "x"},
        "finalizers": ["other/one", "x/y"],
        "managedFields": [{"manager": "llmops.eks", "operation": "Apply", "apiVersion": "v1", "fieldsV1": OWNED}],
    },
    "spec": {
        "containers": [
            {
                "name": "c",
                "image": "i",
                "args": ["a", "b"],
                "env": [{"name": "A"}, {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "imagePullPolicy": "Always",
            },
            {"name": "injected", "image": "mesh"},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "token"}],
        "restartPolicy": "Always",
    },
    "status": {"phase": "Pending"},
}


def changed(obj, path, value):
    """A deep copy of `obj` with the value at `path` (keys and indices) replaced; `...` deletes it."""
    obj = copy.deepcopy(obj)
    at = obj
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return obj


def test_equal_but_for_defaults_quantities_and_what_others_own():
    assert compare.unchanged(MANIFEST, LIVE, "llmops.eks")


CONTAINER = ("spec", "containers", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "labels", "a"), "c"),
        (("metadata", "labels", "new"), "x"),
        (("metadata", "labels"), ...),
        (("metadata", "finalizers"), ["x/z"]),
        (("metadata", "finalizers"), ...),
        (("spec", "tolerations"), ...),
        (("spec", "tolerations"), [{"operator": "Exists"}]),
        (("spec", "hostNetwork"), True),
        ((*CONTAINER, "args"), ["b", "a"]),
        ((*CONTAINER, "args"), ["a"]),
        ((*CONTAINER, "env", 0, "value"), "x"),
        ((*CONTAINER, "env", 1, "valueFrom", "fieldRef", "fieldPath"), "status.hostIP"),
        ((*CONTAINER, "ports", 0, "protocol"), "UDP"),
        ((*CONTAINER, "ports", 0, "containerPort"), "80"),
        ((*CONTAINER, "resources", "limits", "cpu"), "501m"),
        ((*CONTAINER, "resources", "limits", "memory"), ...),
        ((*CONTAINER, "name"), "d"),
        ((*CONTAINER, "image"), None),
        (("spec", "volumes", 0, "emptyDir"), {"medium": "Memory"}),
        (("spec", "volumes"), []),
        (("apiVersion",), "v2"),
    ],
)
def test_any_change_of_the_manifest_is_seen(path, value):
    assert not compare.unchanged(changed(MANIFEST, path, value), LIVE, "llmops.eks")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "labels", "a"), "drift"),
        (("metadata", "managedFields"), []),
        ((*CONTAINER, "image"), "drift"),
        ((*CONTAINER, "args"), ["a", "b", "c"]),
        ((*CONTAINER, "env"), list(reversed(LIVE["spec"]["containers"][0]["env"]))),
        ((*CONTAINER, "env", 1, "valueFrom", "fieldRef", "apiVersion"), "v2"),
        ((*CONTAINER, "resources", "limits", "cpu"), "1"),
        (("spec", "volumes", 0, "emptyDir"), {"medium": "Memory"}),
        (("spec", "containers"), LIVE["spec"]["containers"][1:]),
    ],
)
def test_any_drift_of_the_live_object_is_seen(path, value):
    assert not compare.unchanged(MANIFEST, changed(LIVE, path, value), "llmops.eks")


def test_another_manager_owns_nothing_for_us():
    assert not compare.unchanged(MANIFEST, LIVE, "argo")
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    assert compare.unchanged(bare, {**bare, "metadata": {"name": "n", "uid": "1"}}, "argo"), "nothing wanted, nothing owned"


def test_text_that_looks_like_a_quantity_stays_text():
    owned = [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {"f:cpu": {}}}}]
    live = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "managedFields": owned}, "data": {"cpu": "500m"}}
    assert compare.unchanged({**live, "metadata": {"name": "c"}}, live, "m")
    assert not compare.unchanged({**live, "metadata": {"name": "c"}, "data": {"cpu": "0.5"}}, live, "m")


def test_custom_resources_keep_quantities_as_written():
    owned = [{"manager": "m", "operation": "Apply", "apiVersion": "karpenter.sh/v1", "fieldsV1": {"f:spec": {"f:limits": {"f:cpu": {}}}}}]
    live = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "c", "managedFields": owned}, "spec": {"limits": {"cpu": "1000m"}}}
    assert not compare.unchanged({**live, "metadata": {"name": "c"}, "spec": {"limits": {"cpu": "1"}}}, live, "m")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("0.5", "500m", True),
        (1, "1", True),
        ("1Gi", "1024Mi", True),
        ("1G", "1Gi", False),
        ("1e3", "1k", True),
        ("1E", "1000P", True),
        ("", "0", False),
        ("x", "x", False),
        ("1.5Gi", "1536Mi", True),
        ("NaN", "NaN", False),
        ("100n", "0.1u", True),
    ],
)
def test_quantities(a, b, same):
    assert compare.same_quantity(a, b) is same


def test_lookup_of_conflict_paths():
    obj = {"metadata": {"labels": {"app.kubernetes.io/name": "x"}}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}
    assert apply_errors.lookup(obj, ".metadata.labels.app.kubernetes.io/name") == (True, "x")
    assert apply_errors.lookup(obj, '.spec.containers[name="b"].image') == (True, "j")
    assert apply_errors.lookup(obj, '.spec.containers[name="c"].image') == (False, None)
    assert apply_errors.lookup(obj, ".spec.nothing") == (False, None)


def test_paths_are_written_like_conflicts():
    assert list(apply_diff.paths({"f:spec": {"f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}}}}})) == [
        '.spec.ports[port=80,protocol="TCP"].port'
    ]


def test_long_texts_are_shown_as_blocks_and_kubectls_copy_is_hidden():
    obj = {"kind": "ConfigMap", "metadata": {"name": "c", "annotations": {apply_diff.LAST_APPLIED: "{}"}}, "data": {"t": "one\ntwo\n"}, "status": {}}
    shown = apply_diff.diff("ConfigMap c", None, obj)
    assert shown["before"] == ""
    assert shown["after"] == "data:\n  t: |\n    one\n    two\nkind: ConfigMap\nmetadata:\n  name: c\n"
