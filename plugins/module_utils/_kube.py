# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of the Kubernetes API for the action plugins: plain JSON over one kept-alive connection.

Who logs in, and how, is kubernetes.core's: its options, its environment variables and their order. Controller side only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
from ansible_collections.kubernetes.core.plugins.module_utils.k8s import client as k8s_client

try:
    import kubernetes
    import urllib3
    from kubernetes.config import kube_config
except ImportError:  # reported by connect()
    kubernetes = None

__all__ = ["AUTH_ARG_SPEC", "ApiError", "Cluster", "Kind", "KubeError", "connect", "environment", "poll"]

CONNECT_SECONDS = 10
READ_SECONDS = 60
PAGE = 500  # objects a page of a list
ANY = "*/*"  # accept: a container's log is no JSON
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML, too


class KubeError(Exception):
    """The cluster cannot be used at all; the text says what was found, needed and what to do."""

    @property
    def found(self) -> str:
        """Only what was found."""
        return str(self).partition("found ")[2].partition("; needed")[0] or str(self)


class ApiError(Exception):
    """The API server refused a request. `status` is the HTTP code, `reason` Kubernetes' word for it, `causes` status.details.causes.

    `body` is the whole answer; what stands behind a proxy path of the API server, such as Prometheus, has its own shape.
    """

    def __init__(self, method: str, path: str, status: int, body: Mapping[str, Any]) -> None:
        self.method, self.path, self.status, self.body = method, path, status, body
        self.reason: str = body.get("reason") or ""
        self.message: str = str(body.get("message") or body.get("error") or f"HTTP {status}")
        self.causes: list[dict[str, str]] = (body.get("details") or {}).get("causes") or []
        super().__init__(f"{method} {path}: {self.message}")


@dataclass(frozen=True)
class Kind:
    """One kind as the API server serves it. `group` is empty for the core API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...] = ()
    has_status: bool = False  # a controller writes .status through a subresource

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of a collection (no name) or of one object."""
        parts = ["apis" if self.group else "api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/" + "/".join(parts)


@dataclass
class Cluster:
    """A logged-in client. `calls` counts requests by method, dry runs as DRY."""

    client: Any
    calls: dict[str, int] = field(default_factory=dict)
    _kinds: dict[str, dict[str, Kind]] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.client.configuration.host

    @property
    def impersonates(self) -> bool:
        """Whether requests are made as another user. The library sends no such header with a websocket (exec, port-forward): that would be the real user."""
        return any(name.lower().startswith("impersonate-") for name in self.client.default_headers)

    def request(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None, content_type: str = "application/json", accept: str = ""
    ) -> Any:
        """Send one request, return the parsed answer. Raises ApiError for an answer that is no success, KubeError for none."""
        response = self._send(method, path, query, body, content_type, accept)
        raw, status = response.data, response.status
        proxied = "/proxy/" in path  # then the answer may be that of the service behind
        if status == 401 and not proxied:
            raise KubeError(
                f"Kubernetes API {self.host}: found HTTP 401 ({_status(raw).get('message') or 'no message'}); needed a login that the cluster knows; "
                "fix: make an access entry for the IAM principal (llmops.eks.eks_access_entry), or renew the token"
            )
        if 300 <= status < 400 and not proxied:
            raise self._no_api(f"a redirect to {(response.headers.get('Location') or 'nowhere').partition('?')[0]}")
        if status >= 300:
            raise ApiError(method, path, status, _status(raw))
        if accept == ANY:
            return raw.decode(errors="replace")
        try:
            return json.loads(raw)
        except ValueError as error:
            if proxied:
                raise
            raise self._no_api(f"no JSON but {raw[:60].decode(errors='replace').strip()!r}") from error

    def _no_api(self, found: str) -> KubeError:
        return KubeError(
            f"Kubernetes API {self.host}: found {found}; needed a Kubernetes API; fix: check host (options host, kubeconfig, context or K8S_AUTH_*)"
        )

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """GET, with None for 404."""
        try:
            return self.request("GET", path, query)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path: str, query: Mapping[str, Any] | None = None, cached: bool = False) -> list[dict[str, Any]]:
        """All objects of a collection, page by page; they do not carry their kind. Raises ApiError, also for 404.

        `cached` lets the API server answer from its cache, which is cheap for etcd and at most seconds old.
        """
        asked = {**(query or {}), "limit": PAGE, **({"resourceVersion": "0"} if cached else {})}
        found: list[dict[str, Any]] = []
        while True:
            page = self.request("GET", path, asked)
            found += page["items"] or []
            token = page["metadata"].get("continue")
            if not token:
                return found
            asked = {**(query or {}), "limit": PAGE, "continue": token}

    def find(self, api_version: str, kind: str, fresh: bool = False) -> Kind | None:
        """The kind as served, None if the server does not know it. One request a group and version; `fresh` asks again."""
        if fresh or api_version not in self._kinds:
            self._kinds[api_version] = {k.kind: k for k in self.kinds(api_version)}
        return self._kinds[api_version].get(kind)

    def kinds(self, api_version: str) -> list[Kind]:
        listed = self.get(f"/{'apis' if '/' in api_version else 'api'}/{api_version}") or {"resources": []}
        names = {r["name"] for r in listed["resources"]}
        return [
            Kind(api_version, r["kind"], r["name"], r["namespaced"], tuple(r["verbs"]), f"{r['name']}/status" in names)
            for r in listed["resources"]
            if "/" not in r["name"]
        ]

    def apply(self, path: str, body: Any, manager: str, force: bool, dry_run: bool) -> dict[str, Any]:
        """Server-side apply; unknown and duplicate fields are refused. Returns the object as it is (would be) afterwards."""
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        return self.request("PATCH", path, query, body, APPLY_PATCH)

    def _send(self, method: str, path: str, query: Mapping[str, Any] | None, body: Any, content_type: str, accept: str) -> Any:
        counted = "DRY" if query and "dryRun" in query else method
        self.calls[counted] = self.calls.get(counted, 0) + 1
        headers = {**self.client.default_headers, "Accept": accept or "application/json", "User-Agent": "llmops.eks"}
        for setting in self.client.configuration.auth_settings().values():
            if setting["in"] == "header" and setting["value"]:
                headers[setting["key"]] = setting["value"]
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            return self.client.rest_client.pool_manager.request(
                method,
                self.host + path + ("?" + urlencode(query) if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                redirect=False,
                # 429 is the API server's own "later", with the seconds in Retry-After.
                retries=urllib3.Retry(connect=1, read=1, status=5, other=0, status_forcelist=[429], allowed_methods=None, raise_on_status=False),
            )
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise KubeError(
                f"Kubernetes API {self.host}: found no answer ({cause}); needed a reachable API server; "
                "fix: check host, network and certificates (options host, kubeconfig, context, ca_cert or K8S_AUTH_*)"
            ) from error


def connect(params: Mapping[str, Any]) -> Cluster:
    """Log in with kubernetes.core's options (`params`), then K8S_AUTH_*, then in-cluster, then the kubeconfig. Sends nothing yet."""
    if kubernetes is None:
        raise KubeError(
            f"Python {sys.executable}: found no 'kubernetes' library; needed kubernetes>=29; fix: {sys.executable} -m pip install 'kubernetes<37.0.2'"
        )
    # The public get_api_client() would list all API groups and keep them in a file under /tmp; only its login is wanted.
    auth = k8s_client._create_auth_spec(**{name: params.get(name) for name in AUTH_ARG_SPEC})
    try:
        configuration = k8s_client._create_configuration(auth)
    except (kubernetes.config.ConfigException, OSError) as error:
        where = f" in {params['kubeconfig']}" if isinstance(params.get("kubeconfig"), str) else ""
        raise KubeError(
            f"Kubernetes login: found none{where} ({error}); needed a kubeconfig, or host with api_key or certificate; "
            "fix: set kubeconfig or K8S_AUTH_KUBECONFIG, or host and api_key"
        ) from error
    client = kubernetes.client.ApiClient(configuration)
    for header, value in k8s_client._create_headers(**{name: params.get(name) for name in ("impersonate_user", "impersonate_groups")}).items():
        k8s_client._set_header(client, header, value)
    return Cluster(client)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """A task's `environment:` for the time of a block, as a module would see it (KUBECONFIG, K8S_AUTH_*, AWS_PROFILE of exec logins)."""
    saved = dict(os.environ)
    os.environ.update({key: str(value) for key, value in values.items()})
    location = kube_config.KUBE_CONFIG_DEFAULT_LOCATION if kubernetes else None
    if kubernetes:  # the library reads KUBECONFIG once, at its import
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "~/.kube/config")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
        if kubernetes:
            kube_config.KUBE_CONFIG_DEFAULT_LOCATION = location


def poll(seconds: float, first: float = 0.1, longest: float = 2.0) -> Iterator[float]:
    """Yield the seconds gone, at once and then after growing pauses, until `seconds` have passed."""
    start, pause = time.monotonic(), first
    while True:
        gone = time.monotonic() - start
        yield gone
        if gone >= seconds:
            return
        time.sleep(min(pause, max(0.0, seconds - gone)))
        pause = min(pause * 1.5, longest)


def _status(raw: bytes) -> dict[str, Any]:
    """The Status object of a refusal; proxies in front of the API server answer with something else."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {"message": raw.decode(errors="replace")[:300]}
    return body if isinstance(body, dict) else {"message": str(body)}
