"""One AWS service behind the protocols that it speaks: parse, call the operation, render.

Owns that order, the limit on a request's size and the check of its body. It must never know what an operation does, nor how a request
was authenticated: the gateway did that, and says who calls in the headers of `routes.py`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock import routes
from penstock.control import actions, models
from penstock.control.actions import Asked
from penstock.errors import AccessDenied, AwsError
from penstock.wire import awsjson, awsquery, rpcv2cbor
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.refusals import Dialect, denied, wrong_body
from penstock.wire.shapes import OperationModel, ServiceModel
from penstock.wire.sigv4 import is_hash

log = logging.getLogger(__name__)
BODY_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the gateway verified it. `service` is the signature scope's."""

    account: str
    region: str
    arn: str
    access_key: str
    request_id: str
    service: str
    source_ip: str = ""
    secure: bool = False


Allow = Callable[[Caller, Iterable[Asked]], None]
"""Raises AccessDenied where the caller may not do all of that."""


def allow_all(caller: Caller, asked: Iterable[Asked]) -> None:
    """For callers that have no policies."""


Operation = Callable[[Caller, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes the parameters by AWS's names (absent members are absent), returns the output; None members are left out. Raises AwsError."""


class WireProtocol(Protocol):
    """What a protocol module (`wire/awsjson.py`, `wire/awsquery.py`, `wire/rpcv2cbor.py`) offers."""

    def parse(self, model: ServiceModel, request: WireRequest) -> tuple[OperationModel, dict[str, Any]]: ...

    def render(self, operation: OperationModel, output: Mapping[str, Any], request_id: str) -> WireResponse: ...

    def render_error(self, error: AwsError, request_id: str, flavour: str, /) -> WireResponse: ...


class AwsService:
    """A service in AWS JSON, RPC v2 CBOR or Query, whichever a request is in. `name` is botocore's folder name of its model."""

    def __init__(
        self,
        name: str,
        operations: Mapping[str, Operation],
        *,
        body_bytes: int = BODY_BYTES,
        allow: Allow = allow_all,
        error_types: Mapping[str, str] | None = None,
    ) -> None:
        """`error_types`: of a service that spoke Query first, what newer protocols call its error codes."""
        self.name = name
        self._allow = allow
        self._error_types = error_types or {}
        self.operations = dict(operations)
        self.body_bytes = body_bytes

    @functools.cached_property
    def model(self) -> ServiceModel:
        """Loaded on first use: an idle server holds no model."""
        return models.load(self.name, frozenset(self.operations))

    async def handle(self, request: Request) -> Response:
        """Answers one request; every failure is an answer in the protocol's shape."""
        caller = caller_of(request)
        protocol, dialect, flavour = self._protocol(request.headers)
        try:
            wire_request = inflated(await read_request(request, self.body_bytes, dialect), self.body_bytes)
            operation, params = protocol.parse(self.model, wire_request)
            self._authorize(caller, operation.name, params, dialect)
            output = await self.operations[operation.name](caller, params)
            answer = protocol.render(operation, output, caller.request_id)
        except AwsError as error:
            answer = self._refusal(error, protocol, caller.request_id, flavour)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("%s: request %s failed", self.name, caller.request_id)
            answer = protocol.render_error(internal_failure(), caller.request_id, flavour)
        return to_starlette(answer)

    def _authorize(self, caller: Caller, operation: str, params: Mapping[str, Any], dialect: Dialect) -> None:
        try:
            self._allow(caller, actions.asked(self.name, operation, params, caller.region, caller.account))
        except AccessDenied as error:
            raise denied(dialect, error.message) from None

    def _protocol(self, headers: Mapping[str, str]) -> tuple[WireProtocol, Dialect, str]:
        """The protocol, its dialect of refusals, and what its errors need to know of the service."""
        if "smithy-protocol" in headers and "smithy-rpc-v2-cbor" in self.model.protocols:
            return rpcv2cbor, "json", ""
        if "query" in self.model.protocols and not ("x-amz-target" in headers and "json" in self.model.protocols):
            return awsquery, "query", self.model.namespace
        return awsjson, "json", self.model.json_version

    def _refusal(self, error: AwsError, protocol: WireProtocol, request_id: str, flavour: str) -> WireResponse:
        """Of a service that spoke Query first, newer protocols have the old code in a header: clients go by it."""
        if protocol is awsquery or error.code not in self._error_types:
            return protocol.render_error(error, request_id, flavour)
        named = AwsError(self._error_types[error.code], error.message, status=error.status, members=error.members)
        answer = protocol.render_error(named, request_id, flavour)
        fault = "Sender" if error.fault == "client" else "Receiver"
        return replace(answer, headers={**answer.headers, "x-amzn-query-error": f"{error.code};{fault}"})


def internal_failure() -> AwsError:
    return AwsError("InternalFailure", "The request processing has failed because of an unknown error.", status=500)


def caller_of(request: Request) -> Caller:
    """The identity that the gateway put into the headers."""
    headers = request.headers
    return Caller(
        account=headers.get(routes.HEADER_ACCOUNT, ""),
        region=headers.get(routes.HEADER_REGION, ""),
        arn=headers.get(routes.HEADER_CALLER_ARN, ""),
        access_key=headers.get(routes.HEADER_ACCESS_KEY, ""),
        request_id=headers.get(routes.HEADER_REQUEST_ID) or str(uuid.uuid4()),
        service=headers.get(routes.HEADER_SERVICE, ""),
        source_ip=headers.get(routes.HEADER_SOURCE_IP, ""),
        secure=headers.get(routes.HEADER_SECURE) == "1",
    )


def head_of(request: Request) -> WireRequest:
    """Method, raw path, query and headers, without the body."""
    scope = request.scope
    path = scope.get("raw_path") or scope["path"].encode("utf-8")
    return WireRequest(
        method=request.method,
        path=path.partition(b"?")[0].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=dict(request.headers.items()),
    )


async def read_request(request: Request, limit: int, dialect: Dialect) -> WireRequest:
    """The request with its body, which must have the hash that the signature covers.

    Raises AwsError: RequestEntityTooLarge (413), and as the gateway would for a changed body.
    """
    head = head_of(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise AwsError("RequestEntityTooLarge", f"The request body is larger than {limit} bytes.", status=413)
    declared = head.headers.get("x-amz-content-sha256", "")
    if is_hash(declared) and hashlib.sha256(body).hexdigest() != declared.lower():
        raise wrong_body(dialect)
    return WireRequest(head.method, head.path, head.query, head.headers, bytes(body))


def inflated(request: WireRequest, limit: int) -> WireRequest:
    """The request with its body unpacked, where the client has packed it. Raises AwsError."""
    if request.headers.get("content-encoding", "").lower() != "gzip":
        return request
    unpacking = zlib.decompressobj(wbits=31)
    try:
        body = unpacking.decompress(request.body, limit + 1)
    except zlib.error as error:
        raise AwsError("SerializationException", f"The request body is not gzip: {error}") from None
    if len(body) > limit:
        raise AwsError("RequestEntityTooLarge", f"The request body is larger than {limit} bytes.", status=413)
    if not unpacking.eof:
        raise AwsError("SerializationException", "The request body is not gzip: it has no end")
    return replace(request, body=body)


def to_starlette(answer: WireResponse) -> Response:
    return Response(answer.body, status_code=answer.status, headers=dict(answer.headers))
