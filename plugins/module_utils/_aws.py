# SPDX-License-Identifier: GPL-3.0-or-later
"""Log in to AWS from an action plugin: the options, environment variables and order of amazon.aws' modules. Controller side only.

boto3 is imported at the first login, not before: a run that does not ask AWS does not pay half a second of CPU for it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ansible.module_utils.basic import env_fallback

# amazon.aws' aws_argument_spec(), which cannot be imported without boto3; a test compares them. `validate_certs` is not here: kubernetes.core has an
# option of that name, and plugins that log in to both take it for both.
AUTH_ARG_SPEC: dict[str, dict[str, Any]] = {
    "access_key": {
        "aliases": ["aws_access_key_id", "aws_access_key"],
        "fallback": (env_fallback, ["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]),
        "no_log": False,
    },
    "secret_key": {
        "aliases": ["aws_secret_access_key", "aws_secret_key"],
        "fallback": (env_fallback, ["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]),
        "no_log": True,
    },
    "session_token": {"aliases": ["aws_session_token"], "fallback": (env_fallback, ["AWS_SESSION_TOKEN"]), "no_log": True},
    "profile": {"aliases": ["aws_profile"], "fallback": (env_fallback, ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])},
    "endpoint_url": {"aliases": ["aws_endpoint_url"], "fallback": (env_fallback, ["AWS_URL"])},
    "aws_ca_bundle": {"type": "path", "fallback": (env_fallback, ["AWS_CA_BUNDLE"])},
    "aws_config": {"type": "dict"},
    "debug_botocore_endpoint_logs": {"type": "bool", "default": False, "fallback": (env_fallback, ["ANSIBLE_DEBUG_BOTOCORE_LOGS"])},
    "region": {"aliases": ["aws_region"], "fallback": (env_fallback, ["AWS_REGION", "AWS_DEFAULT_REGION"])},
}
# One slow endpoint must not hold up a check that asks ten of them at once.
CONFIG = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard", "max_attempts": 4}}
AT_ONCE = 8
IAM_PREFIX = {"service-quotas": "servicequotas"}

DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
BAD_CREDENTIALS = (
    "AuthFailure", "InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException", "RequestExpired", "UnrecognizedClientException",
    "SignatureDoesNotMatch", "InvalidSignatureException",
)  # fmt: skip


class AwsError(Exception):
    """AWS cannot be used as asked for; the text says what was found, needed and what to do."""


@dataclass(frozen=True)
class Unanswered:
    """A call that failed. `action` is the IAM action ("ec2:DescribeSubnets"), `cause` one of permission, credentials, unreachable, failed."""

    action: str
    cause: str
    message: str


@dataclass
class Session:
    """A login. `client(service)` makes a boto3 client, once; make all of them before threads use them."""

    region: str
    _make: Callable[[str], Any]
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._make(service)
        return self._clients[service]


def login(params: Mapping[str, Any]) -> Session | str:
    """A session, or one clause on what is missing when nobody has set credentials or a region. Sends nothing yet (but to find instance credentials).

    `params`: AUTH_ARG_SPEC as read, and `validate_certs` (None counts as true). Raises AwsError for options that contradict each other, an unknown
    profile, and no boto3.
    """
    try:
        import boto3
        from ansible_collections.amazon.aws.plugins.plugin_utils.botocore import get_aws_connection_info
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise AwsError(
            f"Python {sys.executable}: found no 'boto3' library ({error}); needed boto3>=1.36; fix: {sys.executable} -m pip install boto3"
        ) from error
    region, endpoint, arguments = get_aws_connection_info(_Plugin({**params, "validate_certs": params.get("validate_certs") is not False}))
    config = Config(**CONFIG).merge(arguments.pop("aws_config", None) or Config())
    try:
        # One session for all clients: each would load botocore's models anew.
        session = boto3.session.Session(profile_name=arguments.pop("profile_name", None))
        if not arguments.get("aws_access_key_id") and session.get_credentials() is None:
            return "no credentials in options, environment, profile or instance"
    except BotoCoreError as error:
        raise AwsError(f"AWS login: found {error}; needed an existing profile; fix: correct profile or AWS_PROFILE") from error
    if not region:
        return "no region in options, environment or profile"
    return Session(region, lambda service: session.client(service, region_name=region, endpoint_url=endpoint, config=config, **arguments))


@dataclass(frozen=True)
class _Plugin:
    """What amazon.aws asks of a plugin of the controller, so that options become arguments of boto3 in its way."""

    options: dict[str, Any]

    def get_options(self) -> dict[str, Any]:
        return self.options

    def fail_aws(self, message: str) -> NoReturn:
        raise AwsError(f"AWS login: found {message}; needed one way to log in; fix: set profile, or access_key and secret_key, not both")


def ask(calls: Mapping[str, tuple[str, Callable[[], Any]]]) -> tuple[dict[str, Any], dict[str, Unanswered]]:
    """Make calls {name: (boto3's service, function)} at once, each allowed to fail on its own.

    Returns ({name: answer}, {name: what went wrong}). Other exceptions than botocore's are raised.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    def attempt(call: tuple[str, Callable[[], Any]]) -> tuple[Any, Unanswered | None]:
        service, function = call
        try:
            return function(), None
        except ClientError as error:
            return None, _refused(service, error)
        except BotoCoreError as error:  # no answer, or credentials that could not be loaded
            cause = "credentials" if re.search("redential|Token|Profile", type(error).__name__) else "unreachable"
            return None, Unanswered(service, cause, str(error))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = dict(zip(calls, threads.map(attempt, calls.values()), strict=True))
    return {name: answer for name, (answer, wrong) in done.items() if wrong is None}, {name: wrong for name, (_answer, wrong) in done.items() if wrong}


def _refused(service: str, error: Any) -> Unanswered:
    code, text = code_of(error), error.response["Error"].get("Message") or str(error)
    named = re.search(r"perform: ([\w-]+:\w+)", text)
    action = named[1] if named else f"{IAM_PREFIX.get(service, service)}:{error.operation_name}"
    if code in DENIED:
        return Unanswered(action, "permission", text)
    return Unanswered(action, "credentials" if code in BAD_CREDENTIALS else "failed", f"{code}: {text}")


def code_of(error: Exception) -> str:
    """The error code of a botocore ClientError, else ""."""
    return (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")


def pages(client: Any, operation: str, key: str, **params: Any) -> list[Any]:
    """All pages of a list, by boto3's method name; operations without a paginator are asked once."""
    if not client.can_paginate(operation):
        return list(getattr(client, operation)(**params)[key])
    found: Iterable[Any] = client.get_paginator(operation).paginate(**params).search(f"{key}[]")
    return list(found)
