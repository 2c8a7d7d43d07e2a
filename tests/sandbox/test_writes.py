# SPDX-License-Identifier: GPL-3.0-or-later
import json

import pytest

from sandbox import writes


def event(verb="create", uri="/api/v1/namespaces?fieldManager=x", resource="namespaces", code=201, **reference):
    """An event as the API server writes it at level Metadata (Kubernetes v1.36.3), reduced to what is read."""
    return {
        "kind": "Event", "stage": "ResponseComplete", "verb": verb, "requestURI": uri, "user": {"username": "admin"},
        "objectRef": {"resource": resource, "apiVersion": "v1", **reference}, "responseStatus": {"metadata": {}, "code": code},
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete", "deletecollection"])
def test_mutating_verbs_count(verb):
    assert writes.is_write(event(verb))


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
def test_reads_do_not(verb):
    assert not writes.is_write(event(verb, code=200))


@pytest.mark.parametrize("uri", ["/api/v1/namespaces?dryRun=All", "/api/v1/namespaces?fieldManager=x&dryRun=All&force=true"])
def test_dry_runs_do_not(uri):
    assert not writes.is_write(event("patch", uri))


@pytest.mark.parametrize("code", [403, 404, 409, 422, 500])
def test_refused_calls_do_not(code):
    assert not writes.is_write(event(code=code))


@pytest.mark.parametrize(
    ("resource", "subresource"), [("selfsubjectaccessreviews", ""), ("pods", "exec"), ("pods", "portforward"), ("serviceaccounts", "token")]
)
def test_what_is_not_stored_does_not(resource, subresource):
    assert not writes.is_write(event(resource=resource, subresource=subresource))


@pytest.mark.parametrize(("resource", "subresource"), [("pods", "eviction"), ("deployments", "scale"), ("nodes", "status")])
def test_stored_subresources_do(resource, subresource):
    assert writes.is_write(event(resource=resource, subresource=subresource))


def test_log_is_counted_by_verb_and_resource_without_an_unfinished_line():
    lines = [json.dumps(e) + "\n" for e in (event(), event("patch"), event("patch"), event("get"))] + ['{"kind":"Ev']
    assert writes.of_kubernetes(lines) == {"create namespaces": 1, "patch namespaces": 2}


def test_aws_counts_only_the_given_access_key():
    calls = {"writes": {"PEOPLE": 3, "KARPENTER": 40}, "calls": []}
    assert writes.of_aws(calls, "PEOPLE") == 3
    assert writes.of_aws(calls, "NOBODY") == 0
