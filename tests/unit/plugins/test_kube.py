# SPDX-License-Identifier: GPL-3.0-or-later
"""What the client makes of answers that are none of a Kubernetes API, and of a login that is refused. A small HTTP server plays them."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _kube

UNAUTHORIZED = b'{"kind": "Status", "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401}'
ANSWERS = {
    "/login": (401, UNAUTHORIZED),
    "/moved": (302, b""),
    "/html": (200, b"<!doctype html><title>Sign in</title>"),
    "/down": (503, b'{"message": "later", "reason": "ServiceUnavailable"}'),
    "/things?labelSelector=a%3Db&limit=500&resourceVersion=0": (200, b'{"items": [{"n": 1}], "metadata": {"continue": "more"}}'),
    "/things?labelSelector=a%3Db&limit=500&continue=more": (200, b'{"items": [{"n": 2}], "metadata": {}}'),
    "/nothing?limit=500": (200, b'{"items": null, "metadata": {}}'),
    "/services/p:80/proxy/query": (400, b'{"status": "error", "errorType": "bad_data", "error": "parse error"}'),
    "/services/p:80/proxy/login": (401, b"Unauthorized"),
    "/services/p:80/proxy/moved": (302, b""),
    "/services/p:80/proxy/html": (200, b"<html>"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = ANSWERS[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "https://sso.example.com/start?state=secret")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def cluster():
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield _kube.connect({"host": f"http://127.0.0.1:{server.server_port}", "api_key": "t"})
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "found", "fix"),
    [
        ("/login", "HTTP 401 (Unauthorized)", "access entry for the IAM principal"),
        ("/moved", "a redirect to https://sso.example.com/start", "check host"),
        ("/html", "no JSON but '<!doctype html><title>Sign in</title>'", "check host"),
    ],
)
def test_no_kubernetes_api_or_no_login(cluster, path, found, fix):
    with pytest.raises(_kube.KubeError) as caught:
        cluster.get(path)
    assert caught.value.found == found
    assert "; needed a" in str(caught.value)
    assert fix in str(caught.value).partition("; fix: ")[2]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/down", 503, "later"),
        ("/services/p:80/proxy/query", 400, "parse error"),
        ("/services/p:80/proxy/login", 401, "Unauthorized"),
        ("/services/p:80/proxy/moved", 302, "HTTP 302"),
    ],
)
def test_other_refusals_keep_their_words_and_services_behind_the_proxy_theirs(cluster, path, status, message):
    with pytest.raises(_kube.ApiError) as caught:
        cluster.get(path)
    assert (caught.value.status, caught.value.message) == (status, message)


def test_a_service_behind_the_proxy_may_answer_with_anything(cluster):
    with pytest.raises(ValueError, match="Expecting value"):
        cluster.get("/services/p:80/proxy/html")


def test_impersonation_is_known(cluster):
    assert not cluster.impersonates
    assert _kube.connect({"host": cluster.host, "api_key": "t", "impersonate_user": "jane"}).impersonates


def test_a_list_is_read_page_by_page_and_only_the_first_from_the_cache(cluster):
    assert cluster.items("/things", {"labelSelector": "a=b"}, cached=True) == [{"n": 1}, {"n": 2}]
    assert cluster.items("/nothing") == []
