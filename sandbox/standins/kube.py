# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk to the API server in plain dicts: requests that retry while it restarts, watches that never give up, events.

Connection and credentials are the official Kubernetes client's; its typed models are not used, because status patches need exactly the
fields that were meant and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config

LOG = logging.getLogger("standins")
STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
RESYNC = 60  # seconds after which a watch lists again, so that a lost event cannot be lost for good
RETRY_FOR = 60.0  # seconds during which a request is repeated while the API server does not answer

Object = dict[str, Any]


class KubeError(RuntimeError):
    """The API server refused; `code` is the HTTP status, the message is the server's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def now() -> str:
    """The time as Kubernetes writes it, whole seconds in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def path_of(api_version: str, plural: str, namespace: str = "", name: str = "") -> str:
    """URL path: ``path_of("v1", "pods", "web", "a")`` is ``/api/v1/namespaces/web/pods/a``."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    return root + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")


def key_of(item: Object) -> tuple[str, str]:
    """(namespace, name) of an object; namespace "" for cluster-wide ones."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class Kube:
    """The API server of one kubeconfig. Safe for many threads. `closing` ends retries and watches."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = Path(kubeconfig)
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings)
        settings.connection_pool_maxsize = 64
        self._api = client.ApiClient(settings)
        self.closing = threading.Event()

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: urllib3.Timeout | float = 30.0,
    ) -> urllib3.BaseHTTPResponse:
        url = self._api.configuration.host + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        for setting in self._api.configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        data = None if body is None else json.dumps(body)
        response = self._api.rest_client.pool_manager.request(method, url, body=data, headers=headers, timeout=timeout, preload_content=False, retries=False)
        if response.status >= 300:
            text = response.read().decode(errors="replace")
            with contextlib.suppress(ValueError, AttributeError):  # a proxy's answer may be no JSON
                text = json.loads(text).get("message", text)
            raise KubeError(response.status, text)
        return response

    def request(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, content_type: str = "application/json") -> Object:
        """One request, repeated while the server cannot be reached or is starting. Raises KubeError when it refuses, OSError after a minute."""
        deadline = time.monotonic() + RETRY_FOR
        while True:
            try:
                return json.loads(self._send(method, path, query, body, content_type).read())
            except KubeError as error:
                if error.code not in (429, 500, 503) or time.monotonic() > deadline or self.closing.is_set():
                    raise
            except urllib3.exceptions.HTTPError as error:
                if time.monotonic() > deadline or self.closing.is_set():
                    raise OSError(f"{method} {path}: the API server does not answer: {error}") from error
            self.closing.wait(0.5)

    def get(self, path: str) -> Object | None:
        """The object, or None when there is none (or its kind is not installed)."""
        try:
            return self.request("GET", path)
        except KubeError as error:
            if error.code == 404:
                return None
            raise

    def items(self, path: str, query: dict[str, Any] | None = None) -> list[Object]:
        """The objects of a list; empty when the kind is not installed."""
        try:
            return self.request("GET", path, query).get("items", [])
        except KubeError as error:
            if error.code == 404:
                return []
            raise

    def patch(self, path: str, body: Object, content_type: str = STRATEGIC) -> Object | None:
        """Patch; None when the object is gone."""
        try:
            return self.request("PATCH", path, body=body, content_type=content_type)
        except KubeError as error:
            if error.code == 404:
                return None
            raise

    def apply(self, path: str, body: Object) -> Object:
        """Server-side apply as field manager `standins`, taking over what others own."""
        return self.request("PATCH", path, {"fieldManager": "standins", "force": "true"}, body, APPLY)

    def delete(self, path: str, grace_seconds: int | None = None, uid: str = "") -> None:
        """Delete; gone already, or replaced by an object with another `uid`, is fine."""
        options: Object = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, body=options)
        except KubeError as error:
            if error.code not in (404, 409):
                raise

    def event(self, item: Object, kind: str, event_type: str, reason: str, message: str, component: str = "kubelet") -> None:
        """Record an event on `item` (`event_type` Normal or Warning). Lost events are only logged: they are advice, not state."""
        namespace, name = key_of(item)
        body = {
            "metadata": {"generateName": f"{name}.", "namespace": namespace or "default"},
            "involvedObject": {
                "apiVersion": item.get("apiVersion", "v1"),
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "uid": item["metadata"].get("uid", ""),
            },
            "type": event_type,
            "reason": reason,
            "message": message[:1000],
            "source": {"component": component},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        try:
            self.request("POST", path_of("v1", "events", namespace or "default"), body=body)
        except (KubeError, OSError) as error:
            LOG.info("event %s for %s/%s was not written: %s", reason, namespace, name, error)

    def stream(self, path: str, resource_version: str) -> Iterator[tuple[str, Object]]:
        """(type, object) of a watch until the server ends it, at the latest after RESYNC seconds."""
        query = {"watch": "1", "resourceVersion": resource_version, "timeoutSeconds": RESYNC, "allowWatchBookmarks": "true"}
        response = self._send("GET", path, query, timeout=urllib3.Timeout(connect=5, read=RESYNC + 15))
        try:
            pending = b""
            for chunk in response.stream(65536, decode_content=True):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # as 410 Gone: list again
                        return
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
                if self.closing.is_set():
                    return
        finally:
            response.close()


class Cache(threading.Thread):
    """A mirror of all objects of one kind that follows the API server through restarts.

    `on_change(key, object or None)` is called in this thread for every object that came, changed or went (None). A kind that is not
    installed counts as having no objects and is looked for again. An exception in a callback is logged and the object is offered again
    at the next resync.
    """

    def __init__(self, kube: Kube, api_version: str, plural: str, on_change: Callable[[tuple[str, str], Object | None], None] | None = None) -> None:
        super().__init__(name=f"watch-{plural}", daemon=True)
        self.kube = kube
        self.api_version = api_version
        self.path = path_of(api_version, plural)
        self.on_change = on_change or (lambda key, item: None)
        self.objects: dict[tuple[str, str], Object] = {}
        self.listed = threading.Event()
        self._lock = threading.Lock()

    def all(self) -> list[Object]:
        """A snapshot of the objects."""
        with self._lock:
            return list(self.objects.values())

    def get(self, namespace: str, name: str) -> Object | None:
        """One object of the mirror."""
        with self._lock:
            return self.objects.get((namespace, name))

    def run(self) -> None:
        while not self.kube.closing.is_set():
            try:
                self._follow()
            except KubeError as error:
                if error.code == 404:
                    self._replace([])
                else:
                    LOG.warning("%s: %s", self.path, error)
                self.kube.closing.wait(1.0)
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                LOG.info("%s: watch interrupted: %s", self.path, error)
                self.kube.closing.wait(1.0)

    def _follow(self) -> None:
        answer = json.loads(self.kube._send("GET", self.path).read())
        # Items of a list carry neither apiVersion nor kind.
        self._replace([{"apiVersion": self.api_version, "kind": answer["kind"].removesuffix("List"), **item} for item in answer["items"]])
        for event, item in self.kube.stream(self.path, answer["metadata"]["resourceVersion"]):
            self._set(key_of(item), None if event == "DELETED" else item)

    def _replace(self, items: list[Object]) -> None:
        fresh = {key_of(item): item for item in items}
        for key in set(self.objects) - set(fresh):
            self._set(key, None)
        for key, item in fresh.items():
            self._set(key, item)
        self.listed.set()

    def _set(self, key: tuple[str, str], item: Object | None) -> None:
        with self._lock:
            if item is None:
                self.objects.pop(key, None)
            else:
                self.objects[key] = item
        try:
            self.on_change(key, item)
        except Exception:
            LOG.exception("%s %s/%s", self.path, *key)
