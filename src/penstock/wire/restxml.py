"""REST with XML, as S3 speaks it: the operation is in the method, the path and the query; members in URI, query, headers and body.

Owns which operation a request names, how its parameters read and how answers and errors are written. It must never do I/O: a streaming
body (an object's bytes) is neither read nor written here, the caller puts it beside the parameters as `Body`.
https://smithy.io/2.0/aws/protocols/aws-restxml-protocol.html, and S3's own departures from it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from penstock.errors import AwsError
from penstock.wire.messages import WireRequest, WireResponse
from penstock.wire.shapes import OperationModel, Route, ServiceModel, Shape
from penstock.wire.timestamps import from_text
from penstock.wire.xml import Element, element, read, scalar, text, write, write_members

_ROOTS = {
    "ListBuckets": "ListAllMyBucketsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListParts": "ListPartsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "CopyObject": "CopyObjectResult",
}
"""The root elements of S3's answers, which the model does not hold."""


def identify(model: ServiceModel, request: WireRequest) -> tuple[OperationModel, dict[str, str]]:
    """The operation that a request names, and the labels of its path (`Bucket`, `Key`), decoded.

    Raises AwsError: MethodNotAllowed where nothing fits, InvalidURI for a path that is not UTF-8, 501 where it is not served.
    """
    try:
        query = dict(parse_qsl(request.query, keep_blank_values=True, errors="strict", max_num_fields=1000))
    except ValueError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
    best: tuple[tuple[int, int, int, bool], Route, dict[str, str]] | None = None
    for route in model.routes:
        if route.method != request.method or not route.required_query <= query.keys():
            continue
        pattern, literals = _compiled(route.uri)
        if any(name not in query or (value and query[name] != value) for name, value in literals):
            continue
        match = pattern.fullmatch(request.path)
        if match is None:
            continue
        there = len(route.required_headers & request.headers.keys())
        missing = len(route.required_headers) - there
        score = (len(literals) + len(route.required_query), there - missing, there, route.name in model.served)
        if best is None or score > best[0]:
            best = (score, route, match.groupdict())
    if best is None:
        raise AwsError("MethodNotAllowed", "The specified method is not allowed against this resource.", status=405)
    return model.operation(best[1].name), {name: _decoded(value) for name, value in best[2].items()}


def _decoded(value: str) -> str:
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None


@functools.lru_cache(maxsize=1024)
def _compiled(uri: str) -> tuple[re.Pattern[str], tuple[tuple[str, str], ...]]:
    """A URI template as a pattern over the raw path, and the literal names (and values) that its query must hold."""
    path, _, query = uri.partition("?")
    literals = tuple((name, value) for name, _, value in (part.partition("=") for part in query.split("&") if part))
    pattern = ""
    for part in re.split(r"(\{\w+\+?\})", path):
        if part.endswith("+}"):
            pattern += f"(?P<{part[1:-2]}>.+)"
        elif part.startswith("{"):
            pattern += f"(?P<{part[1:-1]}>[^/]+)"
        else:
            pattern += re.escape(part)
    # A bucket may be named with a slash behind it.
    return re.compile(pattern + ("/?" if path == "/{Bucket}" else ""), re.DOTALL), literals


def parse(operation: OperationModel, labels: Mapping[str, str], request: WireRequest) -> dict[str, Any]:
    """The parameters, without a streaming body. Raises AwsError: InvalidArgument, MalformedXML, MissingRequestBodyError."""
    shape = operation.input
    if shape is None:
        return {}
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    params: dict[str, Any] = {}
    for name, member in shape.members.items():
        match member.location:
            case "uri":
                params[name] = labels[name]
            case "querystring" if member.wire_name in query:
                params[name] = _scalar(member, query[member.wire_name], member.wire_name)
            case "header" if member.wire_name.lower() in request.headers:
                params[name] = _header(member, request.headers[member.wire_name.lower()])
            case "headers":
                prefix = member.wire_name.lower()
                params[name] = {k[len(prefix) :]: v for k, v in request.headers.items() if k.startswith(prefix)}
            case _:
                pass
    _read_body(shape, request.body, params)
    for name in shape.required:
        if name not in params and not shape.members[name].streaming:
            raise AwsError("InvalidRequest", f"Missing required parameter for this operation: {name}.")
    return params


def _read_body(shape: Shape, body: bytes, params: dict[str, Any]) -> None:
    if shape.payload:
        member = shape.members[shape.payload]
        if member.streaming:
            return
        if body.strip():
            params[shape.payload] = _read(member, _root(body))
        elif shape.payload in shape.required:
            raise AwsError("MissingRequestBodyError", "Request Body is empty.")
    elif body.strip() and any(not member.location for member in shape.members.values()):
        params.update(_read(shape, _root(body)))


def _root(body: bytes) -> Element:
    try:
        return read(body)
    except ValueError:
        raise _malformed() from None


def _malformed() -> AwsError:
    return AwsError(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema."
    )


def _read(shape: Shape, node: Element) -> Any:
    match shape.type:
        case "structure":
            values: dict[str, Any] = {}
            for name, member in shape.members.items():
                if member.location:
                    continue
                tag = member.wire_name or name
                if member.type == "list" and member.flattened:
                    if items := node.all(tag):
                        values[name] = [_read(member.element, item) for item in items]
                elif member.xml_attribute:
                    if (local := tag.rpartition(":")[2]) in node.attributes:
                        values[name] = node.attributes[local]
                elif found := node.first(tag):
                    values[name] = _read(member, found)
            if any(name not in values for name in shape.required if not shape.members[name].location):
                raise _malformed()
            return values
        case "list":
            return [_read(shape.element, child) for child in node.children]
        case "map":
            raise _malformed()
        case _:
            try:
                return _scalar(shape, node.text, node.tag)
            except AwsError:
                raise _malformed() from None


def _header(member: Shape, value: str) -> Any:
    if member.type == "list":
        return [_scalar(member.element, part.strip(), member.wire_name) for part in value.split(",")]
    return _scalar(member, value, member.wire_name)


def _scalar(shape: Shape, value: str, name: str) -> Any:
    try:
        match shape.type:
            case "boolean":
                return {"true": True, "false": False}[value.strip().lower()]
            case "integer" | "long":
                return int(value)
            case "timestamp":
                return from_text(value)
            case "blob":
                return base64.b64decode(value, validate=True)
            case _:
                return value
    except (ValueError, KeyError, binascii.Error):
        raise AwsError(
            "InvalidArgument", f"Provided {name} is not a valid {shape.type}", members={"ArgumentName": name}
        ) from None


def render(operation: OperationModel, output: Mapping[str, Any], request_id: str) -> WireResponse:
    """The answer's status, headers and XML; an empty body where the output's is a stream, which the caller sends."""
    headers = {"x-amz-request-id": request_id, "x-amz-id-2": host_id(request_id)}
    shape = operation.output
    if shape is None:
        return WireResponse(operation.status, headers)
    for name, member in shape.members.items():
        value = output.get(name)
        if value is None:
            continue
        if member.location == "header":
            headers[member.wire_name] = scalar(member, value, "rfc822")
        elif member.location == "headers":
            headers.update({f"{member.wire_name}{k}": v for k, v in value.items()})
    body = _write_body(operation, shape, output)
    if body:
        headers["Content-Type"] = "application/xml"
        body = '<?xml version="1.0" encoding="UTF-8"?>\n' + body
    return WireResponse(operation.status, headers, body.encode("utf-8"))


def _write_body(operation: OperationModel, shape: Shape, output: Mapping[str, Any]) -> str:
    namespace = {"xmlns": operation.service.namespace}
    if operation.name == "GetBucketLocation":
        # S3 wraps this answer in nothing: the root holds the text.
        return element("LocationConstraint", text(output.get("LocationConstraint") or ""), namespace)
    root = _ROOTS.get(operation.name, f"{operation.name}Result")
    if shape.payload:
        member = shape.members[shape.payload]
        value = output.get(shape.payload)
        if member.streaming or value is None:
            return ""
        if member.type == "structure":
            return element(root, write_members(member, value), namespace)
        return write(member, root, value)
    if all(member.location for member in shape.members.values()):
        return ""
    return element(root, write_members(shape, output), namespace)


def render_error(error: AwsError, request_id: str, *, resource: str = "", bare: bool = False) -> WireResponse:
    """S3's `<Error>`, with the error's further members. `bare` leaves the body out (HEAD, 304)."""
    headers = {"x-amz-request-id": request_id, "x-amz-id-2": host_id(request_id)}
    if bare or error.status == 304:
        return WireResponse(error.status, headers)
    told: Iterable[tuple[str, object]] = {
        "Code": error.code,
        "Message": error.message,
        **({"Resource": resource} if resource else {}),
        **error.members,
        "RequestId": request_id,
        "HostId": host_id(request_id),
    }.items()
    body = element("Error", "".join(element(name, text(value)) for name, value in told))
    headers["Content-Type"] = "application/xml"
    return WireResponse(error.status, headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode())


def host_id(request_id: str) -> str:
    """S3's second request id: opaque, and here made of the first."""
    return base64.b64encode(f"penstock/{request_id}".encode()).decode("ascii")
