# SPDX-License-Identifier: GPL-3.0-or-later
"""The WSGI application: identify the AWS operation, refuse what a test denies, answer what is ours, hand the rest to moto.

Routing, parsing and serializing are moto's own (moto.core), driven by botocore's service models, so an answer of ours has the same
wire format as one of moto's in whatever protocol the client speaks.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import UnknownServiceError
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.exceptions import NotFound
from werkzeug.serving import BaseWSGIServer, make_server

from sandbox.aws import capacity, eks_access, eks_addons, eks_cluster, eks_nodegroup, eks_update, filters, prices, quotas, seed, stack_repairs
from sandbox.aws.api import HANDLERS, PASS_ON, AwsError, Call
from sandbox.aws.control_api import PREFIX, control
from sandbox.aws.state import State

OPERATION_MODULES = (capacity, eks_access, eks_addons, eks_cluster, eks_nodegroup, eks_update, prices, quotas)
# The name in a request's signature, where it is not boto3's name of the service.
SIGNING_NAMES = {"servicequotas": "service-quotas", "monitoring": "cloudwatch", "elasticfilesystem": "efs"}


class Double:
    """WSGI application: moto's with our operations, refusals and record in front."""

    def __init__(self, state: State):
        self.state = state
        self.lock = threading.RLock()
        self.moto = DomainDispatcherApplication(create_backend_app)
        stack_repairs.install()
        filters.install()
        seed.sow(state)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = _read_body(environ)
        if environ.get("PATH_INFO", "").startswith(PREFIX):
            with self.lock:
                status, answer = control(self.state, environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""), body)
            return _send(start_response, status, {"Content-Type": "application/json"}, json.dumps(answer, default=str))
        identified = _identify(environ, self.state)
        if identified is None:
            return self.moto(environ, start_response)
        call, request, operation, uri_params = identified
        with self.lock:
            protocol = determine_request_protocol(operation.service_model, request.content_type)
            result = self._answer(call, request, operation, uri_params, protocol)
            if result is not PASS_ON:
                serializer = get_serializer_class(call.service, protocol)(operation_model=operation)
                response = serializer.serialize(result)
                status = getattr(result, "status", None) or response["status_code"]
                self.state.record(call, status, dry_run=False)
                return _send(start_response, status, response["headers"], response["body"])
        environ["wsgi.input"] = io.BytesIO(body)
        dry_run = call.service == "ec2" and request.values.get("DryRun") == "true"

        def recording_start(status_line: str, headers: list, exc_info: Any = None) -> Any:
            with self.lock:
                self.state.record(call, int(status_line.split()[0]), dry_run)
            return start_response(status_line, headers, exc_info)

        return self.moto(environ, recording_start)

    def _answer(self, call: Call, request: Request, operation: Any, uri_params: dict[str, Any], protocol: str) -> Any:
        """Our result, the error as an exception object, or PASS_ON."""
        try:
            self.state.refuse(call)
            handler = HANDLERS.get((call.service, call.operation))
            if handler is None:
                return PASS_ON
            params = PROTOCOL_PARSERS[protocol](operation, map_type=dict).parse(
                {
                    "method": request.method,
                    "values": request.values,
                    "headers": request.headers,
                    "body": request.data,
                    "url_path": request.path,
                    "url_params": uri_params,
                }
            )
            return handler(call, {k: v for k, v in params.items() if v is not None})
        except AwsError as error:
            return error


def _read_body(environ: dict[str, Any]) -> bytes:
    """The whole body; the environment gets a fresh copy, because the router and moto each read it."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    if length:
        body = stream.read(int(length))
    elif environ.get("wsgi.input_terminated"):
        body = stream.read()
    else:
        body = b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _identify(environ: dict[str, Any], state: State) -> tuple[Call, Request, Any, dict[str, Any]] | None:
    """The call and what parses it, or None for a request that is not signed (SigV4 header) or fits no operation of its service."""
    try:
        scope = environ.get("HTTP_AUTHORIZATION", "").split("Credential=", 1)[1].split(",")[0]
        access_key, _, region, service, _ = scope.split("/")
    except (IndexError, ValueError):
        return None
    service = SIGNING_NAMES.get(service, service)
    # A copy, so that what the request caches does not reach moto's own environment.
    request = Request(dict(environ))
    try:
        operation, uri_params = get_service_router(service).match(request)
    except (UnknownServiceError, NotFound, NotImplementedError):
        return None
    return Call(service, operation.name, region, access_key, state), request, operation, uri_params


def _send(start_response: Any, status: int, headers: dict[str, Any], body: str | bytes) -> list[bytes]:
    payload = body if isinstance(body, bytes) else body.encode()
    start_response(f"{status} {'OK' if status < 400 else 'Error'}", [*((k, str(v)) for k, v in headers.items()), ("Content-Length", str(len(payload)))])
    return [payload]


def serve(state: State, ports: list[int]) -> list[BaseWSGIServer]:
    """Start one threaded server a port on 127.0.0.1, all with the same application; the caller runs shutdown() on each."""
    double = Double(state)
    servers = [make_server("127.0.0.1", port, double, threaded=True, request_handler=MotoRequestHandler) for port in ports]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return servers
