"""AWS Query: a form with `Action` and `Version` in, XML out. STS, IAM and CloudWatch speak it.

Owns how requests, answers and errors of this protocol read. It must never do I/O or know what an operation does.
https://smithy.io/2.0/aws/protocols/aws-query-protocol.html
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from penstock.errors import AwsError
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.shapes import OperationModel, ServiceModel, Shape
from penstock.wire.timestamps import from_text
from penstock.wire.validation import validate
from penstock.wire.xml import element, text, write_members

_DEPTH = 32
_FIELDS = 20_000
Tree = dict[str, Any]
"""Dotted names taken apart: a leaf is a str, under the key "" where it also has children."""


def parse(model: ServiceModel, request: WireRequest) -> tuple[OperationModel, dict[str, Any]]:
    """The operation and its parameters, checked against the model's constraints.

    Raises AwsError: MissingAction, InvalidAction, MalformedQueryString, MalformedInput, ValidationError; 501 where it is not served.
    """
    form = _form(request)
    action = form.get("Action")
    if not action:
        raise AwsError("MissingAction", "The request is missing the parameter Action.")
    try:
        operation = model.operation(action)
    except KeyError:
        version = form.get("Version", model.api_version)
        raise AwsError("InvalidAction", f"Could not find operation {action} for version {version}") from None
    if operation.input is None:
        return operation, {}
    params: dict[str, Any] = _read(operation.input, _tree(form), "")
    validate(operation.input, params, model.validation_code)
    return operation, params


def _form(request: WireRequest) -> dict[str, str]:
    try:
        body = request.body.decode("utf-8") if request.method == "POST" else ""
        pairs = [
            pair
            for source in (request.query, body)
            for pair in parse_qsl(source, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
        ]
    except ValueError as error:
        raise AwsError("MalformedQueryString", f"The request is not a valid form: {error}") from None
    return dict(pairs)


def _tree(form: Mapping[str, str]) -> Tree:
    root: Tree = {}
    for name, value in form.items():
        parts = name.split(".")
        if len(parts) > _DEPTH:
            raise AwsError("MalformedInput", "A parameter's name is nested too deep.")
        node = root
        for part in parts:
            node = node.setdefault(part, {})
        node[""] = value
    return root


def _read(shape: Shape, node: Tree, name: str) -> Any:
    match shape.type:
        case "structure":
            pairs = ((n, member, node.get(_name(member, n))) for n, member in shape.members.items())
            return {n: _read(member, found, n) for n, member, found in pairs if found is not None}
        case "list":
            items = node if shape.flattened else node.get(shape.element.wire_name or "member", {})
            return [_read(shape.element, item, name) for item in _numbered(items, name)]
        case "map":
            entries = node if shape.flattened else node.get("entry", {})
            key, value = shape.key.wire_name or "key", shape.value.wire_name or "value"
            return {
                _read(shape.key, entry.get(key, {}), name): _read(shape.value, entry.get(value, {}), name)
                for entry in _numbered(entries, name)
            }
        case _:
            if "" not in node:
                raise AwsError("MalformedInput", f"The parameter {name} has no value.")
            return _scalar(shape, node[""], name)


def _name(member: Shape, name: str) -> str:
    """A flattened list is named after its element's wire name, where it has one."""
    if member.type == "list" and member.flattened and member.element.wire_name:
        return member.element.wire_name
    return member.wire_name or name


def _numbered(items: Tree, name: str) -> list[Tree]:
    numbers = [key for key in items if key]
    if not all(key.isascii() and key.isdigit() and len(key) < 10 for key in numbers):
        raise AwsError("MalformedInput", f"The members of {name} must be numbered.")
    return [items[key] for key in sorted(numbers, key=int)]


def _scalar(shape: Shape, value: str, name: str) -> Any:
    try:
        match shape.type:
            case "boolean":
                return {"true": True, "false": False}[value.lower()]
            case "integer" | "long":
                return int(value)
            case "float" | "double":
                return float(value)
            case "timestamp":
                return from_text(value)
            case "blob":
                return base64.b64decode(value, validate=True)
            case _:
                return value
    except (ValueError, KeyError, binascii.Error):
        raise AwsError("MalformedInput", f"The value of {name} is not a valid {shape.type}.") from None


def render(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> WireResponse:
    """`<XResponse><XResult>…</XResult><ResponseMetadata>…`. Members that are None or absent are left out."""
    body = ""
    if operation.output is not None:
        body = write_members(operation.output, output)
        if operation.result_wrapper:
            body = element(operation.result_wrapper, body)
    body += element("ResponseMetadata", element("RequestId", text(request_id)))
    return _response(operation.status, f"{operation.name}Response", body, operation.service.namespace, request_id)


def render_error(error: AwsError, request_id: str, namespace: str = "") -> WireResponse:
    """`<ErrorResponse><Error><Type>Sender…` with the error's further members beside its code."""
    told = {
        "Type": "Sender" if error.fault == "client" else "Receiver",
        "Code": error.code,
        "Message": error.message,
        **error.members,
    }
    inner = element("Error", "".join(element(k, text(v)) for k, v in told.items()))
    inner += element("RequestId", text(request_id))
    return _response(error.status, "ErrorResponse", inner, namespace, request_id)


def _response(status: int, tag: str, inner: str, namespace: str, request_id: str) -> WireResponse:
    body = element(tag, inner, {"xmlns": namespace} if namespace else None)
    headers = {"content-type": "text/xml", "x-amzn-requestid": request_id}
    return WireResponse(status, headers, body.encode("utf-8"))
