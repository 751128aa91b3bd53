"""AWS JSON 1.0 and 1.1: `POST /` with `X-Amz-Target: Prefix.Operation`.

Owns how requests, answers and errors of this protocol read. It must never do I/O or know what an operation does.
https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec

from penstock.errors import AwsError
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.shapes import OperationModel, ServiceModel, Shape
from penstock.wire.timestamps import from_number, from_text, to_epoch
from penstock.wire.validation import validate

_encoder = msgspec.json.Encoder()


def parse(model: ServiceModel, request: WireRequest) -> tuple[OperationModel, dict[str, Any]]:
    """The operation and its parameters, checked against the model's constraints. Members set to null are left out.

    Raises AwsError: UnknownOperationException, SerializationException, the service's validation code; 501 where it is not served.
    """
    operation = _operation(model, request.headers.get("x-amz-target", ""))
    try:
        document = msgspec.json.decode(request.body) if request.body.strip() else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise AwsError("SerializationException", f"The request body is not valid JSON: {error}") from None
    if operation.input is None:
        return operation, {}
    params: dict[str, Any] = read(operation.input, document)
    validate(operation.input, params, model.validation_code)
    return operation, params


def _operation(model: ServiceModel, target: str) -> OperationModel:
    prefix, _, name = target.rpartition(".")
    if prefix != model.target_prefix or not name:
        raise AwsError("UnknownOperationException", f"The target {target!r} names no operation of {model.name}.")
    try:
        return model.operation(name)
    except KeyError:
        raise AwsError("UnknownOperationException", f"{model.name} has no operation {name}.") from None


def read(shape: Shape, value: Any) -> Any:
    """A decoded document as parameters of that shape. Raises AwsError (SerializationException) on a value of the wrong kind."""
    match shape.type:
        case "structure":
            if shape.is_document:
                return value
            if not isinstance(value, dict):
                raise _unexpected(value, "structure")
            pairs = ((name, member, value.get(member.wire_name or name)) for name, member in shape.members.items())
            return {name: read(member, found) for name, member, found in pairs if found is not None}
        case "list":
            if not isinstance(value, list):
                raise _unexpected(value, "list")
            return [read(shape.element, element) for element in value if element is not None]
        case "map":
            if not isinstance(value, dict):
                raise _unexpected(value, "map")
            return {read(shape.key, k): read(shape.value, v) for k, v in value.items() if v is not None}
        case _:
            return _read_scalar(shape, value)


def _read_scalar(shape: Shape, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match shape.type:
        case "string" | "character" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "long" if number and value == int(value):
            bits = 31 if shape.type == "integer" else 63
            if not -(2**bits) <= value < 2**bits:
                raise AwsError("SerializationException", f"{value} is out of the range of {_article(shape.type)}")
            return int(value)
        case "float" | "double" if number:
            return float(value)
        case "timestamp" if number or isinstance(value, str):
            try:
                return from_number(value) if number else from_text(value)
            except ValueError:
                raise AwsError("SerializationException", f"Unable to parse {value!r} as a timestamp") from None
        case "blob" if isinstance(value, str):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise AwsError("SerializationException", "A blob must be valid base64") from None
        case _:
            raise _unexpected(value, shape.type)


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.capitalize()}"


def _unexpected(value: Any, wanted: str) -> AwsError:
    """What AWS says of a JSON value of the wrong kind."""
    if isinstance(value, dict):
        message = "Start of structure or map found where not expected."
    elif isinstance(value, list):
        message = "Start of list found where not expected"
    else:
        kind = {bool: f"{str(value).upper()}_VALUE", str: "STRING_VALUE", int: "NUMBER_VALUE", float: "DECIMAL_VALUE"}
        message = f"{kind.get(type(value), 'NULL_VALUE')} can not be converted to {_article(wanted)}"
    return AwsError("SerializationException", message)


def render(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> WireResponse:
    """The answer of an operation. Members that are None or absent are left out, in structures of any depth."""
    document = _write(operation.output, output) if operation.output else None
    body = b"" if document is None else _encoder.encode(document)
    return WireResponse(operation.status, _headers(operation.service.json_version, request_id), body)


def _write(shape: Shape, value: Any) -> Any:
    match shape.type:
        case "structure":
            if shape.is_document:
                return value
            pairs = ((name, member, value.get(name)) for name, member in shape.members.items())
            return {member.wire_name or name: _write(member, v) for name, member, v in pairs if v is not None}
        case "list":
            return [_write(shape.element, element) for element in value]
        case "map":
            return {k: _write(shape.value, v) for k, v in value.items()}
        case "timestamp":
            return to_epoch(value) if isinstance(value, dt.datetime) else value
        case "blob":
            return base64.b64encode(value).decode("ascii")
        case _:
            return value


def render_error(error: AwsError, request_id: str, json_version: str = "1.1") -> WireResponse:
    """The error's body: `{"__type": code, "message": …}` and its further members."""
    body = _encoder.encode({"__type": error.code, "message": error.message, **error.members})
    return WireResponse(error.status, _headers(json_version, request_id), body)


def _headers(json_version: str, request_id: str) -> dict[str, str]:
    return {"content-type": f"application/x-amz-json-{json_version}", "x-amzn-requestid": request_id}
