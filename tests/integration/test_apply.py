# SPDX-License-Identifier: GPL-3.0-or-later
"""llmops.eks.apply against a real API server. Writes are counted in its audit log."""

from __future__ import annotations

import base64
import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_runner import Runner
from ansible_collections.llmops.eks.plugins.module_utils import _kube

ROOT = Path(__file__).resolve().parents[2]
LABELS = {"app.kubernetes.io/managed-by": "llmops.eks", "app.kubernetes.io/part-of": "llmops.eks"}


@pytest.fixture(scope="module")
def apply(control_plane):
    runner = Runner(control_plane.kubeconfig, control_plane.audit_log)
    if not control_plane.audit_log:
        pytest.skip("LLMOPS_TEST_KUBECONFIG has no audit log; these tests count calls and need the sandbox's own control plane")

    def run(definitions: Any, **arguments: Any) -> dict[str, Any]:
        return runner("apply", definitions=definitions, **arguments)

    run.seen = runner
    return run


@pytest.fixture(scope="module")
def cluster(control_plane):
    return _kube.connect({"kubeconfig": str(control_plane.kubeconfig)})


@pytest.fixture
def namespace(request, apply):
    """An existing namespace of the test's own."""
    name = "t-" + request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:50]
    apply([named("Namespace", name, None)])
    return name


def named(kind: str, name: str, namespace: str | None, api: str = "v1", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(LABELS)} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def deployment(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    pod = {
        "serviceAccountName": "server",
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeSelector": {},
        "securityContext": {"runAsNonRoot": True, "fsGroup": 1000},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": name}}}
        ],
        "containers": [
            {
                "name": "server",
                "image": "vllm:1",
                "args": ["--model", "x"],
                "env": [
                    {"name": "EMPTY", "value": ""},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
                ],
                "ports": [{"name": "http", "containerPort": 8000}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "nvidia.com/gpu": 1}, "requests": {"cpu": "0.25"}},
                "startupProbe": {"httpGet": {"path": "/health", "port": "http"}, "failureThreshold": 60},
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
            }
        ],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2048Mi"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    }
    template = {"metadata": {"labels": {"app": name}, "annotations": {}}, "spec": pod}
    return named("Deployment", name, namespace, "apps/v1", spec={"selector": {"matchLabels": {"app": name}}, "template": template, **spec})


def serving(ns: str) -> list[dict[str, Any]]:
    """Twelve ordinary objects of a model, in the order a template has them."""
    ports = [{"port": 8000}]
    return [
        named("Namespace", ns, None),
        named("ServiceAccount", "server", ns),
        named("ConfigMap", "settings", ns, data={"a": "1", "text": "one\ntwo\n"}),
        named("Secret", "key", ns, stringData={"token": "extremely-secret-value"}),
        deployment("server", ns),
        named("Service", "server", ns, spec={"selector": {"app": "server"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
        named("PodDisruptionBudget", "server", ns, "policy/v1", spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "server"}}}),
        named(
            "NetworkPolicy",
            "server",
            ns,
            "networking.k8s.io/v1",
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"ports": ports, "from": [{"podSelector": {}}]}], "egress": [{}]},
        ),
        named("Role", "server", ns, "rbac.authorization.k8s.io/v1", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
        named(
            "RoleBinding",
            "server",
            ns,
            "rbac.authorization.k8s.io/v1",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "server"},
            subjects=[{"kind": "ServiceAccount", "name": "server", "namespace": ns}],
        ),
        named(
            "PersistentVolumeClaim",
            "weights",
            ns,
            spec={"accessModes": ["ReadWriteMany"], "storageClassName": "none", "resources": {"requests": {"storage": "1024Gi"}}},
        ),
        named(
            "HorizontalPodAutoscaler",
            "server",
            ns,
            "autoscaling/v2",
            spec={
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"},
                "minReplicas": 1,
                "maxReplicas": 3,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
        ),
    ]


def crd(group: str, kind: str = "Widget") -> dict[str, Any]:
    plural = kind.lower() + "s"
    budget = {"type": "object", "properties": {"nodes": {"type": "string", "default": "10%"}, "at": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "budgets": {"type": "array", "items": budget},
                },
            }
        },
    }
    spec = {
        "group": group,
        "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": kind + "List"},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
    }
    return named("CustomResourceDefinition", f"{plural}.{group}", None, "apiextensions.k8s.io/v1", spec=spec)


def actions(result: dict[str, Any]) -> dict[str, str]:
    assert not result.get("failed"), result.get("msg")
    return {f"{o['kind']} {o['name']}": o["action"] for o in result["objects"]}


def test_the_life_of_a_batch(apply):
    """Check mode on nothing, create, unchanged, one change, a field removed, absent, absent again."""
    ns = "life"
    batch = serving(ns)

    predicted = apply(batch, check=True)
    assert set(actions(predicted).values()) == {"created"}
    assert predicted["changed"]
    assert apply.seen.writes() == []

    created = apply(batch)
    assert actions(created) == actions(predicted)
    assert created["diff"] == predicted["diff"]
    assert len(apply.seen.writes()) == len(batch) == 12

    for _ in range(2):
        again = apply(batch)
        assert set(actions(again).values()) == {"unchanged"}
        assert not again["changed"]
        assert again["diff"] == []
        assert apply.seen.requests() == [], "neither a write nor a dry run"

    changed = copy.deepcopy(batch)
    changed[2]["data"]["a"] = "2"
    for check in (True, False):
        result = apply(changed, check=check)
        assert [name for name, action in actions(result).items() if action != "unchanged"] == ["ConfigMap settings"]
        assert apply.seen.writes() == ([] if check else [f"patch configmaps {ns}/settings"])
    assert [entry["before_header"] for entry in result["diff"]] == [f"ConfigMap {ns}/settings"]
    assert "  a: '1'" in result["diff"][0]["before"]
    assert "  a: '2'" in result["diff"][0]["after"]
    assert "managedFields" not in str(result["diff"])
    assert "resourceVersion" not in str(result["diff"])

    del changed[2]["data"]["text"], changed[4]["spec"]["template"]["spec"]["tolerations"]
    result = apply(changed)
    assert [name for name, action in actions(result).items() if action == "configured"] == ["ConfigMap settings", "Deployment server"]
    assert "tolerations" in result["diff"][1]["before"]
    assert "tolerations" not in result["diff"][1]["after"]
    assert set(actions(apply(changed)).values()) == {"unchanged"}

    assert set(actions(apply(changed, state="absent", check=True)).values()) == {"deleted"}
    assert apply.seen.writes() == []
    gone = apply(changed, state="absent", wait_deleted=60)
    assert set(actions(gone).values()) == {"deleted"}
    assert [o["kind"] for o in gone["objects"]][-1] == "Namespace"
    again = apply(changed, state="absent")
    assert set(actions(again).values()) == {"absent"}
    assert not again["changed"]
    assert apply.seen.requests() == []


def test_quantities_defaults_and_order_of_keyed_lists(apply, namespace):
    server = deployment("server", namespace)
    apply([server])
    container = server["spec"]["template"]["spec"]["containers"][0]
    container["resources"]["limits"] = {"memory": "1Gi", "cpu": "500m", "nvidia.com/gpu": "1"}
    assert actions(apply([server])) == {"Deployment server": "unchanged"}
    assert apply.seen.requests() == []
    container["env"].reverse()
    assert actions(apply([server])) == {"Deployment server": "configured"}, "the order of env is content"
    assert actions(apply([server])) == {"Deployment server": "unchanged"}


def test_a_default_that_comes_back_is_noticed(apply, namespace):
    """egress[].ports[].protocol is owned as part of an atomic list: dropping UDP means TCP again."""
    spec = {"podSelector": {}, "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}
    policy = named("NetworkPolicy", "p", namespace, "networking.k8s.io/v1", spec=spec)
    apply([policy])
    del policy["spec"]["egress"][0]["ports"][0]["protocol"]
    assert actions(apply([policy])) == {"NetworkPolicy p": "configured"}


def test_namespace_without_any_content_is_stable_from_the_second_run(apply):
    empty = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "empty-intent"}}
    assert actions(apply([empty])) == {"Namespace empty-intent": "created"}
    assert actions(apply([empty])) == {"Namespace empty-intent": "unchanged"}
    assert apply.seen.requests() == []


def test_conflict_names_field_manager_and_values(apply, cluster, namespace):
    settings = named("ConfigMap", "settings", namespace, data={"a": "1"})
    apply([settings])
    path = f"/api/v1/namespaces/{namespace}/configmaps/settings"
    theirs = {"data": {"a": "9"}, "metadata": {"labels": {"app.kubernetes.io/part-of": "x"}}}
    cluster.request("PATCH", path, {"fieldManager": "somebody"}, theirs, "application/merge-patch+json")
    for check in (True, False):
        refused = apply([settings], check=check)
        assert refused["failed"]
        label = ".metadata.labels.app.kubernetes.io/part-of"
        assert {(r["check"], r["found"], r["needed"]) for r in refused["problems"]} == {
            ("field_conflict", '.data.a = "9", owned by somebody', '.data.a = "1"'),
            ("field_conflict", f'{label} = "x", owned by somebody', f'{label} = "llmops.eks"'),
        }
        assert "force_conflicts: true" in refused["msg"]
        assert f"ConfigMap {namespace}/settings" in refused["msg"]
        assert apply.seen.writes() == []
    assert actions(apply([settings], force_conflicts=True)) == {"ConfigMap settings": "configured"}
    assert cluster.get(path)["data"] == {"a": "1"}
    assert actions(apply([settings])) == {"ConfigMap settings": "unchanged"}


def scale(cluster: _kube.Cluster, path: str, replicas: int) -> None:
    """As the horizontal pod autoscaler does it."""
    current = cluster.get(path + "/scale")
    current["spec"]["replicas"] = replicas
    del current["metadata"]["resourceVersion"]  # the controller writes the Deployment's status meanwhile
    cluster.request("PUT", path + "/scale", {"fieldManager": "keda"}, current)


def test_replicas_of_an_autoscaler_stay(apply, cluster, namespace):
    server = deployment("server", namespace)
    apply([server])
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/server"
    scale(cluster, path, 4)
    assert actions(apply([server])) == {"Deployment server": "unchanged"}
    assert apply.seen.requests() == []
    server["spec"]["template"]["spec"]["containers"][0]["image"] = "vllm:2"
    assert actions(apply([server])) == {"Deployment server": "configured"}
    assert cluster.get(path)["spec"]["replicas"] == 4


def test_replicas_handed_over_to_an_autoscaler(apply, cluster, namespace):
    """Kubernetes notes a scaler as owner only if somebody owned the field before."""
    server = deployment("server", namespace, replicas=1)
    apply([server])
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/server"
    scale(cluster, path, 4)
    refused = apply([server])
    assert "found .spec.replicas = 4, owned by keda (subresource scale); needed .spec.replicas = 1" in refused["msg"]
    del server["spec"]["replicas"]
    assert actions(apply([server])) == {"Deployment server": "unchanged"}
    assert cluster.get(path)["spec"]["replicas"] == 4


def test_a_field_that_changes_hands_falls_back_to_nothing(apply, cluster, namespace):
    """From a fixed number to an autoscaler and back, without a moment at Kubernetes' default of 1 replica, and without forcing anything else."""
    fixed, scaled = deployment("server", namespace, replicas=3), deployment("server", namespace)
    hands = {"handed_over": ["spec.replicas"]}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/server"
    apply([fixed], **hands)
    assert actions(apply([scaled], **hands)) == {"Deployment server": "unchanged"}
    assert apply.seen.requests() == []
    assert cluster.get(path)["spec"]["replicas"] == 3
    scale(cluster, path, 5)
    assert actions(apply([scaled], **hands)) == {"Deployment server": "unchanged"}
    assert cluster.get(path)["spec"]["replicas"] == 5
    back = apply([fixed], check=True, **hands)
    assert (actions(back), cluster.get(path)["spec"]["replicas"]) == ({"Deployment server": "configured"}, 5)
    assert actions(apply([fixed], **hands)) == {"Deployment server": "configured"}
    assert cluster.get(path)["spec"]["replicas"] == 3
    assert actions(apply([fixed], **hands)) == {"Deployment server": "unchanged"}
    # Another field is still a conflict, also beside one that changes hands.
    scale(cluster, path, 4)
    cluster.request("PATCH", path, {"fieldManager": "somebody"}, {"spec": {"minReadySeconds": 7}}, "application/merge-patch+json")
    refused = apply([deployment("server", namespace, replicas=3, minReadySeconds=1)], **hands)
    assert ".spec.minReadySeconds = 7, owned by somebody" in refused["msg"]
    assert cluster.get(path)["spec"]["replicas"] == 4


def test_drift_is_repaired_or_refused_but_never_overlooked(apply, cluster, namespace):
    """Somebody removes our field: nobody owns it any more, so it is simply put back."""
    settings = named("ConfigMap", "settings", namespace, data={"a": "1", "b": "2"})
    apply([settings])
    path = f"/api/v1/namespaces/{namespace}/configmaps/settings"
    cluster.request("PATCH", path, {"fieldManager": "somebody"}, {"data": {"b": None}}, "application/merge-patch+json")
    assert actions(apply([settings])) == {"ConfigMap settings": "configured"}
    assert cluster.get(path)["data"] == {"a": "1", "b": "2"}


def test_an_object_of_others_is_taken_into_ownership_once(apply, cluster, namespace):
    settings = named("ConfigMap", "theirs", namespace, data={"a": "1"})
    cluster.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"fieldManager": "helm"}, settings)
    result = apply([settings])
    assert actions(result) == {"ConfigMap theirs": "configured"}
    assert "# owned by llmops.eks: .data.a" in result["diff"][0]["after"]
    assert actions(apply([settings])) == {"ConfigMap theirs": "unchanged"}
    assert apply.seen.requests() == []


@pytest.mark.parametrize("there", [True, False], ids=["namespace exists", "namespace of the batch"])
@pytest.mark.parametrize("check", [True, False])
def test_unknown_field_is_refused_before_the_first_write(apply, there, check):
    ns = "typo-there" if there else "typo-new"
    if there:
        apply([named("Namespace", ns, None)])
    batch = [named("Namespace", ns, None), named("ConfigMap", "first", ns), deployment("server", ns, replicass=2)]
    refused = apply(batch, check=check)
    assert [(r["check"], r["subject"]) for r in refused["problems"]] == [("unknown_field", f"Deployment {ns}/server")]
    assert "replicass" in refused["msg"]
    assert apply.seen.writes() == []


def test_all_problems_of_a_batch_are_reported_at_once(apply):
    batch = [
        named("ScaledObject", "a", "default", "keda.sh/v1alpha1"),
        named("Widget", "b", "default", "nobody.example.com/v1"),
        named("ConfigMap", "c", None),
        named("Secret", "d", "default"),
        named("Secret", "d", "default"),
    ]
    refused = apply(batch)
    assert [(r["check"], r["subject"]) for r in refused["problems"]] == [
        ("missing_kind", "ScaledObject default/a"),
        ("missing_kind", "Widget default/b"),
        ("namespace", "ConfigMap c"),
        ("duplicate", "Secret default/d"),
    ]
    assert "role llmops.eks.keda_scaler" in refused["problems"][0]["fix"]
    assert "nobody.example.com" in refused["problems"][1]["fix"]
    assert apply.seen.requests() == []


def test_numbers_in_string_maps_are_named(apply, namespace):
    refused = apply([named("ConfigMap", "c", namespace, data={"retries": 5}), named("Secret", "s", namespace, stringData={"pin": 12345})])
    assert [r["found"] for r in refused["problems"]] == ["a int (5) at data.retries", "a int at stringData.pin"]
    assert "12345" not in str(refused)
    assert apply.seen.requests({"get", "patch"}) == []


def test_wrong_type_and_invalid_value_name_the_field(apply, namespace):
    service = named("Service", "s", namespace, spec={"selector": {"a": "b"}, "ports": [{"port": 0}], "sessionAffinity": 3})
    assert [(r["check"], r["found"]) for r in apply([service])["problems"]] == [("field_type", ".spec.sessionAffinity of another type (3)")]
    del service["spec"]["sessionAffinity"]
    refused = apply([service])
    assert [(r["check"], r["found"].split(":")[0]) for r in refused["problems"]] == [
        ("invalid_field", "spec.ports[0].port"),
        ("invalid_field", "spec.ports[0].targetPort"),
    ]


def test_missing_namespace_is_an_error_and_in_check_mode_a_warning(apply):
    batch = [named("ConfigMap", "c", "nowhere")]
    refused = apply(batch)
    assert "found no namespace nowhere in the cluster or in this batch" in refused["msg"]
    predicted = apply(batch, check=True)
    assert actions(predicted) == {"ConfigMap c": "created"}
    assert any("nowhere" in warning for warning in predicted["warnings"])


def test_crd_and_its_object_in_one_batch(apply):
    """Given in the wrong order, in a new namespace; with a default inside an atomic list."""
    ns, widget = "crd-batch", named("Widget", "w", "crd-batch", "one.example.com/v1", spec={"size": 2, "budgets": [{"at": "night"}]})
    batch = [widget, named("Namespace", ns, None), crd("one.example.com")]
    assert set(actions(apply(batch, check=True)).values()) == {"created"}
    assert actions(apply(batch)) == {"Namespace crd-batch": "created", "CustomResourceDefinition widgets.one.example.com": "created", "Widget w": "created"}
    assert set(actions(apply(batch)).values()) == {"unchanged"}
    assert apply.seen.writes() == []
    widget["spec"]["size"] = "many"
    assert [r["check"] for r in apply(batch)["problems"]] == ["field_type"]
    gone = apply(batch, state="absent", wait_deleted=60)
    assert set(actions(gone).values()) == {"deleted"}
    assert set(actions(apply(batch, state="absent")).values()) == {"absent"}


def test_kinds_that_an_earlier_task_installs_are_predicted(apply):
    scaled = [named("ScaledObject", "a", "default", "keda.sh/v1alpha1", spec={})]
    assert actions(apply(scaled, check=True, check_mode_groups=["keda.sh"])) == {"ScaledObject a": "created"}
    assert "missing_kind" in str(apply(scaled, check=True, check_mode_groups=["karpenter.sh"])["problems"])
    assert "missing_kind" in str(apply(scaled, check_mode_groups=["keda.sh"])["problems"]), "outside check mode they must be there"
    assert actions(apply(scaled, state="absent")) == {"ScaledObject a": "absent"}


def test_failure_in_the_middle_says_what_was_written(apply):
    """The custom resource can only be checked once its CRD is written."""
    ns = "half"
    widget = named("Widget", "w", ns, "half.example.com/v1", spec={"sizee": 1})
    batch = [named("Namespace", ns, None), crd("half.example.com"), widget, named("ConfigMap", "c", ns)]
    refused = apply(batch)
    assert refused["msg"].startswith(
        "half-applied: written Namespace half, CustomResourceDefinition widgets.half.example.com; not written Widget half/w, ConfigMap half/c."
    )
    assert [(r["check"], r["subject"]) for r in refused["problems"]] == [("unknown_field", "Widget half/w")]
    assert refused["changed"]
    assert [o["action"] for o in refused["objects"]] == ["created", "created", "unwritten", "unwritten"]


def test_namespace_with_objects_of_others_is_kept(apply):
    ns = "shared"
    apply([named("Namespace", ns, None), named("ConfigMap", "ours", ns), named("ConfigMap", "theirs", ns)])
    for expected in ("deleted", "absent"):
        result = apply([named("Namespace", ns, None), named("ConfigMap", "ours", ns)], state="absent")
        assert actions(result) == {"ConfigMap ours": expected, "Namespace shared": "kept"}
        assert result["objects"][-1]["reason"] == "still holds ConfigMap theirs"
        assert result["changed"] == (expected == "deleted")
    result = apply([named("Namespace", "default", None)], state="absent")
    assert actions(result) == {"Namespace default": "kept"}


def test_a_lease_of_a_controller_that_is_gone_keeps_no_namespace(apply):
    ns = "led"
    apply([named("Namespace", ns, None), named("Lease", "operator.example.com", ns, "coordination.k8s.io/v1", spec={"holderIdentity": "pod-1"})])
    assert actions(apply([named("Namespace", ns, None)], state="absent", wait_deleted=30)) == {"Namespace led": "deleted"}


def test_crd_with_objects_of_others_is_kept(apply):
    definition, widget = crd("kept.example.com"), named("Widget", "theirs", "default", "kept.example.com/v1")
    apply([definition, widget])
    result = apply([definition], state="absent")
    assert actions(result) == {"CustomResourceDefinition widgets.kept.example.com": "kept"}
    assert result["objects"][0]["reason"] == "still holds Widget default/theirs"


def test_secrets_never_show(apply, namespace):
    value, other = "correct-horse-battery", "another-horse-battery"
    secret = named("Secret", "key", namespace, stringData={"token": value, "same": "unchanging-value"})
    results = [apply([secret])]
    secret["stringData"]["token"] = other
    results.append(apply([secret]))
    results.append(apply([secret], state="absent"))
    text = json.dumps(results)
    for plain in (value, other, "unchanging-value"):
        assert plain not in text
        assert yaml.safe_dump({"x": plain}).strip()[3:] not in text
    assert base64.b64encode(value.encode()).decode() not in text
    assert "  token: '*** (21 bytes, old)'" in results[1]["diff"][0]["before"]
    assert "  token: '*** (21 bytes, new)'" in results[1]["diff"][0]["after"]
    assert "  same: '*** (16 bytes)'" in results[1]["diff"][0]["after"]


def test_a_key_taken_out_of_string_data_disappears(apply, cluster, namespace):
    secret = named("Secret", "key", namespace, stringData={"a": "1", "b": "2"})
    apply([secret])
    del secret["stringData"]["b"]
    assert actions(apply([secret])) == {"Secret key": "configured"}
    assert cluster.get(f"/api/v1/namespaces/{namespace}/secrets/key")["data"] == {"a": "MQ=="}


def test_waiting_for_a_deletion_names_the_finalizer(apply, cluster, namespace):
    held = named("ConfigMap", "held", namespace)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    apply([held])
    refused = apply([held], state="absent", wait_deleted=1)
    assert "held by finalizers example.com/hold" in refused["msg"]
    assert "being deleted since" in apply([held])["msg"]
    assert actions(apply([held], state="absent")) == {"ConfigMap held": "absent"}
    cluster.request("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/held", None, {"metadata": {"finalizers": None}}, "application/merge-patch+json")


def test_yaml_text_lists_and_exported_objects(apply, namespace):
    first, second = (json.dumps(named("ConfigMap", name, namespace)) for name in "ab")
    text = f"---\napiVersion: v1\nkind: List\nitems:\n- {first}\n---\n---\n{second}\n"
    assert actions(apply(text)) == {"ConfigMap a": "created", "ConfigMap b": "created"}
    exported = named("ConfigMap", "a", namespace)
    exported["metadata"] |= {"uid": "1", "resourceVersion": "1", "creationTimestamp": None, "managedFields": []}
    assert actions(apply([exported])) == {"ConfigMap a": "unchanged"}
    refused = apply("a: [")
    assert refused["problems"][0]["check"] == "yaml"


def test_unreachable_cluster_says_where_it_looked():
    started = time.monotonic()
    runner = Runner(Path("/nonexistent/kubeconfig"), None)
    assert "fix: set kubeconfig or K8S_AUTH_KUBECONFIG" in runner("apply", definitions=[])["msg"]
    refused = runner("apply", definitions=[named("ConfigMap", "a", "default")], kubeconfig=None, host="https://127.0.0.1:9", api_key="none")
    assert "https://127.0.0.1:9" in refused["msg"]
    assert time.monotonic() - started < 20


def test_playbook_with_action_group_environment_and_check_mode(control_plane, tmp_path):
    """The real ansible-playbook: login by module_defaults of the group, and by the play's environment."""
    batch = [named("Namespace", "playbook", None), named("ConfigMap", "c", "playbook", data={"n": "{{ 5 | string }}"})]
    login = str(control_plane.kubeconfig)
    logins = [
        {"module_defaults": {"group/llmops.eks.k8s": {"kubeconfig": login}}},
        {"environment": {"KUBECONFIG": login}},
        {"environment": {"K8S_AUTH_KUBECONFIG": login}},
    ]
    tasks = [{"name": "Apply", "llmops.eks.apply": {"definitions": batch}}]
    plays = [{"hosts": "localhost", "gather_facts": False, "tasks": tasks, **how} for how in logins]
    book = tmp_path / "play.yml"
    book.write_text(yaml.safe_dump(plays))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("K8S_AUTH", "KUBE"))}
    environment |= {"HOME": str(tmp_path), "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}

    def play(*flags: str) -> str:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", *flags, str(book)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    predicted = play("--check", "--diff")
    assert "+++ after: ConfigMap playbook/c" in predicted
    assert "changed=3" in predicted
    assert "changed=1 " in play()
    assert "changed=0 " in play()
