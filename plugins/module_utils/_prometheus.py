# SPDX-License-Identifier: GPL-3.0-or-later
"""Prometheus' HTTP API, straight or through the API server when Prometheus' address only exists inside the cluster."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.urls import open_url

from ._kube import ApiError, Cluster

WRONG_QUERY = (400, 422)  # Prometheus' codes for an expression that it cannot parse or evaluate


class PrometheusError(Exception):
    """Prometheus gave no answer, or refused the expression; the text says what was found, needed and what to do."""


class Prometheus:
    """`url` as a pod would use it. A host NAME.NAMESPACE.svc[.cluster.local] is asked through the API server's service proxy, without `headers`."""

    def __init__(self, url: str, cluster: Cluster, headers: Mapping[str, str] | None = None, validate_certs: bool = True) -> None:
        self.url, self.cluster, self.headers, self.validate_certs = url.rstrip("/"), cluster, headers, validate_certs
        parts = urlsplit(self.url)
        labels = (parts.hostname or "").removesuffix(".cluster.local").split(".")
        self.proxy = ""
        if len(labels) == 3 and labels[2] == "svc":
            scheme, port = ("https:", 443) if parts.scheme == "https" else ("", 80)
            self.proxy = f"/api/v1/namespaces/{labels[1]}/services/{scheme}{labels[0]}:{parts.port or port}/proxy{parts.path}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector of an instant query; a scalar comes as a vector of one."""
        data = self.get("query", {"query": expression})
        if data["resultType"] not in ("vector", "scalar"):
            raise PrometheusError(f"found a {data['resultType']} as result of {expression}; needed a vector or a scalar; fix: correct the query")
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]

    def get(self, what: str, asked: Mapping[str, str] | None = None) -> Any:
        """`data` of /api/v1/<what>. Raises PrometheusError."""
        path = f"/api/v1/{what}"
        try:
            if self.proxy:
                answer = self.cluster.request("GET", f"{self.proxy}{path}", asked)
            else:
                address = f"{self.url}{path}{'?' + urlencode(asked) if asked else ''}"
                with open_url(address, timeout=10, headers=dict(self.headers or {}), validate_certs=self.validate_certs) as response:
                    answer = json.load(response)
        except HTTPError as error:
            answer, asked = _body(error), asked if error.code in WRONG_QUERY else None
        except ApiError as error:
            if asked and error.status in WRONG_QUERY and error.body.get("status") == "error":  # Prometheus' own words
                raise PrometheusError(f"found {error.message} for {asked['query']}; needed valid PromQL; fix: correct the query") from error
            raise PrometheusError(f"found {error.message} at {self.url} through the API server; needed Prometheus; fix: check llm_prometheus_url") from error
        except (URLError, OSError, ssl.SSLError, ValueError) as error:
            raise PrometheusError(f"found {error} at {self.url}; needed an answer of Prometheus; fix: check llm_prometheus_url") from error
        if answer.get("status") != "success":
            told = answer.get("error", answer)
            if asked:
                raise PrometheusError(f"found {told} for {asked['query']}; needed valid PromQL; fix: correct the query")
            raise PrometheusError(f"found {told} at {self.url}{path}; needed that API of Prometheus; fix: check llm_prometheus_url and its login")
        return answer["data"]


def _body(error: HTTPError) -> dict[str, Any]:
    """Prometheus refuses an expression with JSON; something else in between answers with anything."""
    try:
        answer = json.load(error)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"error": f"HTTP {error.code}"}
