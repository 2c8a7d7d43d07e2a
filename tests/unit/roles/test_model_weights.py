# SPDX-License-Identifier: GPL-3.0-or-later
import json

import pytest

LLAMA = {"name": "llama", "source": "s3://acme/llama/", "weights": {"mode": "volume", "size_gib": 15}}
QWEN = {"name": "qwen", "source": "hf://Qwen/Qwen3-32B@v1", "tensor_parallel_size": 4, "weights": {"size_gib": 61}}
STREAMED = {"name": "tiny", "source": "s3://acme/tiny/"}
OURS = {"app.kubernetes.io/managed-by": "llmops.eks"}


def claim(name, storage, **labels):
    return {"metadata": {"name": name, "labels": labels}, "spec": {"resources": {"requests": {"storage": storage}}}}


@pytest.fixture
def objects(render, planned):
    def call(*models, claims=(), **variables):
        known = {"__model_weights_copied": planned(*models), "__model_weights_claims": {"resources": list(claims)}}
        return render("model_weights", "objects.yaml.j2", **known, **variables)

    return call


def of_kind(objects, kind):
    return {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == kind}


def sizes(objects):
    return {name: spec["resources"]["requests"]["storage"] for name, spec in of_kind(objects, "PersistentVolumeClaim").items()}


def test_a_copied_model_has_a_claim_and_a_job(objects):
    made = objects(LLAMA, model_weights_exclude=["*.md"])
    assert [o["kind"] for o in made] == ["Namespace", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Job"]
    (pod,) = [job["template"]["spec"] for job in of_kind(made, "Job").values()]
    arguments = ["/program/copy_weights.py", "--source=s3://acme/llama/", "--target=/models/llama/main", "--workers=8", "--exclude=*.md"]
    assert pod["containers"][0]["args"] == arguments
    assert pod["serviceAccountName"] == "model-weights"
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "llama-weights"}


def test_another_revision_is_another_job(objects):
    names = {r: list(of_kind(objects({**LLAMA, "weights": {**LLAMA["weights"], "revision": r}}), "Job")) for r in ("v1", "v2")}
    assert names["v1"] != names["v2"]


def test_the_longest_name_leaves_a_job_name_that_fits_a_label(objects):
    (name,) = of_kind(objects({**LLAMA, "name": "n" * 50}), "Job")
    assert len(name) == 63


def test_a_claim_holds_two_revisions_of_each_of_its_models(objects):
    assert sizes(objects(LLAMA, QWEN)) == {"llama-weights": "30Gi", "qwen-weights": "122Gi"}
    shared = [{**m, "weights": {**m["weights"], "claim": "all"}} for m in (LLAMA, QWEN)]
    assert sizes(objects(*shared)) == {"all": "152Gi"}
    assert sizes(objects(LLAMA, model_weights_claim_gib="40")) == {"llama-weights": "40Gi"}


def test_a_claim_grows_and_does_not_shrink(objects):
    assert sizes(objects(LLAMA, claims=[claim("llama-weights", "44Gi", **OURS)])) == {"llama-weights": "44Gi"}
    assert sizes(objects(LLAMA, claims=[claim("llama-weights", "8Gi", **OURS)])) == {"llama-weights": "30Gi"}


def test_a_claim_of_somebody_else_is_used_as_it_is(objects):
    made = objects(LLAMA, claims=[claim("llama-weights", "8Gi"), claim("other", "1Gi", **{"app.kubernetes.io/managed-by": "Helm"})])
    assert sizes(made) == {}
    assert len(of_kind(made, "Job")) == 1


@pytest.fixture
def leaving(render, planned):
    def call(*models, claims=(), in_use=(), **variables):
        known = {"__model_weights_leaving": planned(*models), "__model_weights_claims": {"resources": list(claims)}, "__model_weights_claims_in_use": in_use}
        return claims_of(render("model_weights", "leaving.yaml.j2", **known, **variables))

    return call


def claims_of(objects):
    return [o["metadata"]["name"] for o in objects if o["kind"] == "PersistentVolumeClaim"]


def test_weights_are_removed_only_without_safe_mode_and_only_if_they_are_ours_and_unused(leaving):
    here = [claim("llama-weights", "30Gi", **OURS)]
    absent = {"name": "llama", "state": "absent"}
    assert leaving(absent, claims=here) == []
    assert leaving(absent, claims=here, model_weights_safe_mode="false") == ["llama-weights"]
    assert leaving(absent, claims=[claim("llama-weights", "30Gi")], model_weights_safe_mode=False) == []
    assert leaving(absent, claims=here, in_use=["llama-weights"], model_weights_safe_mode=False) == []


@pytest.fixture
def policy(render, planned):
    def call(*models, arn="arn:aws:sts::1:assumed-role/x/y", **variables):
        known = {"__model_weights_from_s3": planned(*models), "__model_weights_account": {"arn": arn, "account": "1"}}
        (document,) = render("model_weights", "policy.json.j2", **known, **variables)
        return json.loads(json.dumps(document))["Statement"]

    return call


def test_access_is_to_exactly_the_prefixes(policy):
    read, first, second = policy(LLAMA, STREAMED)
    assert (read["Action"], read["Resource"]) == ("s3:GetObject", ["arn:aws:s3:::acme/llama/*", "arn:aws:s3:::acme/tiny/*"])
    assert first["Condition"] == {"StringLike": {"s3:prefix": ["llama", "llama/*"]}}
    assert second["Resource"] == "arn:aws:s3:::acme"


def test_other_partitions_and_encrypted_buckets(policy):
    key = "arn:aws-us-gov:kms:us-gov-west-1:1:key/k"
    read, decrypt, listed = policy(LLAMA, arn="arn:aws-us-gov:sts::1:assumed-role/x/y", model_weights_kms_keys=[key])
    assert read["Resource"] == ["arn:aws-us-gov:s3:::acme/llama/*"]
    assert listed["Resource"] == "arn:aws-us-gov:s3:::acme"
    assert (decrypt["Action"], decrypt["Resource"]) == ("kms:Decrypt", [key])


def test_access_is_taken_from_pods_that_do_not_read_s3_any_more(value, planned):
    models = planned(LLAMA, QWEN, STREAMED)
    known = {
        "__model_weights_copied": [models[1]],
        "__model_weights_streamed": [models[2]],
        "__model_weights_names": [model["name"] for model in models],
    }
    assert value("model_weights", "__model_weights_no_readers", **known) == ["llama", "model-weights", "qwen"]
