# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a login comes from: kubeconfig files as kubernetes.core's plugins find them, and a pod's own service account."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from action_runner import Runner
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.llmops.eks.plugins.module_utils import _kube
from kubernetes.config import incluster_config

SECRET = VaultSecret(b"molecule")
ASKED = {"api_version": "v1", "kind": "Namespace", "name": "default"}


@pytest.fixture
def project(control_plane, tmp_path, monkeypatch) -> Path:
    """A folder with a playbook's `files`: a kubeconfig, the same vaulted, and one without a context."""
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    files = tmp_path / "files"
    files.mkdir()
    text = control_plane.kubeconfig.read_bytes()
    (files / "open.yaml").write_bytes(text)
    (files / "vaulted.yaml").write_bytes(VaultLib([("default", SECRET)]).encrypt(text, SECRET))
    (files / "empty.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []}))
    return tmp_path


def ask(project: Path, *secrets: VaultSecret, **login):
    runner = Runner(None, None)

    def loader() -> DataLoader:
        made = DataLoader()
        made.set_basedir(str(project))
        made.set_vault_secrets([("default", secret) for secret in secrets])
        return made

    runner.loader = loader
    return runner("object_info", **ASKED, **login)


@pytest.mark.parametrize("kubeconfig", ["open.yaml", "vaulted.yaml", "empty.yaml:open.yaml"])
def test_a_kubeconfig_is_found_in_files_and_decrypted(project, kubeconfig):
    result = ask(project, SECRET, kubeconfig=kubeconfig)
    assert [item["metadata"]["name"] for item in result.get("resources", [])] == ["default"], result


def test_a_vaulted_kubeconfig_without_its_password_is_refused(project):
    result = ask(project, kubeconfig="vaulted.yaml")
    assert result["failed"] is True
    assert result["msg"].startswith("kubeconfig vaulted.yaml: found a file that cannot be read (")
    assert "vault" in result["msg"].partition("; needed")[0]
    assert "fix: run with --vault-password-file" in result["msg"]


def test_a_kubeconfig_that_is_not_there_is_named(project):
    result = ask(project, kubeconfig="nowhere.yaml")
    assert result["failed"] is True
    assert "nowhere.yaml" in result["msg"]
    assert "needed a kubeconfig" in result["msg"]


def test_a_pod_logs_in_with_its_service_account(control_plane, project, monkeypatch):
    """In the cluster: the address in the environment, token and CA in files, as the kubelet mounts them. The kubelet's part is played here."""
    admin = Runner(control_plane.kubeconfig, None)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "t-login", "namespace": "default"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "t-login"}, "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "t-login", "namespace": "default"}],
    }  # fmt: skip
    assert not admin("apply", definitions=[account, binding]).get("failed")
    asked = "/api/v1/namespaces/default/serviceaccounts/t-login/token"
    token = _kube.connect({"kubeconfig": str(control_plane.kubeconfig)}).request("POST", asked, body={"spec": {}})["status"]["token"]
    cluster = yaml.safe_load(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    (project / "token").write_text(token)
    (project / "ca.crt").write_bytes(Path(cluster["certificate-authority"]).read_bytes())
    host, _, port = cluster["server"].removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(project / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(project / "ca.crt"))
    assert [item["metadata"]["name"] for item in ask(project)["resources"]] == ["default"]
    assert 'User "system:serviceaccount:default:t-login"' in Runner(None, None)("apply", definitions=[account], state="absent")["msg"]
    assert not admin("apply", definitions=[account, binding], state="absent").get("failed")
