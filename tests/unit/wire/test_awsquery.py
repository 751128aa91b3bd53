"""AWS Query against botocore's own serializer and parser as the client."""

from __future__ import annotations

from urllib.parse import urlencode

import botocore.parsers
import botocore.serialize
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire import awsquery
from penstock.wire.messages import WireRequest
from tests.unit.wire.models import XML_TEXT, document, ours, theirs, unconstrained, values

LOADED = {name: unconstrained(name) for name in ("iam", "sts")}
OPERATIONS = [("iam", n) for n in ("GetRole", "CreateRole", "SimulatePrincipalPolicy")] + [
    ("sts", n) for n in ("GetCallerIdentity", "AssumeRole", "GetSessionToken")
]
MODELS = {name: ours(name, loaded, *(o for s, o in OPERATIONS if s == name)) for name, loaded in LOADED.items()}
ORACLES = {name: theirs(name, loaded) for name, loaded in LOADED.items()}
STRICT = ours("iam", document("iam"), "GetRole", "SimulatePrincipalPolicy", "CreateRole")


def request(**form: str) -> WireRequest:
    return WireRequest("POST", "/", body=urlencode({"Version": "2010-05-08", **form}).encode())


def without_empty(value: object) -> object:
    """Query cannot say that a structure or a list is there and empty: botocore writes nothing, or `Name=`."""
    if isinstance(value, dict):
        return {k: w for k, v in value.items() if (w := without_empty(v)) not in ({}, [])}
    return [w for v in value if (w := without_empty(v)) not in ({}, [])] if isinstance(value, list) else value


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_botocore_writes_is_what_we_read(service: str, operation: str, data: st.DataObject) -> None:
    shape = MODELS[service].operation(operation).input
    params = data.draw(values(shape, XML_TEXT, whole_seconds=True)) if shape else {}
    serialized = botocore.serialize.create_serializer("query", include_validation=False).serialize_to_request(
        params, ORACLES[service].operation_model(operation)
    )
    body = urlencode(serialized["body"]).encode()
    found, parsed = awsquery.parse(MODELS[service], WireRequest("POST", "/", "", {}, body))
    assert found.name == operation
    assert without_empty(parsed) == without_empty(params)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_we_write_is_what_botocore_reads(service: str, operation: str, data: st.DataObject) -> None:
    model = MODELS[service].operation(operation)
    assert model.output is not None
    output = data.draw(values(model.output, XML_TEXT))
    answer = awsquery.render(model, output, "r-1")
    response = {"status_code": answer.status, "headers": dict(answer.headers), "body": answer.body}
    oracle = ORACLES[service].operation_model(operation).output_shape
    parsed = botocore.parsers.create_parser("query").parse(response, oracle)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "r-1"
    assert parsed == output


def test_lists_are_read_in_the_order_of_their_numbers() -> None:
    form = {f"ActionNames.member.{i}": f"a:{i}" for i in (10, 9, 1)}
    _, params = awsquery.parse(STRICT, request(Action="SimulatePrincipalPolicy", PolicySourceArn="a" * 20, **form))
    assert params["ActionNames"] == ["a:1", "a:9", "a:10"]


def test_a_form_may_be_in_the_query() -> None:
    asked = WireRequest("GET", "/", query="Action=GetRole&RoleName=r%2B1&Version=2010-05-08")
    operation, params = awsquery.parse(STRICT, asked)
    assert (operation.name, params) == ("GetRole", {"RoleName": "r+1"})


@pytest.mark.parametrize(
    ("form", "code", "message"),
    [
        ({}, "MissingAction", "missing the parameter Action"),
        ({"Action": "Nonsense"}, "InvalidAction", "Could not find operation Nonsense for version 2010-05-08"),
        ({"Action": "DeleteRole"}, "NotImplemented", "does not serve the operation DeleteRole of iam"),
        (
            {"Action": "GetRole"},
            "ValidationError",
            "1 validation error detected: Value null at 'roleName' failed to satisfy constraint: Member must not be null",
        ),
        ({"Action": "GetRole", "RoleName.member.1": "x"}, "MalformedInput", "RoleName has no value"),
        (
            {"Action": "CreateRole", "MaxSessionDuration": "long"},
            "MalformedInput",
            "MaxSessionDuration is not a valid integer",
        ),
        ({"Action": "SimulatePrincipalPolicy", "ActionNames.member.x": "a"}, "MalformedInput", "must be numbered"),
        ({"Action": "GetRole", ".".join("a" * 40): "x"}, "MalformedInput", "nested too deep"),
    ],
)
def test_a_bad_request_is_told_why(form: dict[str, str], code: str, message: str) -> None:
    with pytest.raises(AwsError) as caught:
        awsquery.parse(STRICT, request(**form))
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize("body", [b"Action=%ff", b"\xff", b"&".join(b"a%d=1" % i for i in range(20_001))])
def test_what_is_no_form_is_told_so(body: bytes) -> None:
    with pytest.raises(AwsError) as caught:
        awsquery.parse(STRICT, WireRequest("POST", "/", body=body))
    assert caught.value.code == "MalformedQueryString"


def test_errors_are_read_by_botocore() -> None:
    error = AwsError("NoSuchEntity", "The role with name <x> cannot be found.", status=404)
    answer = awsquery.render_error(error, "r-2", STRICT.namespace)
    response = {"status_code": answer.status, "headers": dict(answer.headers), "body": answer.body}
    parsed = botocore.parsers.create_parser("query").parse(response, None)
    assert parsed["Error"] == {
        "Type": "Sender",
        "Code": "NoSuchEntity",
        "Message": "The role with name <x> cannot be found.",
    }
    assert parsed["ResponseMetadata"]["RequestId"] == "r-2"
    assert b'<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">' in answer.body
