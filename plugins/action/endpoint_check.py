# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""llmops.eks.endpoint_check, documented in plugins/modules/endpoint_check.py."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.eks.plugins.module_utils import _kube
from ansible_collections.llmops.eks.plugins.module_utils._problems import problem
from ansible_collections.llmops.eks.plugins.plugin_utils._action import Action, judged

try:
    from kubernetes import client as kube_api
    from kubernetes.stream import portforward
except ImportError:  # reported by _kube.connect()
    kube_api = portforward = None

ENDPOINT = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "model": {"type": "str", "required": True},
    "url": {"type": "str"},
    "idle_allowed": {"type": "bool", "default": False},
    # Not a secret but the name of one.
    "api_key_secret": {
        "type": "dict",
        "no_log": False,
        "options": {"name": {"type": "str", "required": True}, "key": {"type": "str", "default": "api-key", "no_log": False}},
    },
}
ARGUMENTS = {
    "endpoints": {"type": "list", "elements": "dict", "options": ENDPOINT, "required": True},
    "prompt": {"type": "str", "default": "The capital of France is"},
    "max_tokens": {"type": "int", "default": 8},
    "timeout": {"type": "int", "default": 60},
    **_kube.AUTH_ARG_SPEC,
}
PORT = 8000


class ActionModule(Action):
    """Asks each model for one completion."""

    ARGUMENTS = ARGUMENTS
    NOT_IN_CHECK_MODE = ("the models may not be there yet", {"endpoints": [], "problems": []})

    def act(self, params: dict[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        shown, rows = [], []
        cluster = _kube.connect(params)
        for endpoint in params["endpoints"]:
            answer, problems = ask(cluster, endpoint, params)
            shown.append({**{key: endpoint[key] for key in ("name", "namespace", "model", "url")}, **answer})
            rows += problems
        return judged(rows, "{n} model(s) do not answer as they should", endpoints=shown)


def ask(cluster: _kube.Cluster, endpoint: dict[str, Any], params: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """One completion with the key, and one with a wrong key that must be refused. Returns (answer, problems)."""
    name, namespace = endpoint["name"], endpoint["namespace"]
    pods = pods_of(cluster, namespace, name)
    pod = ready_pod(pods)
    if not pod and endpoint["idle_allowed"] and not pods:
        return {}, [problem("endpoint_idle", name, "no replica: it is scaled to zero", "none without requests", "nothing to do", "info")]
    if not pod:
        return {}, [
            problem(
                "endpoint_pod", name, f"no ready pod in {namespace}", "one", f"look at kubectl -n {namespace} describe pod -l app.kubernetes.io/instance={name}"
            )
        ]
    if cluster.impersonates:
        return {"pod": pod}, [
            problem(
                "endpoint_login",
                name,
                "impersonate_user or impersonate_groups, which a port-forward does not send",
                "the login of a user who may create pods/portforward",
                "log in as that user, without impersonation",
            )
        ]
    secret, key = endpoint["api_key_secret"], ""
    if secret:
        found = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{secret['name']}")
        if not found or secret["key"] not in (found.get("data") or {}):
            return {}, [
                problem(
                    "endpoint_key",
                    name,
                    f"no key {secret['key']} in Secret {namespace}/{secret['name']}",
                    "the API key",
                    "create it, or let the role vllm make one",
                )
            ]
        key = base64.b64decode(found["data"][secret["key"]]).decode().strip()
    body = {"model": endpoint["model"], "prompt": params["prompt"], "max_tokens": params["max_tokens"], "temperature": 0}
    started = time.monotonic()
    try:
        status, answer = post(cluster, namespace, pod, "/v1/completions", body, key, params["timeout"])
        seconds = round(time.monotonic() - started, 2)
        refusal = post(cluster, namespace, pod, "/v1/completions", body, "not-the-key", params["timeout"])[0] if key and status == 200 else 401
    except (OSError, ValueError, http.client.HTTPException, kube_api.ApiException) as error:
        return {"pod": pod}, [
            problem("endpoint_answer", name, f"{type(error).__name__}: {error} from pod {pod}", "an answer", f"look at kubectl -n {namespace} logs {pod}")
        ]
    if status != 200:
        said = answer.get("error", answer) if isinstance(answer, dict) else answer
        fix = (
            "compare served_model_name with what clients send"
            if status == 404
            else "let the pod restart: it reads the key only when it starts"
            if status == 401
            else "read its log"
        )
        return {"pod": pod}, [problem("endpoint_status", name, f"HTTP {status} from pod {pod}: {str(said)[:200]}", "HTTP 200 with a completion", fix)]
    rows = []
    if refusal != 401:
        rows.append(
            problem(
                "endpoint_open",
                name,
                f"HTTP {refusal} for a wrong API key from pod {pod}",
                "HTTP 401",
                "restart the pod, and check that VLLM_API_KEY is set in it",
            )
        )
    usage = answer.get("usage") or {}
    return {"pod": pod, "seconds": seconds, "completion_tokens": usage.get("completion_tokens"), "text": answer["choices"][0]["text"]}, rows


def pods_of(cluster: _kube.Cluster, namespace: str, name: str) -> list[dict[str, Any]]:
    """The model's pods that are not on their way out."""
    listed = cluster.get(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": f"app.kubernetes.io/name=vllm,app.kubernetes.io/instance={name}"})
    return [pod for pod in (listed or {}).get("items", []) if not pod["metadata"].get("deletionTimestamp")]


def ready_pod(pods: list[dict[str, Any]]) -> str | None:
    for pod in pods:
        conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
        if conditions.get("Ready") == "True":
            return pod["metadata"]["name"]
    return None


def post(cluster: _kube.Cluster, namespace: str, pod: str, path: str, body: dict[str, Any], key: str, seconds: int) -> tuple[int, Any]:
    """POST JSON to the pod's port through the API server. Returns (HTTP status, parsed body or text)."""
    forward = portforward(kube_api.CoreV1Api(cluster.client).connect_get_namespaced_pod_portforward, pod, namespace, ports=str(PORT))
    try:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=seconds)
        connection.sock = forward.socket(PORT)
        connection.sock.settimeout(seconds)
        headers = {"Content-Type": "application/json", "Host": "localhost", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        raw = response.read()
        refused = forward.error(PORT)
        if refused:
            raise OSError(refused)
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw.decode(errors="replace")
    finally:
        forward.close()
