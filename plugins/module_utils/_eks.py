# SPDX-License-Identifier: GPL-3.0-or-later
"""What the eks_* actions share: API calls with retries, errors that name the cause, tags, and the result's shape. Controller side only."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

with contextlib.suppress(ImportError):  # the login says that boto3 is missing
    from botocore import xform_name
    from botocore.exceptions import ClientError, ParamValidationError

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from ansible_collections.amazon.aws.plugins.module_utils.botocore import is_boto3_error_code, normalize_boto3_result
from ansible_collections.amazon.aws.plugins.module_utils.errors import AWSErrorHandler
from ansible_collections.amazon.aws.plugins.module_utils.exceptions import AnsibleAWSError
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry
from ansible_collections.amazon.aws.plugins.module_utils.tagging import compare_aws_tags

from ._problems import errors, message, problem

# What users name themselves; these keys are never re-cased.
USER_KEYS = ("labels", "tags")
DENIED = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation")
# Limits of the EKS API (botocore 1.44 service model, 2026-11)
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 50, 128, 256
# A new IAM role reaches EKS with a delay: tries and seconds between them.
TRIES, PAUSE = 7, 5


class AnsibleEksError(AnsibleAWSError):
    """What a user must know: a failed call, or a resource that went into a failed state."""


class Refused(Exception):
    """Options that were refused before any write; `rows` are the problems."""

    def __init__(self, message: str, rows: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.rows = rows


class EksErrorHandler(AWSErrorHandler):
    _CUSTOM_EXCEPTION = AnsibleEksError

    @classmethod
    def _is_missing(cls):
        return is_boto3_error_code("ResourceNotFoundException")


@dataclass(frozen=True)
class Call:
    """One API call to make: the operation's API name, such as CreateNodegroup, and its parameters."""

    operation: str
    params: dict[str, Any]


@dataclass
class Plan:
    """What to do, decided before anything is written.

    `before` and `after` are the managed part of the resource in the API's shape ({} = absent). Rows of `problems` forbid every call.
    """

    calls: list[Call] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)


@EksErrorHandler.common_error_handler("call {operation}")
@AWSRetry.jittered_backoff(retries=10, catch_extra_error_codes=["ServerException", "ThrottlingException"])
def call(client: Any, operation: str, **params: Any) -> dict[str, Any]:
    """Make one call by its API name. Raises AnsibleEksError."""
    return getattr(client, xform_name(operation))(**params)


def write(client: Any, step: Call, unknown: str) -> None:
    """Make a planned call; again for half a minute when its error says that the IAM role is `unknown` (in lower case)."""
    for attempt in range(1, TRIES + 1):
        try:
            call(client, step.operation, **step.params)
            return
        except AnsibleEksError as error:
            if attempt == TRIES or unknown not in str(error).lower():
                raise
        time.sleep(PAUSE)


@EksErrorHandler.list_error_handler("call {operation}")
@AWSRetry.jittered_backoff(retries=10, catch_extra_error_codes=["ServerException", "ThrottlingException"])
def find(client: Any, operation: str, **params: Any) -> dict[str, Any] | None:
    """Like `call`, for reading: None when the resource, or its cluster, does not exist."""
    return getattr(client, xform_name(operation))(**params)


@EksErrorHandler.list_error_handler("call {operation}", default_value=[])
@AWSRetry.jittered_backoff(retries=10, catch_extra_error_codes=["ServerException", "ThrottlingException"])
def find_all(client: Any, operation: str, key: str, **params: Any) -> list[dict[str, Any]]:
    """All pages of a list; [] when the resource does not exist."""
    return client.get_paginator(xform_name(operation)).paginate(**params).build_full_result()[key]


def require_cluster(client: Any, name: str) -> dict[str, Any]:
    """The cluster in the API's shape. Describing what is in a cluster gives the same error for a missing cluster, hence this second look."""
    answer = find(client, "DescribeCluster", name=name)
    if answer is None:
        raise AnsibleEksError(
            message=f"cluster_name: found no EKS cluster {name} in region {client.meta.region_name}; needed an existing one; "
            "fix: correct cluster_name or region, or create the cluster first"
        )
    return answer["cluster"]


def code_of(error: AnsibleAWSError) -> str:
    """The API's error code, or ''."""
    response = getattr(error.exception, "response", None) or {}
    return response.get("Error", {}).get("Code", "")


def without_access_entries(exception: BaseException | None) -> bool:
    """Whether a call was refused because the cluster only reads the aws-auth ConfigMap; such a cluster has no entries."""
    return isinstance(exception, ClientError) and "authentication mode" in exception.response["Error"]["Message"]


def hint(exception: BaseException | None) -> str:
    """What to do about an exception of botocore, or ''."""
    if isinstance(exception, ClientError) and exception.response["Error"]["Code"] in DENIED:
        named = re.search(r"perform: ([\w-]+:\w+)", exception.response["Error"]["Message"])
        service = "ec2" if exception.response["Error"]["Code"] == "UnauthorizedOperation" else "eks"
        action = named.group(1) if named else f"{service}:{exception.operation_name}"
        return f"found no permission; needed the IAM action {action}; fix: allow it in a policy of the identity that runs this task"
    if without_access_entries(exception):
        return (
            "found authentication mode CONFIG_MAP; needed API_AND_CONFIG_MAP or API; fix: aws eks update-cluster-config --name ... "
            "--access-config authenticationMode=API_AND_CONFIG_MAP (there is no way back)"
        )
    if isinstance(exception, ParamValidationError) and "Unknown parameter" in str(exception):
        return "found a botocore that does not know this option yet; needed a newer one; fix: upgrade boto3 and botocore where Ansible runs"
    return ""


def text(error: AnsibleAWSError) -> str:
    """What failed, what to do about it where that is known, and botocore's own words."""
    parts = [error.message, hint(error.exception), str(error.exception or "")]
    return ": ".join(part for part in parts if part)


def refuse(rows: Iterable[Mapping[str, str]], subject: str) -> None:
    """Raise Refused when there are errors: one line a problem, nothing written."""
    bad = errors(rows)
    if bad:
        raise Refused(message(bad, f"{subject}: refused before any change, {len(bad)} problem{'s' if len(bad) > 1 else ''}"), bad)


def tag_problems(tags: Mapping[str, Any] | None) -> list[dict[str, str]]:
    tags = tags or {}
    rows = []
    if len(tags) > MAX_TAGS:
        rows.append(problem("tags", "tags", f"{len(tags)} tags", f"at most {MAX_TAGS}", f"remove {len(tags) - MAX_TAGS} of them"))
    for key, value in tags.items():
        if str(key).lower().startswith("aws:"):
            rows.append(problem("tags", f"tags[{key}]", "the reserved prefix aws:", "another prefix", "rename the tag"))
        if not 0 < len(str(key)) <= MAX_TAG_KEY or len(str(value)) > MAX_TAG_VALUE:
            rows.append(
                problem(
                    "tags",
                    f"tags[{key}]",
                    f"key of {len(str(key))} and value of {len(str(value))} characters",
                    f"key of 1 to {MAX_TAG_KEY}, value of at most {MAX_TAG_VALUE} characters",
                    "shorten them",
                )
            )
    return rows


def tag_strings(tags: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if tags is None else {str(k): str(v) for k, v in tags.items()}


def plan_tags(plan: Plan, arn: str, wanted: dict[str, str] | None, purge: bool) -> None:
    """Add the tag calls of an existing resource to the plan; None leaves all tags alone."""
    if wanted is None:
        return
    current = plan.before.get("tags") or {}
    to_set, to_unset = compare_aws_tags(current, wanted, purge)
    if to_unset:
        plan.calls.append(Call("UntagResource", {"resourceArn": arn, "tagKeys": sorted(to_unset)}))
    if to_set:
        plan.calls.append(Call("TagResource", {"resourceArn": arn, "tags": to_set}))
    plan.after["tags"] = {**{k: v for k, v in current.items() if k not in to_unset}, **to_set}


def snake(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A resource in the API's shape for users: our keys in snake case, times as text, labels and tags untouched."""
    return camel_dict_to_snake_dict(normalize_boto3_result(dict(resource)), ignore_list=USER_KEYS)


def result(key: str, plan: Plan, resource: Mapping[str, Any] | None) -> dict[str, Any]:
    """The action's result: `resource` is the final or predicted state, None when absent."""
    return {
        "changed": bool(plan.calls),
        "actions": [c.operation for c in plan.calls],
        "diff": {"before": snake(plan.before), "after": snake(plan.after)},
        key: snake(resource or {}),
    }
