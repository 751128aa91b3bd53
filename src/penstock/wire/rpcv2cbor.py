"""Smithy RPC v2 CBOR: `POST /service/S/operation/O` with `smithy-protocol: rpc-v2-cbor`. Newer SDKs speak it to CloudWatch.

Owns how requests, answers and errors of this protocol read. It must never do I/O or know what an operation does.
https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from penstock.errors import AwsError
from penstock.wire import awsjson, cbor
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.shapes import OperationModel, ServiceModel, Shape
from penstock.wire.validation import validate

PROTOCOL = "rpc-v2-cbor"
_PATH = re.compile(r"(?:.*/)?service/([A-Za-z0-9_]+)/operation/([A-Za-z0-9_]+)\Z")


def parse(model: ServiceModel, request: WireRequest) -> tuple[OperationModel, dict[str, Any]]:
    """The operation and its parameters, checked against the model's constraints.

    Raises AwsError: UnknownOperationException, SerializationException, the service's validation code; 501 where it is not served.
    """
    match = _PATH.match(request.path)
    if match is None or match[1] != model.target_prefix:
        raise AwsError("UnknownOperationException", f"The path {request.path!r} names no operation of {model.name}.")
    try:
        operation = model.operation(match[2])
    except KeyError:
        raise AwsError("UnknownOperationException", f"{model.name} has no operation {match[2]}.") from None
    if operation.input is None:
        return operation, {}
    try:
        document = cbor.decode(request.body) if request.body else {}
    except cbor.CborError as error:
        raise AwsError("SerializationException", f"The request body is not valid CBOR: {error}") from None
    params: dict[str, Any] = awsjson.read(operation.input, document)
    validate(operation.input, params, model.validation_code)
    return operation, params


def render(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> WireResponse:
    """The answer of an operation. Members that are None or absent are left out, in structures of any depth."""
    body = cbor.encode(_write(operation.output, output)) if operation.output else b""
    return WireResponse(operation.status, _headers(request_id), body)


def _write(shape: Shape, value: Any) -> Any:
    match shape.type:
        case "structure":
            pairs = ((name, member, value.get(name)) for name, member in shape.members.items())
            return {name: _write(member, v) for name, member, v in pairs if v is not None}
        case "list":
            return [_write(shape.element, element) for element in value]
        case "map":
            return {k: _write(shape.value, v) for k, v in value.items()}
        case "timestamp" if not isinstance(value, dt.datetime):
            return dt.datetime.fromtimestamp(value, dt.UTC)
        case "float" | "double":
            return float(value)
        case _:
            return value


def render_error(error: AwsError, request_id: str, flavour: str = "") -> WireResponse:
    """The error's body: `{"__type": code, "message": …}` and its further members."""
    body = cbor.encode({"__type": error.code, "message": error.message, **error.members})
    return WireResponse(error.status, _headers(request_id), body)


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/cbor", "smithy-protocol": PROTOCOL, "x-amzn-requestid": request_id}
