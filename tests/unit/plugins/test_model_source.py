# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a model's description comes from: S3 (the sandbox's double), the hub (an HTTP double of it), the disk, a copy's record, the built-in table."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading

import pytest
from ansible_collections.llmops.eks.plugins.module_utils import _checkpoint_places as places
from ansible_collections.llmops.eks.plugins.module_utils._data import load
from ansible_collections.llmops.eks.plugins.module_utils._fit_weights import parameters
from ansible_collections.llmops.eks.plugins.module_utils._model_source import Readers, find
from checkpoint_samples import INDEX, INDEXED, LLAMA, NAMES, SINGLE, SIZE, checks, closed_port, item, shard

# --- nothing is asked ---------------------------------------------------------------------------------------------------


def test_without_any_input_only_the_item_and_the_table_answer():
    found = find(item("hf://Qwen/Qwen3-32B@main"), Readers.none())
    assert (found.description.layers, found.description.name, found.rows) == (64, "m", [])
    assert found.origin == f"entry Qwen/Qwen3-32B of the built-in table of {load('model_configs')['as_of']}"
    found = find(item("s3://acme/secret-7b/", config=LLAMA), Readers.none())
    assert (found.description.hidden, found.origin, found.rows) == (64, "config of the model item", [])


@pytest.mark.parametrize(
    ("source", "entry"),
    [
        ("s3://acme-models/llama-3.1-8b/", "meta-llama/Meta-Llama-3.1-8B"),
        ("s3://acme-models/team/Llama-3-1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("pvc://shared/models/llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("hf://unsloth/Qwen3-32B@main", "Qwen/Qwen3-32B"),
        ("s3://acme-models/qwen3-32b-fp8/", "Qwen/Qwen3-32B-FP8"),
        ("s3://acme-models/qwen2.5-7b-instruct-gptq/", None),  # other bytes: not the model without the suffix
        ("s3://acme-models/llama/", None),
        ("s3://acme-models/", None),
    ],
)
def test_a_source_is_taken_for_an_entry_only_when_its_name_means_exactly_one(source, entry):
    found = find(item(source), Readers.none())
    if entry is None:
        assert found.description is None
        assert checks(found) == [("model_unknown", "warning")]
        assert "set config" in found.rows[0]["fix"]
        return
    assert f"entry {entry} of the built-in table" in found.origin
    assert "is taken by its name" in found.origin
    assert checks(found) == [("model_taken_for", "info")]
    assert entry in found.rows[0]["fix"]


# --- config of the item ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    def write(files, name="model"):
        place = tmp_path / name
        place.mkdir()
        for path, content in files.items():
            (place / path).write_bytes(content)
        return place

    return write


def test_a_folder_with_an_index_and_one_whose_headers_must_be_read(folder, tmp_path):
    readers = Readers.of({}, base=tmp_path)
    indexed = find(item("pvc://c/x", config=str(folder(INDEXED))), readers)
    assert indexed.description.checkpoint_bytes == SIZE
    assert indexed.description.tensors is None
    assert indexed.origin == f"config.json and model.safetensors.index.json in {tmp_path / 'model'}"
    folder(SINGLE, "single")
    single = find(item("pvc://c/x", config="single/config.json"), readers)  # relative, and the file instead of its folder
    assert single.description.checkpoint_bytes == SIZE  # the consolidated copy is not counted again
    assert single.description.tensors["lm_head.weight"] == ("BF16", (512, 64))
    assert single.origin == f"config.json and the headers of 1 safetensors file(s) in {tmp_path / 'single'}"
    # What the headers say is what the formula counts, so neither was read wrongly; norms are counted by a rule of thumb.
    assert parameters(single.description)[0] == pytest.approx(SIZE / 2, rel=0.005)
    assert indexed.rows == single.rows == []


def test_an_index_tells_whether_the_layers_of_multi_token_prediction_are_there(folder, tmp_path):
    readers = Readers.of({}, base=tmp_path)
    files = {**INDEXED, "config.json": json.dumps({**LLAMA, "num_nextn_predict_layers": 1}).encode()}
    assert find(item("pvc://c/x", config=str(folder(files))), readers).description.mtp_layers == 0
    weight_map = {**INDEX["weight_map"], f"model.layers.{LLAMA['num_hidden_layers']}.eh_proj.weight": "model-00002-of-00002.safetensors"}
    files["model.safetensors.index.json"] = json.dumps({**INDEX, "weight_map": weight_map}).encode()
    assert find(item("pvc://c/x", config=str(folder(files, "whole"))), readers).description.mtp_layers == 1


def test_a_header_longer_than_the_first_read_and_an_index_without_a_total(folder, tmp_path):
    readers = Readers.of({}, base=tmp_path)
    long = {"config.json": INDEXED["config.json"], "model.safetensors": shard(NAMES, note="x" * 300_000)}
    assert find(item("pvc://c/x", config=str(folder(long, "long"))), readers).description.checkpoint_bytes == SIZE
    bare = {**INDEXED, "model.safetensors.index.json": json.dumps({"weight_map": INDEX["weight_map"]}).encode()}
    found = find(item("pvc://c/x", config=str(folder(bare, "bare"))), readers)
    assert found.description.checkpoint_bytes == SIZE
    assert "the headers of 2 safetensors file(s)" in found.origin


def test_a_config_without_weights_beside_it_and_under_another_name(folder, tmp_path):
    readers = Readers.of({}, base=tmp_path)
    place = folder({"config.json": INDEXED["config.json"], "tiny.json": json.dumps({**LLAMA, "num_hidden_layers": 3}).encode()})
    assert find(item("pvc://c/x", config=str(place)), readers).description.checkpoint_bytes is None
    other = find(item("pvc://c/x", config=str(place / "tiny.json")), readers)
    assert (other.description.layers, other.origin) == (3, f"tiny.json in {place}")


@pytest.mark.parametrize(
    ("given", "check", "words"),
    [
        ({"hidden_size": 64}, "config_incomplete", "has no architectures, num_attention_heads"),
        ({**LLAMA, "checkpoint_bytes": "many"}, "config", "checkpoint_bytes"),
        ({**LLAMA, "num_attention_heads": "four"}, "config_incomplete", "contradict"),
        ("missing/folder/of/mine", "config", "No such file or directory"),
        ("missing.json", "config", "no file missing.json"),
        ("nobody/novel-7b", "config", "no such model in the built-in table"),
    ],
)
def test_a_config_that_cannot_be_used_is_an_error_of_the_user(given, check, words, tmp_path):
    readers = Readers(local=Readers.of({}, base=tmp_path).local)
    found = find(item("hf://Qwen/Qwen3-32B", config=given), readers)
    assert found.description is None
    assert checks(found) == [(check, "error")]
    assert words in found.rows[0]["found"]


def test_bytes_written_as_text_and_the_name_of_another_model():
    found = find(item("s3://acme/secret-7b/", config={**LLAMA, "checkpoint_bytes": "123456"}), Readers.none())
    assert found.description.checkpoint_bytes == 123456
    found = find(item("s3://acme/secret-7b/", config="Qwen/Qwen3-8B"), Readers.none())
    assert (found.description.layers, found.rows) == (36, [])
    assert "entry Qwen/Qwen3-8B" in found.origin


# --- Mistral's own format -------------------------------------------------------------------------------------------------

SMALL_24B = {
    "dim": 5120,
    "n_layers": 40,
    "head_dim": 128,
    "hidden_dim": 32768,
    "n_heads": 32,
    "n_kv_heads": 8,
    "rope_theta": 1e9,
    "norm_eps": 1e-05,
    "vocab_size": 131072,
    "max_position_embeddings": 131072,
}


def test_params_json_gives_the_same_model_as_config_json(folder, tmp_path):
    """Mistral-Small-3.1's shapes in both words; and vLLM prefers this format where both lie in a folder."""
    params = {**SMALL_24B, "vision_encoder": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096, "patch_size": 14, "image_size": 1540}}
    place = folder({"params.json": json.dumps(params).encode(), "config.json": INDEXED["config.json"], "consolidated.safetensors": shard(NAMES)})
    found = find(item("pvc://c/x", config=str(place)), Readers.of({}, base=tmp_path))
    assert found.rows == []
    assert found.origin.startswith("params.json and the headers of 1 safetensors file(s)")
    described = found.description
    table = find(item("hf://mistralai/Mistral-Small-3.1-24B-Instruct-2503"), Readers.none()).description
    for field in ("hidden", "vocabulary", "layers", "heads", "kv_heads", "head_dim", "intermediate", "max_model_len", "attention", "tied_embeddings", "dtype"):
        assert getattr(described, field) == getattr(table, field), field
    assert described.vision.depth == 24
    assert described.unknown == ()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}, {"quantisation": "fp8", "architecture": "MistralForCausalLM"}),
        ({"quantization": {"qformat_weight": "int3"}}, {"quantisation": None}),
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2}}, {"architecture": "MixtralForCausalLM"}),
        ({"sliding_window": [4096, None], "max_position_embeddings": None}, {"max_model_len": 128_000}),
        ({"max_position_embeddings": None}, {"max_model_len": 128_000}),
    ],
)
def test_what_else_params_json_may_say(more, expected, folder, tmp_path):
    place = folder({"params.json": json.dumps({**SMALL_24B, **more}).encode(), "consolidated.safetensors": shard(NAMES)})
    described = find(item("pvc://c/x", config=str(place)), Readers.of({}, base=tmp_path)).description
    for field, value in expected.items():
        assert getattr(described, field) == value
    if "moe" in more:
        assert (described.experts.count, described.experts.per_token) == (8, 2)
    if isinstance(more.get("sliding_window"), list):
        assert {kind.kind: kind.count for kind in described.attention} == {"full": 20, "sliding": 20}
    if "int3" in str(more):
        assert described.unknown


def test_large_3_has_latent_attention_and_experts(folder, tmp_path):
    params = {
        "dim": 7168,
        "n_layers": 61,
        "head_dim": 128,
        "hidden_dim": 16384,
        "n_heads": 128,
        "n_kv_heads": 128,
        "vocab_size": 131072,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "kv_lora_rank": 512,
        "v_head_dim": 128,
        "max_position_embeddings": 294912,
        "moe": {"num_experts": 128, "num_experts_per_tok": 4, "expert_hidden_dim": 4096, "num_shared_experts": 1, "first_k_dense_replace": 3},
    }
    place = folder({"params.json": json.dumps(params).encode(), "consolidated.safetensors": shard(NAMES)})
    described = find(item("pvc://c/x", config=str(place)), Readers.of({}, base=tmp_path)).description
    assert (described.attention[0].kind, described.attention[0].latent) == ("mla", 576)
    assert (described.experts.count, described.experts.layers, described.experts.shared) == (128, 58, 4096)
    assert described.unknown == ()


# --- the Hugging Face hub -------------------------------------------------------------------------------------------------

needs_library = pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="huggingface_hub is not installed")


class HubDouble(http.server.BaseHTTPRequestHandler):
    """The paths of the hub that are used: a repository's description, and its files, with ranges. Tokens and redirects to storage are left out."""

    files = INDEXED
    seen: list[tuple[str, str | None, str | None]] = []

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.path.startswith("/api/models/acme/gone"):
            self._answer(401, b'{"error": "Invalid username or password."}', {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif self.path.startswith("/api/models/acme/model/revision/") and not self.path.startswith("/api/models/acme/model/revision/v1"):
            self._answer(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        elif self.path.startswith("/api/models/"):
            self._answer(200, json.dumps({"id": "acme/model", "sha": "c0ffee", "siblings": [{"rfilename": name} for name in self.files]}).encode())
        elif self.path.startswith("/acme/consent/resolve/"):
            self._answer(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model acme/consent is restricted"})
        elif "/resolve/c0ffee/" in self.path and (name := self.path.rsplit("/", 1)[1]) in self.files:
            content, asked = self.files[name], self.headers.get("Range")
            if asked:
                start, end = (int(number) for number in asked.removeprefix("bytes=").split("-"))
                content = content[start : end + 1]
            self._answer(206 if asked else 200, content)
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})

    def _answer(self, status, body, headers=None):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubDouble)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    HubDouble.files, HubDouble.seen = INDEXED, []
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_testtoken")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield HubDouble
    server.shutdown()
    server.server_close()


@needs_library
def test_the_hub_is_asked_at_the_revision_and_with_the_token(hub, tmp_path):
    found = find(item("hf://acme/model@v1"), Readers.of({}, base=tmp_path))
    assert (found.description.checkpoint_bytes, found.rows) == (SIZE, [])
    assert found.origin == "config.json and model.safetensors.index.json in hf://acme/model@v1"
    assert {authorization for path, _range, authorization in hub.seen if "acme" in path} == {"Bearer hf_testtoken"}
    hub.files = {name: content for name, content in SINGLE.items() if name != "consolidated.safetensors"}
    found = find(item("s3://acme/other/", config="acme/model"), Readers.of({}, base=tmp_path))
    assert found.description.checkpoint_bytes == SIZE
    assert [asked for path, asked, _token in hub.seen if path.endswith(".safetensors")] == ["bytes=0-131071"]


@needs_library
@pytest.mark.parametrize(
    ("source", "row", "severity", "words"),
    [
        ("hf://acme/model@v9", "source_missing", "error", "no such revision"),
        ("hf://acme/gone", "source_unreadable", "warning", "or a private one"),
        ("hf://acme/consent", "source_unreadable", "warning", "asks for consent"),
    ],
)
def test_what_the_hub_refuses(hub, tmp_path, source, row, severity, words):
    found = find(item(source), Readers.of({}, base=tmp_path))
    assert found.description is None
    assert checks(found)[0] == (row, severity)
    assert words in found.rows[0]["found"]


@needs_library
def test_a_hub_out_of_reach_is_tried_once_for_all_models(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    readers = Readers.of({}, base=tmp_path)
    library = importlib.import_module("huggingface_hub").HfApi
    asked, ask = [], library.model_info
    monkeypatch.setattr(library, "model_info", lambda self, name, **options: asked.append(name) or ask(self, name, **options))
    known, unknown = find(item("hf://Qwen/Qwen3-32B@main"), readers), find(item("hf://acme/model"), readers)
    assert asked == ["Qwen/Qwen3-32B"]
    assert (known.description.layers, checks(known)) == (64, [("hub_unreachable", "info")])
    assert (unknown.description, checks(unknown)) == (None, [("hub_unreachable", "warning"), ("model_unknown", "warning")])
    assert "no answer from the Hugging Face hub" in known.rows[0]["found"]


def test_offline_by_choice_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = find(item("hf://acme/model"), Readers.of({}, base=tmp_path))
    assert "HF_HUB_OFFLINE" in found.rows[0]["found"]


# --- what a copy said of itself -------------------------------------------------------------------------------------------


class Pods:
    """The part of _kube.Cluster that is used."""

    def __init__(self, *pods):
        self.pods, self.asked = pods, []

    def get(self, path, query=None):
        self.asked.append((path, query))
        return {"items": list(self.pods)}


def pod(message, created="2026-11-01T00:00:00Z", target="/models/m/v1"):
    terminated = {"exitCode": 0, "message": message}
    return {
        "metadata": {"creationTimestamp": created},
        "spec": {"containers": [{"args": ["/program/copy_weights.py", "--source=hf://acme/model@v1", f"--target={target}"]}]},
        "status": {"containerStatuses": [{"state": {"terminated": terminated}}]},
    }


COPIED = {"result": "copied", "digest": "d", "files": 3, "bytes": SIZE + 900, "tensor_bytes": SIZE, "config": LLAMA}


def test_the_record_of_a_copy_describes_what_the_hub_cannot():
    volume = {"mode": "volume", "uri": "hf://acme/model@v1", "path": "/models/m/v1", "claim": "m-weights"}
    cluster = Pods(pod("{}", "2026-11-03T00:00:00Z"), pod(json.dumps(COPIED)), pod(json.dumps({**COPIED, "tensor_bytes": 1}), target="/models/m/v0"))
    readers = Readers(volume=lambda model: places.copied(cluster, "llm-serving", model))
    found = find(item("hf://acme/model@v1", weights=volume), readers)
    assert (found.description.checkpoint_bytes, found.rows) == (SIZE, [])
    assert found.origin == "config.json of the copy in volume m-weights"
    assert cluster.asked == [("/api/v1/namespaces/llm-serving/pods", {"labelSelector": "app.kubernetes.io/component=weights,app.kubernetes.io/instance=m"})]

    class Closed:
        def get(self, path, query=None):
            raise places._kube.ApiError("GET", path, 403, {"message": "pods is forbidden"})

    found = find(item("hf://acme/model@v1", weights=volume), Readers(volume=lambda model: places.copied(Closed(), "llm-serving", model)))
    assert checks(found) == [("source_unreadable", "info"), ("model_unknown", "warning")]
    assert "pods is forbidden" in found.rows[0]["found"]
    for useless in ("", "not json", json.dumps({"result": "failed"}), json.dumps({k: v for k, v in COPIED.items() if k != "config"})):
        assert places.copied(Pods(pod(useless)), "llm-serving", {"name": "m", "weights": volume}) is None
