# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left to say of a batch when the API server refuses, or does not answer, in the middle of it. The API server is played here."""

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _apply_absent, _apply_batch, _apply_errors, _apply_present, _apply_prune
from ansible_collections.llmops.eks.plugins.module_utils._kube import ApiError, Kind, KubeError

RESET = KubeError("Kubernetes API https://k: found no answer (connection reset); needed a reachable API server; fix: check host")
PRUNE = {"api_version": "v1", "kind": "ConfigMap", "namespace": "ns", "label_selector": "app=a"}


def config_map(name):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {"k": "v"}}


class Cluster:
    """`there`: names of the ConfigMaps that exist. `writes`: an answer or exception for the first, second ... write."""

    def __init__(self, *writes, there=(), listed=None):
        self.writes, self.there, self.listed = list(writes), there, listed

    def find(self, api_version, kind, fresh=False):
        return Kind(api_version, kind, "configmaps", True)

    def items(self, path, query):
        if isinstance(self.listed, Exception):
            raise self.listed
        return [self._object(name) for name in self.listed or ()]

    def get(self, path):
        name = path.rpartition("/")[2]
        return self._object(name) if name in self.there else None if "configmaps" in path else {"metadata": {}}

    def apply(self, path, body, manager, force, dry_run):
        return body if dry_run else self._write()

    def request(self, method, path, body=None):
        return self._write()

    def _object(self, name):
        return {**config_map(name), "metadata": {"name": name, "namespace": "ns", "uid": name}}

    def _write(self):
        answer = self.writes.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def batch(cluster, absent=False, **options):
    return _apply_batch.load(cluster, [config_map(name) for name in ("a", "b", "c")], _apply_batch.Options(**options), absent)


def check(refused, headline, subject):
    assert str(refused.value).startswith(headline)
    assert [(row["check"], row["subject"], row["found"]) for row in refused.value.rows] == [("no_answer", subject, "no answer (connection reset)")]


def test_no_answer_to_a_write_says_what_was_written():
    with pytest.raises(_apply_batch.Refused) as refused:
        _apply_present.run(batch(Cluster({}, RESET)))
    check(refused, "half-applied: written ConfigMap ns/a; not written ConfigMap ns/b, ConfigMap ns/c.", "ConfigMap ns/b")
    assert [row["action"] for row in refused.value.result["objects"]] == ["created", "unwritten", "unwritten"]


def test_no_answer_to_a_deletion_says_what_was_deleted():
    with pytest.raises(_apply_batch.Refused) as refused:
        _apply_absent.run(batch(Cluster({}, RESET, there="abc"), absent=True))
    check(refused, "half-deleted: deleted ConfigMap ns/c; stopped at ConfigMap ns/b.", "ConfigMap ns/b")


def test_no_answer_when_leftovers_are_deleted_says_that_the_rest_is_written():
    made = batch(Cluster(RESET, listed=["a", "old"]), prune=(PRUNE,))
    with pytest.raises(_apply_batch.Refused) as refused:
        _apply_prune.delete(made, _apply_prune.find(made))
    check(refused, "half-applied: everything is written, but ConfigMap ns/old is not deleted.", "ConfigMap ns/old")


def test_leftovers_that_may_not_be_listed_are_a_problem():
    with pytest.raises(_apply_batch.Refused) as refused:
        _apply_prune.find(batch(Cluster(listed=ApiError("GET", "/x", 403, {"message": "may not list"})), prune=(PRUNE,)))
    assert [(row["check"], row["subject"], row["found"]) for row in refused.value.rows] == [("forbidden", "ConfigMap with app=a", "may not list")]


@pytest.mark.parametrize(("status", "fix"), [(400, "correct the object"), (500, "run again; look at the API server or the webhook named in the message")])
def test_the_cure_is_at_the_side_that_failed(status, fix):
    (row,) = _apply_errors.rows(ApiError("PATCH", "/x", status, {"message": "failed calling webhook"}), "ConfigMap a", config_map("a"), None)
    assert (row["check"], row["fix"]) == ("refused", fix)
