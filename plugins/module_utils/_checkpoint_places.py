# SPDX-License-Identifier: GPL-3.0-or-later
"""The places where the folder of a checkpoint can lie: S3, the Hugging Face hub, the disk; and what the role model_weights noted of a copy.

Reads only, with short timeouts: a plan must not hang on a network that is not there. Controller side only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _aws, _kube
from ._checkpoint import Unreadable

with contextlib.suppress(ImportError):  # _aws.login says that boto3 is missing
    from botocore.exceptions import BotoCoreError, ClientError

CONNECT_SECONDS, READ_SECONDS = 5, 15
PATIENCE = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"total_max_attempts": 2}}
DENIED = ("AccessDenied", "AllAccessDisabled", "403", "Forbidden")
GONE = ("NoSuchKey", "404")


def s3_client(options: Mapping[str, Any]) -> Any:
    """An S3 client with amazon.aws' options, environment and files. Raises Unreadable."""
    try:
        session = _aws.login({**options, "aws_config": {**PATIENCE, **(options.get("aws_config") or {})}})
    except _aws.AwsError as error:
        session = str(error)
    if isinstance(session, str):
        raise Unreadable("source_unreadable", f"no way into AWS ({session})", "a region, and a profile or keys", "correct the AWS options, or set config")
    return session.client("s3")


class S3Folder:
    """s3://bucket/prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client, self.bucket = client, bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.where = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self.listed = self.granted = False

    def names(self) -> set[str] | None:
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/")
            keys = [key for page in pages for key in (*_each(page, "Contents", "Key"), *_each(page, "CommonPrefixes", "Prefix"))]
            found = {key.removeprefix(self.prefix) for key in keys} - {""}
        except (ClientError, BotoCoreError) as error:
            if _code(error) in DENIED:
                return None
            raise self._unreadable(error) from error
        self.listed = True
        return found

    def read(self, name: str) -> bytes | None:
        return self._get(name)

    def part(self, name: str, start: int, end: int) -> bytes:
        return self._get(name, Range=f"bytes={start}-{end - 1}") or b""

    def _get(self, name: str, **more: str) -> bytes | None:
        try:
            content = self.client.get_object(Bucket=self.bucket, Key=self.prefix + name, **more)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            code = _code(error)
            # Who may not list is told 403 for what does not exist. After a file that could be read, that is what it means.
            if code in GONE or (code in DENIED and self.granted and not self.listed):
                return None
            if code == "InvalidRange":
                return b""
            raise self._unreadable(error) from error
        self.granted = True
        return content

    def _unreadable(self, error: Exception) -> Unreadable:
        code = _code(error)
        if code == "NoSuchBucket":
            return Unreadable("source_missing", f"no bucket {self.bucket}", "a bucket that exists", "correct the source", "error")
        if code in DENIED:
            # S3 names the action when it is another one, such as kms:Decrypt.
            told = re.search(r"perform: ((?!s3:)[\w-]+:\w+)", str(error))
            actions = told[1] if told else "s3:GetObject" if self.listed else "s3:GetObject and s3:ListBucket"
            fix = f"allow {actions} on {self.bucket}/{self.prefix}* for the identity that runs Ansible, or set config"
            return Unreadable("source_unreadable", f"no permission to read {self.where}", f"the IAM action(s) {actions}", fix)
        text = f"{code}: {error}" if code and code not in str(error) else str(error)
        return Unreadable("source_unreadable", f"{self.where} not readable ({text})", "AWS credentials and a way to S3", "check both, or set config")


def _each(page: Mapping[str, Any], key: str, field: str) -> list[str]:
    return [item[field] for item in page.get(key, [])]


def _code(error: Exception) -> str:
    return (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")


class Hub:
    """The Hugging Face hub through the library huggingface_hub, which is optional. One failed attempt to reach it holds for all models."""

    def __init__(self) -> None:
        self._down: Unreadable | None = None

    def folder(self, repository: str, revision: str | None) -> HubFolder:
        """The repository's folder at that revision. Raises Unreadable: hub_unreachable, source_missing, source_unreadable."""
        if self._down:
            raise self._down
        try:
            return HubFolder(repository, revision)
        except Unreadable as error:
            if error.check == "hub_unreachable":
                self._down = error
            raise


class HubFolder:
    """hf://org/model@revision. Endpoint and token are HF_ENDPOINT and HF_TOKEN of the environment, else the library's own."""

    def __init__(self, repository: str, revision: str | None) -> None:
        self.repository, self.where = repository, f"hf://{repository}" + (f"@{revision}" if revision else "")
        if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
            raise _hub_down("HF_HUB_OFFLINE is set", "unset it")
        try:
            import huggingface_hub
            from huggingface_hub import errors, utils
        except ImportError:
            raise _hub_down("no Python library huggingface_hub where Ansible runs", "pip install huggingface_hub") from None
        self._hub, self._errors, self._utils = huggingface_hub, errors, utils
        self.endpoint, self.token = os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN")
        api = huggingface_hub.HfApi(endpoint=self.endpoint, token=self.token)
        info = self._ask(lambda: api.model_info(repository, revision=revision, timeout=CONNECT_SECONDS))
        self.commit, self._names = info.sha, {file.rfilename for file in info.siblings or [] if "/" not in file.rfilename}

    def names(self) -> set[str]:
        return self._names

    def read(self, name: str) -> bytes | None:
        return self._get(name)

    def part(self, name: str, start: int, end: int) -> bytes:
        return self._get(name, {"Range": f"bytes={start}-{end - 1}"}) or b""

    def _get(self, name: str, headers: Mapping[str, str] | None = None) -> bytes | None:
        url = self._hub.hf_hub_url(self.repository, name, revision=self.commit, endpoint=self.endpoint)
        sent = {**self._utils.build_hf_headers(token=self.token), **(headers or {})}

        def get() -> bytes:
            response = self._utils.get_session().get(url, headers=sent, timeout=READ_SECONDS)
            self._utils.hf_raise_for_status(response)
            return response.content

        try:
            return self._ask(get)
        except self._errors.EntryNotFoundError:
            return None

    def _ask(self, request: Any) -> Any:
        errors = self._errors
        try:
            return request()
        except errors.EntryNotFoundError:
            raise
        except errors.RevisionNotFoundError as error:
            raise Unreadable("source_missing", f"no such revision: {self.where}", "a branch, tag or commit", "correct the revision", "error") from error
        except errors.GatedRepoError as error:
            fix = "accept the model's terms on the hub and set HF_TOKEN where Ansible runs, or set config"
            raise Unreadable("source_unreadable", f"{self.where}, whose owner asks for consent", "a token of an account that has it", fix) from error
        except errors.RepositoryNotFoundError as error:
            fix = "correct the name, or set HF_TOKEN where Ansible runs when it is private"
            raise Unreadable("source_unreadable", f"no model {self.repository} on the hub, or a private one", "a model that can be read", fix) from error
        except Exception as error:  # the library's transport changed between its versions: requests, httpx, httpx2
            first = (str(error).splitlines() or [""])[0]
            raise _hub_down(f"no answer from the Hugging Face hub ({type(error).__name__}: {first})", "check the network or HF_ENDPOINT") from error


def _hub_down(found: str, fix: str) -> Unreadable:
    return Unreadable("hub_unreachable", found, "the hub, to read the model's config.json", f"{fix}, or set config")


class LocalFolder:
    """A folder on the disk of the controller."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)

    def names(self) -> set[str]:
        try:
            return {entry.name + ("/" if entry.is_dir() else "") for entry in self.path.iterdir()}
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from error

    def part(self, name: str, start: int, end: int) -> bytes:
        try:
            with (self.path / name).open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> Unreadable:
        return Unreadable("config", f"config {self.path}: {error.strerror}", "a folder with config.json, or that file", "correct the path", "error")


def copied(cluster: Any, namespace: str, model: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the Job that copied `model` into its volume said at its end: {config, tensor_bytes, where}, or None. `cluster` is a _kube.Cluster.

    The role model_weights leaves a finished Job and its pod as the record of the copy; the pod's termination message is copy_weights.py's result.
    Raises Unreadable when the cluster does not answer; the plan needs it for nothing else.
    """
    weights = model.get("weights") or {}
    selector = f"app.kubernetes.io/component=weights,app.kubernetes.io/instance={model['name']}"
    try:
        listed = cluster.get(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector}) or {}
    except (_kube.ApiError, _kube.KubeError) as error:
        fix = "allow listing pods, or set config"
        raise Unreadable("source_unreadable", f"no record of a copy ({error})", "the pods of the weights' Jobs", fix, "info") from error
    for pod in sorted(listed.get("items", []), key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True):
        arguments = [argument for container in pod["spec"]["containers"] for argument in container.get("args", [])]
        if f"--target={weights.get('path')}" not in arguments or f"--source={weights.get('uri')}" not in arguments:
            continue
        for status in (pod.get("status") or {}).get("containerStatuses", []):
            try:
                result = json.loads(((status.get("state") or {}).get("terminated") or {}).get("message") or "")
            except ValueError:
                continue
            if isinstance(result, dict) and isinstance(result.get("config"), dict):
                return {"config": result["config"], "tensor_bytes": result.get("tensor_bytes"), "where": f"the copy in volume {weights.get('claim')}"}
    return None
