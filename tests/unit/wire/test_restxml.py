"""S3's protocol against botocore's own serializer and parser as the client."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import botocore.parsers
import botocore.serialize
import pytest
from botocore.awsrequest import HeadersDict
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire import restxml
from penstock.wire.messages import WireRequest
from tests.unit.wire.models import XML_TEXT, document, ours, theirs, unconstrained, values

OPERATIONS = [
    "CreateBucket", "HeadBucket", "ListBuckets", "DeleteBucket", "GetBucketLocation", "PutObject", "GetObject", "HeadObject",
    "DeleteObject", "DeleteObjects", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy",
    "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts", "ListMultipartUploads", "ListObjects", "ListObjectsV2",
]  # fmt: skip
MODEL = ours("s3", unconstrained("s3"), *OPERATIONS)
ORACLE = theirs("s3", unconstrained("s3"))
WHOLE = ours("s3", document("s3"))
HEADER_TEXT = st.text("abcXYZ019-_./ ", min_size=1, max_size=12).map(str.strip).filter(bool)


def wire(serialized: dict[str, Any]) -> WireRequest:
    path, _, query = serialized["url_path"].partition("?")
    extra = serialized["query_string"]
    pairs = list(extra.items()) if isinstance(extra, dict) else extra
    joined = "&".join(part for part in (query, urlencode(pairs, quote_via=quote)) if part)
    body = serialized["body"]
    headers = {k.lower(): str(v) for k, v in serialized["headers"].items()}
    return WireRequest(serialized["method"], path, joined, headers, body if isinstance(body, bytes) else b"")


def placed(shape: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Parameters whose text fits where it travels: anything in the body, tame text in headers and query, some text in the URI."""
    members = {}
    for name, member in shape.members.items():
        if member.streaming or name in ("Metadata", "OptionalObjectAttributes", "ObjectAttributes") or "SSE" in name:
            continue
        text = XML_TEXT if not member.location else HEADER_TEXT
        if member.location == "uri":
            text = (
                st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
                if name == "Key"
                else HEADER_TEXT
            )
            if name == "Bucket":
                text = st.from_regex(r"[a-z]{3,8}", fullmatch=True)
        members[name] = values(member, text, whole_seconds=True)
    required = {n: s for n, s in members.items() if n in shape.required}
    return st.fixed_dictionaries(required, optional={n: s for n, s in members.items() if n not in required})


def without_empty(value: object) -> object:
    if isinstance(value, dict):
        return {k: w for k, v in value.items() if (w := without_empty(v)) not in ({}, None, [])}
    return [without_empty(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_botocore_writes_is_what_we_read(operation: str, data: st.DataObject) -> None:
    shape = MODEL.operation(operation).input
    assert shape is not None
    params = data.draw(placed(shape))
    serialized = botocore.serialize.create_serializer("rest-xml", include_validation=False).serialize_to_request(
        params, ORACLE.operation_model(operation)
    )
    asked = wire(serialized)
    found, labels = restxml.identify(MODEL, asked)
    assert found.name == operation
    parsed = restxml.parse(found, labels, asked)
    parsed.pop("Metadata", None)
    assert without_empty(parsed) == without_empty(params)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o not in ("GetObject", "GetBucketLocation")])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_we_write_is_what_botocore_reads(operation: str, data: st.DataObject) -> None:
    model = MODEL.operation(operation)
    output = data.draw(placed(model.output)) if model.output else {}
    answer = restxml.render(model, output, "r-1")
    response = {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body}
    parsed = botocore.parsers.create_parser("rest-xml").parse(response, ORACLE.operation_model(operation).output_shape)
    metadata = parsed.pop("ResponseMetadata")
    assert metadata["HTTPHeaders"]["x-amz-request-id"] == "r-1"
    parsed.pop("Metadata", None)
    assert without_empty(parsed) == without_empty(output)


@pytest.mark.parametrize(
    ("method", "target", "headers", "operation"),
    [
        ("GET", "/", {}, "ListBuckets"),
        ("GET", "/b", {}, "ListObjects"),
        ("GET", "/b/", {}, "ListObjects"),
        ("GET", "/b/?prefix=x", {}, "ListObjects"),
        ("GET", "/b?list-type=2", {}, "ListObjectsV2"),
        ("GET", "/b?list-type=1", {}, "ListObjects"),
        ("GET", "/b?location", {}, "GetBucketLocation"),
        ("GET", "/b?uploads", {}, "ListMultipartUploads"),
        ("GET", "/b?versioning", {}, "GetBucketVersioning"),
        ("PUT", "/b?versioning", {}, "PutBucketVersioning"),
        ("PUT", "/b", {}, "CreateBucket"),
        ("GET", "/b/k", {}, "GetObject"),
        ("GET", "/b//", {}, "GetObject"),
        ("GET", "/b/k/", {}, "GetObject"),
        ("GET", "/b/k?tagging", {}, "GetObjectTagging"),
        ("GET", "/b/k?uploadId=u", {}, "ListParts"),
        ("PUT", "/b/k", {}, "PutObject"),
        ("PUT", "/b/k", {"x-amz-copy-source": "/b/j"}, "CopyObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {}, "UploadPart"),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {"x-amz-copy-source": "/b/j"}, "UploadPartCopy"),
        ("POST", "/b/k?uploads", {}, "CreateMultipartUpload"),
        ("POST", "/b/k?uploadId=u", {}, "CompleteMultipartUpload"),
        ("DELETE", "/b/k?uploadId=u", {}, "AbortMultipartUpload"),
        ("DELETE", "/b/k", {}, "DeleteObject"),
        ("POST", "/b?delete", {}, "DeleteObjects"),
        ("HEAD", "/b", {}, "HeadBucket"),
        ("HEAD", "/b/k", {}, "HeadObject"),
    ],
)
def test_the_operation_is_found_by_method_path_query_and_headers(
    method: str, target: str, headers: dict[str, str], operation: str
) -> None:
    path, _, query = target.partition("?")
    asked = WireRequest(method, path, query, headers)
    found, labels = restxml.identify(WHOLE, asked)
    assert found.name == operation
    assert labels.get("Bucket", "b") == "b"
    # A server of few operations must not take one that it does not serve for one that it does.
    if operation in OPERATIONS:
        assert restxml.identify(MODEL, asked)[0].name == operation
    else:
        with pytest.raises(AwsError, match=f"does not serve the operation {operation}"):
            restxml.identify(MODEL, asked)


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("PATCH", "/b/k", "MethodNotAllowed"),
        ("GET", "/b/%ff", "InvalidURI"),
        ("GET", "/b?a=%ff", "InvalidURI"),
    ],
)
def test_what_fits_no_operation_is_told_so(method: str, target: str, code: str) -> None:
    path, _, query = target.partition("?")
    with pytest.raises(AwsError) as caught:
        restxml.identify(MODEL, WireRequest(method, path, query))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"<Delete/>",
        b"<Delete><Object/></Delete>",
        b"{}",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Delete><Object><Key>&a;</Key></Object></Delete>',
        b"<Delete>" + b"<a>" * 100 + b"</a>" * 100 + b"</Delete>",
        b"<Delete><Object><Key>k</Key></Object><Quiet>maybe</Quiet></Delete>",
    ],
)
def test_bad_xml_is_malformed(body: bytes) -> None:
    asked = WireRequest("POST", "/b", "delete", {}, body)
    operation, labels = restxml.identify(WHOLE, asked)
    with pytest.raises(AwsError) as caught:
        restxml.parse(operation, labels, asked)
    assert caught.value.code == "MalformedXML"


def test_a_value_of_the_wrong_type_is_an_invalid_argument() -> None:
    asked = WireRequest("GET", "/b", "max-keys=many")
    operation, labels = restxml.identify(MODEL, asked)
    with pytest.raises(AwsError) as caught:
        restxml.parse(operation, labels, asked)
    assert (caught.value.code, caught.value.members) == ("InvalidArgument", {"ArgumentName": "max-keys"})


def test_errors_are_read_by_botocore() -> None:
    error = AwsError("NoSuchKey", "The specified key does not exist.", status=404, members={"Key": "a&b"})
    answer = restxml.render_error(error, "r-3", resource="/b/a&b")
    response = {"status_code": 404, "headers": dict(answer.headers), "body": answer.body}
    parsed = botocore.parsers.create_parser("rest-xml").parse(response, None)
    assert parsed["Error"]["Code"] == "NoSuchKey"
    assert parsed["Error"]["Key"] == "a&b"
    assert parsed["Error"]["Resource"] == "/b/a&b"
    assert b"<RequestId>r-3</RequestId><HostId>" in answer.body
    assert restxml.render_error(error, "r-3", bare=True).body == b""


def test_the_location_of_a_bucket_stands_in_the_root() -> None:
    answer = restxml.render(MODEL.operation("GetBucketLocation"), {"LocationConstraint": "eu-west-1"}, "r")
    assert answer.body.endswith(
        b'<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">eu-west-1</LocationConstraint>'
    )
