# SPDX-License-Identifier: GPL-3.0-or-later
"""Instant queries, straight or through the API server when Prometheus' address only exists inside the cluster."""

from __future__ import annotations

import json
import ssl
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.urls import open_url

from ._kube import ApiError, Cluster


class PrometheusError(Exception):
    """Prometheus gave no answer, or refused the expression; the text says what was found, needed and what to do."""


class Prometheus:
    """`url` as a pod would use it. A host NAME.NAMESPACE.svc[.cluster.local] is asked through the API server's service proxy."""

    def __init__(self, url: str, cluster: Cluster) -> None:
        self.url, self.cluster = url.rstrip("/"), cluster
        parts = urlsplit(self.url)
        labels = (parts.hostname or "").removesuffix(".cluster.local").split(".")
        self.proxy = ""
        if len(labels) == 3 and labels[2] == "svc":
            scheme = "https:" if parts.scheme == "https" else ""
            self.proxy = f"/api/v1/namespaces/{labels[1]}/services/{scheme}{labels[0]}:{parts.port or 80}/proxy{parts.path}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector of an instant query; a scalar comes as a vector of one."""
        asked = {"query": expression}
        try:
            if self.proxy:
                answer = self.cluster.request("GET", f"{self.proxy}/api/v1/query", asked)
            else:
                with open_url(f"{self.url}/api/v1/query?{urlencode(asked)}", timeout=10) as response:
                    answer = json.load(response)
        except HTTPError as error:
            answer = _body(error)
        except ApiError as error:
            raise PrometheusError(f"found {error.message} at {self.url} through the API server; needed Prometheus; fix: check llm_prometheus_url") from error
        except (URLError, OSError, ssl.SSLError, ValueError) as error:
            raise PrometheusError(f"found {error} at {self.url}; needed an answer of Prometheus; fix: check llm_prometheus_url") from error
        if answer.get("status") != "success":
            raise PrometheusError(f"found {answer.get('error', answer)} for {expression}; needed valid PromQL; fix: correct the query")
        data = answer["data"]
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]


def _body(error: HTTPError) -> dict[str, Any]:
    """Prometheus refuses an expression with JSON; something else in between answers with anything."""
    try:
        answer = json.load(error)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"error": f"HTTP {error.code}"}
