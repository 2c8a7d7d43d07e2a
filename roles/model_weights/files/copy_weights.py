# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy a model's weights into a shared volume: resumable, verified, published at once or not at all.

    copy_weights.py --source s3://bucket/prefix|hf://org/model@revision --target /models/NAME/REVISION [--exclude GLOB ...]

Files are collected in `.REVISION.partial` beside the target. A file counts as copied when its size and checksum are right; then it stands in
the journal, and an interrupted copy goes on behind it. When all are there, the marker with every file's SHA-256 is written and the folder is
renamed to the target. A target that exists is complete, always.

Runs as a Job in the image of the server, which has boto3 and huggingface_hub. The last line printed, and the pod's termination message, is a JSON
object: {"result": "copied"|"unchanged", "digest", "files", "bytes", "tensor_bytes", "config"} or {"result": "failed", "found", "needed", "fix"};
config is the content of config.json, left out when it is too long for that message: the next plan reads the model's shape from it.
Exit codes: 0 complete, 2 cannot work as asked, 3 may work when run again.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import errno
import fcntl
import fnmatch
import hashlib
import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = ".llmops-weights.json"
JOURNAL = ".journal.jsonl"
CHUNK = 8 << 20
MESSAGE_BYTES = 4096  # Kubernetes cuts a termination message here
# Beside safetensors the same weights in other formats are dead bytes, and pickles can run code.
OTHER_FORMATS = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*"]


class CopyError(Exception):
    """Ends the copy with found / needed / fix. `again` says whether the same call may succeed later."""

    def __init__(self, found: str, needed: str, fix: str, again: bool = False) -> None:
        super().__init__(f"found {found}; needed {needed}; fix: {fix}")
        self.found, self.needed, self.fix, self.again = found, needed, fix, again


@dataclass(frozen=True)
class Remote:
    """One file at the source. `md5` and `sha256` are hex digests where the source knows them."""

    path: str
    size: int
    version: str
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Copied:
    path: str
    size: int
    sha256: str
    version: str


class S3:
    """s3://bucket/prefix, with the credentials of the pod."""

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self.client = boto3.client("s3", config=Config(retries={"max_attempts": 8, "mode": "adaptive"}, max_pool_connections=32))

    def files(self) -> list[Remote]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [self._remote(item["Key"]) for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]

    def _remote(self, key: str) -> Remote:
        head = self.client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
        tag, checksum = head["ETag"].strip('"'), head.get("ChecksumSHA256", "")
        # The tag is the MD5 of neither a multipart upload (MD5-PARTS) nor an object encrypted with KMS or a customer's key.
        plain = "-" not in tag and head.get("ServerSideEncryption", "AES256") == "AES256" and "SSECustomerAlgorithm" not in head
        whole = checksum and "-" not in checksum and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        sha256 = base64.b64decode(checksum).hex() if whole else None
        return Remote(key.removeprefix(self.prefix), head["ContentLength"], tag, md5=tag if plain else None, sha256=sha256)

    def read(self, remote: Remote, offset: int) -> Iterator[bytes]:
        extra = {"Range": f"bytes={offset}-"} if offset else {}
        body = self.client.get_object(Bucket=self.bucket, Key=self.prefix + remote.path, IfMatch=remote.version, **extra)["Body"]
        yield from body.iter_chunks(CHUNK)


class Hub:
    """hf://org/model@revision on the Hugging Face hub."""

    def __init__(self, url: str) -> None:
        from huggingface_hub import HfApi

        self.repository, _, revision = url.removeprefix("hf://").partition("@")
        self.api = HfApi()
        self.info = self.api.model_info(self.repository, revision=revision or None, files_metadata=True)

    def files(self) -> list[Remote]:
        return [Remote(f.rfilename, f.size, self.info.sha, sha256=f.lfs.sha256 if f.lfs else None) for f in self.info.siblings]

    def read(self, remote: Remote, offset: int) -> Iterator[bytes]:
        from huggingface_hub import HfFileSystem

        with HfFileSystem().open(f"{self.repository}/{remote.path}", revision=self.info.sha, block_size=CHUNK) as stream:
            stream.seek(offset)
            while chunk := stream.read(CHUNK):
                yield chunk


def choose(files: list[Remote], exclude: list[str]) -> list[Remote]:
    """The files to copy. Raises CopyError when none hold weights or the config is missing."""
    safetensors = any(f.path.endswith(".safetensors") for f in files)
    patterns = exclude + (OTHER_FORMATS if safetensors else [])
    chosen = [f for f in files if not any(fnmatch.fnmatch(f.path, p) for p in patterns) and not f.path.startswith(".")]
    if not safetensors and not any(fnmatch.fnmatch(f.path, p) for f in chosen for p in OTHER_FORMATS):
        raise CopyError(f"{len(files)} files without weights at the source", "*.safetensors", "check source and prefix")
    if "config.json" not in {f.path for f in chosen} and "params.json" not in {f.path for f in chosen}:
        raise CopyError("no config.json at the source", "the folder of a whole model", "check the prefix: it must end where config.json lies")
    return sorted(chosen, key=lambda f: f.path)


def check_safetensors(path: Path) -> int:
    """The bytes of the tensors. Raises CopyError when the header's offsets do not end at the file's end."""
    with path.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        size = path.stat().st_size
        try:
            header = json.loads(stream.read(length)) if 0 < length < size else None
        except ValueError:
            header = None
    ends = [t["data_offsets"][1] for name, t in (header or {}).items() if name != "__metadata__"]
    if header is None or (ends and 8 + length + max(ends) != size):
        raise CopyError(
            f"{path.name} of {size} bytes is no whole safetensors file", "a header whose offsets end at the end of the file", "upload the file again"
        )
    return max(ends, default=0)


def describe(folder: Path) -> dict[str, object]:
    """{tensor_bytes, config} of a copied model, as far as they are there. A consolidated.safetensors repeats the shards beside it."""
    shards = sorted(folder.glob("*.safetensors"))
    shards = [path for path in shards if not path.name.startswith("consolidated")] or shards
    found: dict[str, object] = {"tensor_bytes": sum(check_safetensors(path) for path in shards)} if shards else {}
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return found
    return {**found, "config": config} if isinstance(config, dict) else found


class Copy:
    def __init__(self, source: S3 | Hub, url: str, target: Path, exclude: list[str], workers: int) -> None:
        self.source, self.url, self.target, self.exclude, self.workers = source, url, target, exclude, workers
        self.partial = target.with_name(f".{target.name}.partial")

    def run(self) -> dict[str, object]:
        if self.target.exists():
            return self._existing()
        wanted = choose(self.source.files(), self.exclude)
        self.partial.mkdir(parents=True, exist_ok=True)
        with (self.partial / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CopyError(f"another copy at work in {self.partial}", "one at a time", "wait for it", again=True) from None
            done = self._journal(wanted)
            missing = [f for f in wanted if f.path not in done]
            self._check_room(missing)
            say(f"{len(wanted)} files, {sum(f.size for f in wanted) / 2**30:.2f} GiB; {len(done)} already here")
            with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
                futures = [pool.submit(self._fetch, f) for f in missing]
                try:
                    for future in concurrent.futures.as_completed(futures):
                        copied = future.result()
                        done[copied.path] = copied
                        self._note(copied)
                        say(f"{copied.path} {copied.size / 2**30:.2f} GiB sha256 {copied.sha256[:12]}")
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            return self._publish([done[f.path] for f in wanted])

    def _existing(self) -> dict[str, object]:
        marker = self.target / MARKER
        if not marker.exists():
            raise CopyError(
                f"{self.target} without {MARKER}", "an empty place, or a copy made by this program", "move the folder away, or use another revision"
            )
        try:
            known = json.loads(marker.read_text())
            whole = known["digest"] == digest_of(known["files"])
        except (ValueError, TypeError, KeyError):
            whole = False
        if not whole:
            raise CopyError(f"{marker} that does not agree with itself", "the marker as this program wrote it", "remove the folder and copy again")
        if known["source"] != self.url:
            raise CopyError(f"{self.target} copied from {known['source']}", f"a copy of {self.url}", "use another weights.revision for other weights")
        for entry in known["files"]:
            path = self.target / entry["path"]
            if not path.exists() or path.stat().st_size != entry["size"]:
                raise CopyError(
                    f"{path} missing or of another size than in {MARKER}", f"{entry['size']} bytes", "remove the folder and copy again, or use another revision"
                )
        return {"result": "unchanged", **summary(known), **describe(self.target)}

    def _journal(self, wanted: list[Remote]) -> dict[str, Copied]:
        """Files of an interrupted run that are still right: same version at the source, same size and SHA-256 here."""
        path = self.partial / JOURNAL
        if not path.exists():
            return {}
        versions = {f.path: f.version for f in wanted}
        found = {}
        for line in path.read_text().splitlines():
            try:
                entry = Copied(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a run that was killed while writing it
            local = self.partial / entry.path
            if versions.get(entry.path) == entry.version and local.exists() and local.stat().st_size == entry.size and digest(local) == entry.sha256:
                found[entry.path] = entry
        return found

    def _note(self, copied: Copied) -> None:
        with (self.partial / JOURNAL).open("a") as stream:
            stream.write(json.dumps(asdict(copied)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _check_room(self, missing: list[Remote]) -> None:
        begun = sum(p.stat().st_size for p in self.partial.rglob("*.part"))
        needed, free = sum(f.size for f in missing) - begun, shutil.disk_usage(self.partial).free
        if free < needed:
            raise CopyError(
                f"{free / 2**30:.2f} GiB free on the volume",
                f"{needed / 2**30:.2f} GiB",
                "enlarge the claim or remove old revisions; what is here is kept",
                again=True,
            )

    def _fetch(self, remote: Remote) -> Copied:
        path = self.partial / remote.path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{hashlib.sha256(remote.version.encode()).hexdigest()[:8]}.part")
        sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        offset = 0
        if part.exists() and part.stat().st_size <= remote.size:
            with part.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    sha.update(chunk)
                    md5.update(chunk)
                    offset += len(chunk)
        with part.open("r+b" if offset else "wb") as stream:
            stream.seek(offset)
            if offset < remote.size:
                for chunk in self.source.read(remote, offset):
                    stream.write(chunk)
                    sha.update(chunk)
                    md5.update(chunk)
                    offset += len(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        wrong = []
        if offset != remote.size:
            wrong.append(f"{offset} of {remote.size} bytes")
        if remote.md5 and md5.hexdigest() != remote.md5:
            wrong.append(f"MD5 {md5.hexdigest()} instead of {remote.md5}")
        if remote.sha256 and sha.hexdigest() != remote.sha256:
            wrong.append(f"SHA-256 {sha.hexdigest()} instead of {remote.sha256}")
        if wrong:
            part.unlink()
            raise CopyError(f"{remote.path} with {', '.join(wrong)}", "what the source says", "run again; if it repeats, upload the file again", again=True)
        if path.suffix == ".safetensors":
            check_safetensors(part.rename(path))
        else:
            part.rename(path)
        return Copied(remote.path, remote.size, sha.hexdigest(), remote.version)

    def _publish(self, files: list[Copied]) -> dict[str, object]:
        listed = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files]
        marker = {
            "source": self.url,
            "digest": digest_of(listed),
            "completed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": listed,
        }
        # Also what an interrupted run copied and the source has no more: a server would load a stray safetensors file with the others.
        kept = {self.partial / f.path for f in files}
        for leftover in [p for p in self.partial.rglob("*") if p.is_file() and p not in kept]:
            leftover.unlink()
        path = self.partial / MARKER
        with path.open("w") as stream:
            json.dump(marker, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        self.partial.rename(self.target)
        return {"result": "copied", **summary(marker), **describe(self.target)}


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(files: list[dict[str, str]]) -> str:
    """One SHA-256 for all files of a marker, as `sha256sum` would list them."""
    return hashlib.sha256("".join(f"{f['sha256']}  {f['path']}\n" for f in files).encode()).hexdigest()


def summary(marker: dict) -> dict[str, object]:
    return {"digest": marker["digest"], "files": len(marker["files"]), "bytes": sum(f["size"] for f in marker["files"])}


def say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Copy a model's weights into a shared volume.")
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True, type=Path)
    parser.add_argument("--exclude", action="append", default=[])
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args(arguments)
    try:
        source = {"s3": S3, "hf": Hub}[options.source.partition("://")[0]](options.source)
        result, code = Copy(source, options.source, options.target, options.exclude, options.workers).run(), 0
    except CopyError as error:
        result, code = {"result": "failed", "found": error.found, "needed": error.needed, "fix": error.fix}, 3 if error.again else 2
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "enlarge the claim or remove old revisions; what is here is kept" if full else "look at the volume, then run again"
        result, code = {"result": "failed", "found": str(error), "needed": "room on the volume" if full else "a volume that can be written", "fix": fix}, 3
    except Exception as error:  # boto3 and huggingface_hub raise many kinds; each is said with its name
        result = {
            "result": "failed",
            "found": f"{type(error).__name__}: {error}",
            "needed": f"to read {options.source}",
            "fix": "check the source, its region and the pod's rights",
        }
        code = 3
    text = json.dumps(result, separators=(",", ":"))
    if len(text) > MESSAGE_BYTES:
        text = json.dumps({key: value for key, value in result.items() if key != "config"}, separators=(",", ":"))
    say(text)
    if Path("/dev/termination-log").exists():
        Path("/dev/termination-log").write_text(text[:MESSAGE_BYTES])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
