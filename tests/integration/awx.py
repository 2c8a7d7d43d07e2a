# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook as AWX does: by ansible-runner from a private data directory, with an inventory that is a program, survey answers as
extra variables marked unsafe, a bearer token instead of a kubeconfig, and nobody there to answer a prompt.

    python -m sandbox exec -- python tests/integration/awx.py [--playbook PLAYBOOK] [ARGUMENT ...]

runs site.yml (or another playbook) so on the cluster and the models of inventories/sandbox, with the arguments for ansible-playbook, and prints
`{"status", "stats", "changed", "failed", "artifacts", "output", "writes"}`, writes of the job alone, without those for its login. It differs from AWX: no
container, and the project is a link to this clone.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ansible_runner
import yaml

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = "awx"
# As AWX puts the path together from ansible.cfg of the project.
COLLECTIONS = ".collections:~/.ansible/collections:/usr/share/ansible/collections"


class Unsafe(str):
    """A survey answer: templates in it stay text."""

    __slots__ = ()


yaml.SafeDumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value), style="'"))


@contextmanager
def credential(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """What AWX sets for a credential of the type "OpenShift or Kubernetes API Bearer Token": a ServiceAccount of ours that may do everything.

    It is gone afterwards. Raises CalledProcessError when kubectl fails.
    """
    with tempfile.TemporaryDirectory(prefix="awx-ca-") as folder:
        try:
            yield _log_in(env, Path(folder) / "ca.crt")
        finally:
            _remove_account(env)


def _log_in(env: Mapping[str, str], authority: Path) -> dict[str, str]:

    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return subprocess.run(["kubectl", *arguments], env=dict(env), input=stdin, capture_output=True, text=True, check=True).stdout

    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": "default"}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
    }  # fmt: skip
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [account, binding]}))
    cluster = json.loads(kubectl("config", "view", "--raw", "--flatten", "-o", "json"))["clusters"][0]["cluster"]
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    return {
        "K8S_AUTH_HOST": cluster["server"],
        "K8S_AUTH_API_KEY": kubectl("create", "token", ACCOUNT, "--namespace=default").strip(),
        "K8S_AUTH_VERIFY_SSL": "True",
        "K8S_AUTH_SSL_CA_CERT": str(authority),
    }


def _remove_account(env: Mapping[str, str]) -> None:
    for kind in ("clusterrolebinding", "serviceaccount"):
        subprocess.run(["kubectl", "delete", kind, ACCOUNT, "--ignore-not-found", "--namespace=default"], env=dict(env), capture_output=True, check=True)


def run(folder: Path, env: Mapping[str, str], survey: Mapping[str, Any], arguments: str = "", playbook: str = "site.yml") -> dict[str, Any]:
    """Run it with its private data in `folder`, which must be empty. `env`: the sandbox's variables with a login as `credential` returns it.

    Returns `status` ("successful", "failed", "timeout"), `stats` {"ok", "changed", "failures", ...}, `changed` (names of tasks but those with
    no_log), `failed` ("task: result"), `artifacts` (set_stats) and `output`.
    """
    for name in ("env", "inventory"):
        (folder / name).mkdir()
    (folder / "project").symlink_to(ROOT)
    # An inventory of the project is synchronised by ansible-inventory, and handed to the job as a program that prints it.
    exported = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventories/sandbox", "--list", "--export"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (folder / "inventory.json").write_text(exported)
    hosts = folder / "inventory" / "hosts"
    hosts.write_text('#!/bin/sh\nexec cat "$(dirname "$0")/../inventory.json"\n')
    hosts.chmod(0o755)
    answers = {key: Unsafe(value) if isinstance(value, str) else value for key, value in survey.items()}
    (folder / "env" / "extravars").write_text(yaml.safe_dump({**answers, "awx_job_template_name": "llm site", "awx_user_name": "admin"}))
    (folder / "env" / "cmdline").write_text(f"-u root {arguments}")
    # idle_timeout: a prompt would wait for ever.
    (folder / "env" / "settings").write_text(json.dumps({"idle_timeout": 300, "job_timeout": 900, "suppress_ansible_output": True}))
    without_kubeconfig = {key: value for key, value in env.items() if key != "KUBECONFIG"}
    variables = {**without_kubeconfig, "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS, "ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "1"}
    (folder / "env" / "envvars").write_text(json.dumps(variables))
    inherited = os.environ.pop("KUBECONFIG", None)
    try:
        done = ansible_runner.run(private_data_dir=str(folder), playbook=playbook, ident="1", quiet=True)
    finally:
        if inherited is not None:
            os.environ["KUBECONFIG"] = inherited
    ended = [(event["event"], event["event_data"].get("task"), event["event_data"].get("res") or {}) for event in done.events]
    changed = [task for kind, task, result in ended if kind == "runner_on_ok" and result.get("changed")]
    failed = [f"{task}: {result.get('msg') or result}" for kind, task, result in ended if kind in ("runner_on_failed", "runner_on_unreachable")]
    final = [event["event_data"] for event in done.events if event["event"] == "playbook_on_stats"]
    stats = {key: sum(final[0].get(key, {}).values()) for key in ("ok", "changed", "failures", "dark", "skipped")} if final else {}
    artifacts = final[0].get("artifact_data", {}) if final else {}
    output = (folder / "artifacts" / "1" / "stdout").read_text()
    return {"status": done.status, "stats": stats, "changed": changed, "failed": failed, "artifacts": artifacts, "output": output}


def main() -> int:
    # What a survey asks for, as text; the same values as the inventory's.
    survey = {
        "llm_cluster_name": os.environ["LLM_CLUSTER_NAME"], "llm_region": os.environ["AWS_REGION"], "llm_namespace": "llm-serving",
        "karpenter_gpu_fast_image_pull": "true", "keda_scaler_install": "true", "vllm_verify": "true", "vllm_node_start_seconds": "900",
    }  # fmt: skip
    sys.path.insert(0, str(ROOT))
    from sandbox import lifecycle, settings

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--playbook", default="site.yml")
    options, arguments = parser.parse_known_args()
    with credential(os.environ) as login, tempfile.TemporaryDirectory() as folder:
        before = lifecycle.count_writes(settings.state_directory())
        done = run(Path(folder), {**os.environ, **login}, survey, shlex.join(arguments), options.playbook)
        after = lifecycle.count_writes(settings.state_directory())
    print(json.dumps({**done, "writes": {place: after[place] - before[place] for place in ("kubernetes", "aws")}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
