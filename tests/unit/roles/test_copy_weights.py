# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy program, run as a process of its own against an S3 double (moto), and broken on purpose."""

import hashlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "model_weights" / "files" / "copy_weights.py"
SOURCE = "s3://weights/llama/"
LOGIN = {"AWS_ACCESS_KEY_ID": "copyweightstestkey00", "AWS_SECRET_ACCESS_KEY": "copyweightstestsecret000", "AWS_DEFAULT_REGION": "us-east-1"}


def safetensors(size: int, fill: bytes = b"\1") -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + fill * size


FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001.safetensors": safetensors(20 << 20),
    "model-00002.safetensors": safetensors(1 << 20, b"\2"),
    "tokenizer/tokenizer.json": b"{}",
}


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    for key, value in LOGIN.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    client.create_bucket(Bucket="weights")
    for path, content in {**FILES, "pytorch_model.bin": b"old", ".cache/x": b"x"}.items():
        client.put_object(Bucket="weights", Key=f"llama/{path}", Body=content)
    yield client
    listed = client.list_objects_v2(Bucket="weights").get("Contents", [])
    client.delete_objects(Bucket="weights", Delete={"Objects": [{"Key": o["Key"]} for o in listed]})
    client.delete_bucket(Bucket="weights")


def copy(target: Path, *arguments: str, sabotage: str = "", prefix: tuple[str, ...] = (), source: str = SOURCE):
    """Run the program; `sabotage` is Python run before its main. Returns (exit code, last line as JSON or None, output)."""
    code = f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import copy_weights as c\n{sabotage}\nsys.exit(c.main(sys.argv[1:]))"
    argv = [*prefix, sys.executable, "-c", code, "--source", source, "--target", str(target), *arguments]
    done = subprocess.run(argv, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.strip().splitlines()
    last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return done.returncode, last, done.stdout + done.stderr


def test_everything_is_copied_verified_and_marked(bucket, tmp_path):
    code, result, output = copy(tmp_path / "m" / "v1")
    assert (code, result["result"], result["files"]) == (0, "copied", 4), output
    marker = json.loads((tmp_path / "m" / "v1" / ".llmops-weights.json").read_text())
    assert marker["source"] == SOURCE
    assert {f["path"]: f["sha256"] for f in marker["files"]} == {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["v1"]
    assert not (tmp_path / "m" / "v1" / "pytorch_model.bin").exists()


def test_the_result_describes_the_model_and_leaves_out_a_config_that_is_too_long(bucket, tmp_path):
    expected = {"tensor_bytes": 21 << 20, "config": {"model_type": "llama"}}
    first = copy(tmp_path / "v1")[1]
    assert {key: first.get(key) for key in expected} == expected
    # The same weights again as one file: not counted twice.
    bucket.put_object(Bucket="weights", Key="llama/consolidated.safetensors", Body=safetensors(5))
    bucket.put_object(Bucket="weights", Key="llama/config.json", Body=json.dumps({"ignore": ["layer"] * 1000}).encode())
    for _run in range(2):
        result = copy(tmp_path / "v2")[1]
        assert ("config" in result, result["tensor_bytes"]) == (False, 21 << 20)


def test_a_second_run_changes_nothing(bucket, tmp_path):
    first = copy(tmp_path / "v1")[1]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code, second, _output = copy(tmp_path / "v1")
    assert (code, second) == (0, {**first, "result": "unchanged"})
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


# Dies like a killed pod in the middle of the first large file, after the others are done.
DIES = """
import os
def read(self, remote, offset, real=c.S3.read):
    for number, chunk in enumerate(real(self, remote, offset)):
        if remote.path == "model-00001.safetensors" and number == 1: os._exit(137)
        yield chunk
c.S3.read = read
"""
# Counts what is asked of the source: {path: offset}.
COUNTS = """
import json, sys
asked = {}
def read(self, remote, offset, real=c.S3.read):
    asked[remote.path] = offset
    print("ASKED", json.dumps(asked), file=sys.stderr)
    return real(self, remote, offset)
c.S3.read = read
"""


def test_an_interrupted_copy_publishes_nothing_and_goes_on_where_it_was(bucket, tmp_path):
    code, _result, _output = copy(tmp_path / "v1", "--workers", "1", sabotage=DIES)
    assert code == 137
    assert not (tmp_path / "v1").exists()
    code, result, output = copy(tmp_path / "v1", "--workers", "1", sabotage=COUNTS)
    assert (code, result["result"]) == (0, "copied")
    asked = json.loads(output.rsplit("ASKED ", 1)[1].splitlines()[0])
    assert "config.json" not in asked
    assert asked["model-00001.safetensors"] == 8 << 20  # the first chunk was kept
    assert (tmp_path / "v1" / "model-00001.safetensors").read_bytes() == FILES["model-00001.safetensors"]


def test_a_file_damaged_between_two_runs_is_copied_again(bucket, tmp_path):
    copy(tmp_path / "v1", "--workers", "1", sabotage=DIES)
    (tmp_path / ".v1.partial" / "config.json").write_bytes(b'{"model_type": "lIama"}')
    code, _result, _output = copy(tmp_path / "v1")
    assert code == 0
    assert (tmp_path / "v1" / "config.json").read_bytes() == FILES["config.json"]


CORRUPTS = """
def read(self, remote, offset, real=c.S3.read):
    for chunk in real(self, remote, offset):
        yield chunk if remote.path != "model-00002.safetensors" else chunk[:-1] + b"X"
c.S3.read = read
"""


def test_a_corrupted_transfer_is_refused(bucket, tmp_path):
    code, result, _output = copy(tmp_path / "v1", sabotage=CORRUPTS)
    assert code == 3
    assert "model-00002.safetensors with MD5" in result["found"]
    assert not (tmp_path / "v1").exists()
    assert copy(tmp_path / "v1")[0] == 0


def test_a_file_that_left_the_source_between_two_runs_is_not_published(bucket, tmp_path):
    bucket.put_object(Bucket="weights", Key="llama/consolidated.safetensors", Body=safetensors(8))
    copy(tmp_path / "v1", "--workers", "1", sabotage=DIES)
    assert (tmp_path / ".v1.partial" / "consolidated.safetensors").exists()
    bucket.delete_object(Bucket="weights", Key="llama/consolidated.safetensors")
    code, result, _output = copy(tmp_path / "v1")
    assert (code, result["files"]) == (0, 4)
    assert sorted(p.name for p in (tmp_path / "v1").rglob("*.safetensors")) == ["model-00001.safetensors", "model-00002.safetensors"]


# The source knows a SHA-256, and no MD5, of every file: another one than that of the bytes.
KNOWS_BETTER = """
import dataclasses
def remote(self, key, real=c.S3._remote):
    return dataclasses.replace(real(self, key), md5=None, sha256="0" * 64)
c.S3._remote = remote
"""


def test_a_sha256_at_the_source_is_held_against_what_arrived(bucket, tmp_path):
    code, result, _output = copy(tmp_path / "v1", sabotage=KNOWS_BETTER)
    assert code == 3
    assert "with SHA-256" in result["found"]


def program():
    spec = importlib.util.spec_from_file_location("copy_weights", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_only_a_tag_that_is_an_md5_is_taken_for_one(bucket):
    """Objects under a KMS key, and uploads in parts, have a tag that is no MD5: every copy of them would be called corrupt."""
    body = FILES["model-00002.safetensors"]
    bucket.put_object(Bucket="weights", Key="tags/kms", Body=body, ServerSideEncryption="aws:kms")
    bucket.put_object(Bucket="weights", Key="tags/plain", Body=body)
    bucket.put_object(Bucket="weights", Key="tags/sha", Body=body, ChecksumAlgorithm="SHA256")
    upload = bucket.create_multipart_upload(Bucket="weights", Key="tags/parts")["UploadId"]
    part = bucket.upload_part(Bucket="weights", Key="tags/parts", UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    bucket.complete_multipart_upload(Bucket="weights", Key="tags/parts", UploadId=upload, MultipartUpload=parts)
    found = {f.path: f for f in program().S3("s3://weights/tags").files()}
    assert {path: f.md5 for path, f in found.items() if f.md5} == dict.fromkeys(["plain", "sha"], hashlib.md5(body).hexdigest())
    assert {path: f.sha256 for path, f in found.items() if f.sha256} == {"sha": hashlib.sha256(body).hexdigest()}
    assert {f.size for f in found.values()} == {len(body)}


def test_a_truncated_upload_is_refused(bucket, tmp_path):
    bucket.put_object(Bucket="weights", Key="llama/model-00002.safetensors", Body=FILES["model-00002.safetensors"][:-100])
    code, result, _output = copy(tmp_path / "v1")
    assert code == 2
    assert "no whole safetensors file" in result["found"]
    assert result["fix"] == "upload the file again"


def test_another_source_under_the_same_revision_is_refused(bucket, tmp_path):
    copy(tmp_path / "v1")
    bucket.put_object(Bucket="weights", Key="other/config.json", Body=b"{}")
    code, result, _output = copy(tmp_path / "v1", source="s3://weights/other/")
    assert (code, result["fix"]) == (2, "use another weights.revision for other weights")


def test_another_revision_is_another_folder(bucket, tmp_path):
    first = copy(tmp_path / "v1")[1]
    bucket.put_object(Bucket="weights", Key="llama/model-00002.safetensors", Body=safetensors(1 << 20, b"\3"))
    second = copy(tmp_path / "v2")[1]
    assert first["digest"] != second["digest"]
    assert copy(tmp_path / "v1")[1]["digest"] == first["digest"]


def test_a_folder_of_somebody_else_is_left_alone(bucket, tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "mine").write_text("x")
    code, result, _output = copy(tmp_path / "v1")
    assert code == 2
    assert "without .llmops-weights.json" in result["found"]
    assert (tmp_path / "v1" / "mine").read_text() == "x"


@pytest.mark.parametrize("damage", [lambda text: text[:-40], lambda text: text.replace("config.json", "gonfig.json")])
def test_a_damaged_marker_is_not_believed(bucket, tmp_path, damage):
    copy(tmp_path / "v1")
    marker = tmp_path / "v1" / ".llmops-weights.json"
    marker.write_text(damage(marker.read_text()))
    code, result, _output = copy(tmp_path / "v1")
    assert code == 2
    assert "does not agree with itself" in result["found"]


def small_volume(tmp_path: Path, *, believe: bool) -> tuple[int, dict, str]:
    """Copy to a 16 MiB tmpfs in a mount namespace of its own; `believe` hides its size from the check beforehand."""
    try:
        probe = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare (util-linux)")
    if probe.returncode:
        pytest.skip(f"needs user namespaces: {probe.stderr.strip()}")
    sabotage = "c.shutil.disk_usage = lambda path: type('U', (), {'free': 1 << 40})" if believe else ""
    mount = ("unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=16m none "{tmp_path}" && exec "$@"', "sh")
    return copy(tmp_path / "v1", sabotage=sabotage, prefix=mount)


def test_too_small_a_volume_is_refused_before_the_first_byte(bucket, tmp_path):
    code, result, output = small_volume(tmp_path, believe=False)
    assert code == 3, output
    assert "GiB free on the volume" in result["found"]
    assert "enlarge the claim" in result["fix"]


def test_a_volume_that_fills_up_while_copying_is_named(bucket, tmp_path):
    code, result, output = small_volume(tmp_path, believe=True)
    assert code == 3, output
    assert "No space left on device" in result["found"]
    assert result["needed"] == "room on the volume"


def test_a_place_without_weights_or_config_is_refused(bucket, tmp_path):
    assert "without weights" in copy(tmp_path / "v1", source="s3://weights/llama/tokenizer/")[1]["found"]
    bucket.put_object(Bucket="weights", Key="bare/model.safetensors", Body=safetensors(8))
    assert "no config.json" in copy(tmp_path / "v1", source="s3://weights/bare/")[1]["found"]


def test_a_missing_bucket_is_said_with_its_name(bucket, tmp_path):
    code, result, _output = copy(tmp_path / "v1", source="s3://nowhere/llama/")
    assert code == 3
    assert "NoSuchBucket" in result["found"]


def test_two_copies_at_once_do_not_mix(bucket, tmp_path):
    holds = (
        "import fcntl, pathlib, sys\np = pathlib.Path(sys.argv[4]).with_name('.v1.partial'); p.mkdir()\n"
        "held = open(p / '.lock', 'w'); fcntl.flock(held, fcntl.LOCK_EX)\n"
    )
    code, result, _output = copy(tmp_path / "v1", sabotage=holds)
    assert code == 3
    assert "another copy at work" in result["found"]
