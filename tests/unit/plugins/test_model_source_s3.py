# SPDX-License-Identifier: GPL-3.0-or-later
"""A model's description from S3, spoken with the sandbox's double: what is asked, what is refused, and that weights are never read."""

from __future__ import annotations

import struct
import time

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _checkpoint_places as places
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import parameters
from ansible_collections.llmops.eks.plugins.module_utils._model_source import Readers, find
from checkpoint_samples import INDEXED, NAMES, SINGLE, SIZE, checks, closed_port, item, shard

from sandbox.aws.running import running_aws


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    with running_aws(tmp_path_factory.mktemp("aws")) as running:
        running.client("s3").create_bucket(Bucket="acme")
        yield running


class Wire:
    """Readers of the double; counts the requests and the bytes that came back."""

    def __init__(self, running, monkeypatch):
        running.control.reset()
        self.double, self.requests, self.received = running, [], 0
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        self.s3 = running.client("s3")
        for left in self.s3.list_objects_v2(Bucket="acme").get("Contents", []):
            self.s3.delete_object(Bucket="acme", Key=left["Key"])
        client = places.s3_client({})
        client.meta.events.register("before-send.s3", lambda request, **_: self.requests.append((request.method, request.url.partition("?")[0])))
        client.meta.events.register("after-call.s3", self._count)
        self.readers = Readers(s3=lambda bucket, prefix: places.S3Folder(client, bucket, prefix))

    def _count(self, http_response, **_):
        self.received += int(http_response.headers.get("Content-Length") or 0)

    def put(self, files, prefix="model/"):
        for path, content in files.items():
            self.s3.put_object(Bucket="acme", Key=prefix + path, Body=content)

    def find(self, source="s3://acme/model/", **more):
        return find(item(source, **more), self.readers)


@pytest.fixture
def wire(double, monkeypatch):
    return Wire(double, monkeypatch)


def test_a_bucket_with_an_index_needs_three_small_requests(wire):
    wire.put(INDEXED)
    found = wire.find()
    assert (found.description.checkpoint_bytes, found.rows) == (SIZE, [])
    assert found.origin == "config.json and model.safetensors.index.json in s3://acme/model"
    assert len(wire.requests) == 3
    assert not [url for _method, url in wire.requests if url.endswith(".safetensors")]


def test_without_an_index_only_the_headers_are_read(wire, monkeypatch):
    weights = shard(NAMES)
    wire.put({"config.json": INDEXED["config.json"], "model.safetensors": weights})
    monkeypatch.setattr("ansible_collections.llmops.eks.plugins.module_utils._checkpoint.FIRST_READ", 1024)
    found = wire.find("s3://acme/model")
    assert found.description.checkpoint_bytes == SIZE
    header = struct.unpack("<Q", weights[:8])[0]
    assert [url.rsplit("/", 1)[1] for _method, url in wire.requests].count("model.safetensors") == 2
    assert wire.received < header + 3000 < len(weights) / 10  # listing, config.json and the header


def test_the_sample_bucket_of_the_sandbox_says_the_real_sizes(wire):
    llama, qwen = wire.find("s3://llm-weights/llama-3.1-8b/"), wire.find("s3://llm-weights/qwen3-32b/")
    assert llama.rows == qwen.rows == []
    for found in (llama, qwen):
        # The formula's count of the parameters times two agrees with the total in the index within the norms.
        assert parameters(found.description)[0] * 2 == pytest.approx(found.description.checkpoint_bytes, rel=1e-4)
    assert llama.description.checkpoint_bytes == 16_060_522_496
    assert wire.received < 10_000


@pytest.mark.parametrize(
    ("files", "source", "row", "words"),
    [
        ({k: v for k, v in INDEXED.items() if k != "config.json"}, "s3://acme/model/", "source_without_config", "which holds model-00001-of-00002.safetensors"),
        (INDEXED, "s3://acme/", "source_without_config", "which holds model/"),
        (INDEXED, "s3://acme/nothing/here", "source_without_config", "which holds no files"),
        ({k: v for k, v in INDEXED.items() if "00002-of" not in k}, "s3://acme/model/", "source_incomplete", "1 of the 2 files"),
        ({"config.json": INDEXED["config.json"], "tokenizer.json": b"{}"}, "s3://acme/model/", "source_incomplete", "no weights"),
        ({**SINGLE, "config.json": b"<html>"}, "s3://acme/model/", "source_unreadable", "no JSON object"),
        ({**SINGLE, "model.safetensors": b"version https://git-lfs.github.com/spec/v1"}, "s3://acme/model/", "source_unreadable", "does not begin as"),
        (INDEXED, "s3://acme-typo/model/", "source_missing", "no bucket acme-typo"),
    ],
)
def test_a_source_from_which_no_server_can_start_is_an_error(wire, files, source, row, words):
    wire.put(files)
    found = wire.find(source)
    assert found.description is None
    assert checks(found) == [(row, "error")]
    assert words in found.rows[0]["found"]


def test_a_config_that_says_too_little_is_a_warning_and_the_table_is_asked(wire):
    wire.put({**INDEXED, "config.json": b'{"architectures": ["LlamaForCausalLM"]}'}, "llama-3.1-8b/")
    found = wire.find("s3://acme/llama-3.1-8b/")
    assert checks(found) == [("config_incomplete", "warning"), ("model_taken_for", "info")]
    assert found.description.layers == 32


def test_without_the_right_to_list_the_files_are_read_directly(wire):
    wire.put(INDEXED)
    wire.double.control.deny("s3:ListBucket")
    found = wire.find()
    assert (found.description.checkpoint_bytes, found.rows) == (SIZE, [])
    wire.put(SINGLE, "single/")
    assert wire.find("s3://acme/single/").description.checkpoint_bytes == SIZE


def test_without_the_right_to_read_the_action_is_named_and_the_table_is_asked(wire):
    wire.put(INDEXED, "llama-3.1-8b/")
    wire.double.control.deny("s3:GetObject")
    found = wire.find("s3://acme/llama-3.1-8b/")
    assert checks(found) == [("source_unreadable", "warning"), ("model_taken_for", "info")]
    assert found.rows[0]["needed"] == "the IAM action(s) s3:GetObject"
    assert found.description.layers == 32
    wire.double.control.deny("s3:ListBucket")
    assert "s3:GetObject and s3:ListBucket" in wire.find("s3://acme/secret/").rows[0]["needed"]


def test_another_action_that_is_missing_is_named(wire):
    wire.put(INDEXED)
    message = "User: arn:aws:iam::1:user/me is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext"
    wire.double.control.fail("s3:GetObject", "AccessDenied", message, status=403, times=9)
    assert wire.find().rows[0]["needed"] == "the IAM action(s) kms:Decrypt"


def test_no_way_to_s3_is_said_quickly(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    begin = time.monotonic()
    keys = {"access_key": "modelsourcetestkey00", "secret_key": "modelsourcetestsecret000", "region": "eu-central-1"}
    for options, words in (
        ({}, "no credentials in options"),
        ({"profile": "nobody"}, "nobody"),
        ({**keys, "endpoint_url": f"http://127.0.0.1:{closed_port()}"}, "Could not connect to the endpoint"),
    ):
        found = find(item("s3://acme/model/"), Readers.of(options, base=tmp_path))
        assert checks(found) == [("source_unreadable", "warning"), ("model_unknown", "warning")]
        assert words in found.rows[0]["found"]
    assert time.monotonic() - begin < 20
