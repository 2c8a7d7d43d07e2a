# SPDX-License-Identifier: GPL-3.0-or-later
"""What endpoint_check makes of pods, Secrets and answers. The API server and the forwarded port are played here."""

import base64

import pytest
from ansible_collections.llmops.eks.plugins.action import endpoint_check

KEY = base64.b64encode(b"right\n").decode()
SECRET = {"api-key": KEY}
PARAMS = {"prompt": "The", "max_tokens": 8, "timeout": 5}
COMPLETION = {"choices": [{"text": " sky"}], "usage": {"completion_tokens": 1}}


def pod(ready="True", **metadata):
    return {"metadata": {"name": "llama-1", **metadata}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


class Cluster:
    def __init__(self, pods, secret, impersonates=False):
        self.pods, self.secret, self.impersonates = pods, secret, impersonates

    def get(self, path, query=None):
        if path.endswith("/pods"):
            assert query["labelSelector"] == "app.kubernetes.io/name=vllm,app.kubernetes.io/instance=llama"
            return {"items": self.pods}
        return {"data": self.secret} if path.endswith("/secrets/llama-api-key") else None


@pytest.fixture
def ask(monkeypatch):
    """ask(pods, answers by key, ...) -> (answer, checks of the problems). An answer is (status, body) or an exception."""

    def call(pods=(), answers=None, secret=SECRET, idle_allowed=False, impersonates=False):
        def post(_cluster, _namespace, _pod, path, body, key, _seconds):
            assert (path, body["model"], body["max_tokens"]) == ("/v1/completions", "llama-3", 8)
            answer = (answers or {})[key]
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(endpoint_check, "post", post)
        endpoint = {"name": "llama", "namespace": "ns", "model": "llama-3", "idle_allowed": idle_allowed}
        endpoint["api_key_secret"] = {"name": "llama-api-key", "key": "api-key"} if secret is not None else None
        answer, rows = endpoint_check.ask(Cluster(list(pods), secret, impersonates), endpoint, PARAMS)
        return answer, [(row["check"], row["severity"]) for row in rows], " ".join(f"{row['found']} {row['fix']}" for row in rows)

    return call


def test_a_completion_with_the_key_and_a_refusal_without(ask):
    answer, rows, _text = ask([pod()], {"right": (200, COMPLETION), "not-the-key": (401, {})})
    assert rows == []
    assert (answer["pod"], answer["text"], answer["completion_tokens"]) == ("llama-1", " sky", 1)


def test_a_model_without_a_key_is_asked_without(ask):
    assert ask([pod()], {"": (200, COMPLETION)}, secret=None)[1] == []


def test_an_endpoint_that_takes_any_key_is_a_problem(ask):
    answer, rows, _text = ask([pod()], {"right": (200, COMPLETION), "not-the-key": (200, COMPLETION)})
    assert rows == [("endpoint_open", "error")]
    assert answer["text"] == " sky"


@pytest.mark.parametrize("pods", [[], [pod("False")], [pod(deletionTimestamp="2026-11-26T00:00:00Z")]])
def test_no_ready_pod_is_a_problem(ask, pods):
    assert ask(pods)[1] == [("endpoint_pod", "error")]


def test_a_model_at_zero_is_not_asked_but_one_that_does_not_become_ready_is_a_problem(ask):
    assert ask([], idle_allowed=True)[1] == [("endpoint_idle", "info")]
    assert ask([pod("False")], idle_allowed=True)[1] == [("endpoint_pod", "error")]


def test_a_secret_without_the_key_is_named(ask):
    _answer, rows, text = ask([pod()], secret={"other": KEY})
    assert rows == [("endpoint_key", "error")]
    assert "no key api-key in Secret ns/llama-api-key" in text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {"error": "Unauthorized"}), "reads the key only when it starts"),
        ((404, {"error": {"message": "no such model"}}), "compare served_model_name"),
        ((500, "boom"), "HTTP 500 from pod llama-1: boom read its log"),
    ],
)
def test_another_status_is_explained(ask, answer, says):
    _answer, rows, text = ask([pod()], {"right": answer})
    assert rows == [("endpoint_status", "error")]
    assert says in text


def test_a_port_that_does_not_answer_is_a_problem_with_its_pod(ask):
    answer, rows, text = ask([pod()], {"right": ConnectionResetError("reset")})
    assert (answer, rows) == ({"pod": "llama-1"}, [("endpoint_answer", "error")])
    assert "ConnectionResetError: reset from pod llama-1" in text


def test_a_port_forward_as_another_user_is_refused(ask):
    answer, rows, text = ask([pod()], impersonates=True)
    assert (answer, rows) == ({"pod": "llama-1"}, [("endpoint_login", "error")])
    assert "impersonate_user" in text
    assert ask([], idle_allowed=True, impersonates=True)[1] == [("endpoint_idle", "info")]
