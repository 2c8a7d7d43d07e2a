# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written before anything starts: certificates, audit policy, objects, Prometheus' configuration."""

import ssl

import pytest
import yaml

from sandbox import cluster, objects, pki, prometheus
from sandbox.__main__ import main
from sandbox.processes import ProcessError


def test_certificates_pass_strict_verification_on_both_sides(tmp_path):
    authority = pki.Authority(tmp_path, "ca")
    server = authority.issue("server", "server", hosts=("localhost", "127.0.0.1"))
    client = authority.issue("client", "admin", ("system:masters",))
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    server_side.verify_mode = ssl.CERT_REQUIRED
    client_side = ssl.create_default_context(cafile=authority.path)
    for side, certificate in ((server_side, server), (client_side, client)):
        side.load_cert_chain(certificate, certificate.with_suffix(".key"))
        side.verify_flags |= ssl.VERIFY_X509_STRICT
    subject = dict(pair for rdn in _peer_of_handshake(server_side, client_side)["subject"] for pair in rdn)
    assert subject == {"commonName": "admin", "organizationName": "system:masters"}


def _peer_of_handshake(server_side, client_side):
    """The client's certificate as the server sees it after a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    for _ in range(6):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server.getpeercert()


def test_private_keys_are_for_the_owner_only(tmp_path):
    certificate = pki.Authority(tmp_path, "ca").issue("x", "x")
    assert [(tmp_path / n).stat().st_mode & 0o077 for n in ("ca.key", certificate.with_suffix(".key").name)] == [0, 0]


def test_audit_log_leaves_out_every_part_but_not_people():
    silent = {user for rule in cluster.AUDIT_POLICY["rules"] if rule["level"] == "None" for user in rule.get("users", [])}
    assert {f"sandbox:{part}" for part in cluster.PARTS} <= silent
    assert "admin" not in silent
    assert cluster.AUDIT_POLICY["rules"][-1] == {"level": "Metadata"}


def test_control_plane_without_programs_says_what_to_run(tmp_path):
    with pytest.raises(ProcessError, match=r"found no .*/kubeall; needed: the sandbox's programs; run: python -m sandbox build"):
        cluster.ControlPlane(tmp_path / "c", binary=tmp_path / "kubeall").start()
    assert not (tmp_path / "c").exists()


def test_karpenter_definitions_can_be_adopted_by_its_chart(tmp_path):
    for folder, name in (("share/crds/karpenter", "nodepools"), ("own", "others")):
        (tmp_path / folder).mkdir(parents=True)
        crd = {"kind": "CustomResourceDefinition", "metadata": {"name": name, "annotations": {"kept": "yes"}}, "spec": {"names": {"kind": name}}}
        (tmp_path / folder / "crd.yaml").write_text(yaml.safe_dump(crd))
    found = {d["metadata"]["name"]: d["metadata"] for d in objects.custom_resource_definitions(tmp_path / "share", tmp_path / "own")}
    assert found["nodepools"]["labels"] == {"app.kubernetes.io/managed-by": "Helm"}
    assert found["nodepools"]["annotations"] == {
        "kept": "yes", "meta.helm.sh/release-name": "karpenter-crd", "meta.helm.sh/release-namespace": "kube-system",
    }  # fmt: skip
    assert "labels" not in found["others"]


def test_prometheus_reads_what_the_stand_ins_write(tmp_path):
    configuration = yaml.safe_load(prometheus.write_configuration(tmp_path, {"keda": "127.0.0.1:18090"}).read_text())
    assert configuration["rule_files"] == [f"{tmp_path}/rules/*.yaml"]
    assert configuration["scrape_config_files"] == [f"{tmp_path}/scrape/*.yaml"]
    assert (tmp_path / "rules").is_dir()
    assert (tmp_path / "scrape").is_dir()
    (own,) = configuration["scrape_configs"]
    assert (own["job_name"], own["static_configs"]) == ("keda", [{"targets": ["127.0.0.1:18090"]}])
    # Karpenter's answer is large; only pods are read as often as a demonstration needs.
    assert (own["scrape_interval"], configuration["global"]["scrape_interval"]) == ("30s", "2s")


def test_commands_on_a_sandbox_that_is_down(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LLMOPS_SANDBOX_DIR", str(tmp_path))
    assert main(["status"]) == 3
    assert main(["down"]) == 0
    capsys.readouterr()
    for command in (["writes"], ["env"], ["exec", "--", "true"]):
        assert main(command) == 1
        assert f"found no sandbox that is up in {tmp_path}; run `python -m sandbox up` first" in capsys.readouterr().err


def test_exec_needs_a_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LLMOPS_SANDBOX_DIR", str(tmp_path))
    assert main(["exec", "--"]) == 1
    assert "exec: found no command" in capsys.readouterr().err
