"""AWS JSON against botocore's own serializer and parser as the client."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

import botocore.parsers
import botocore.serialize
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire import awsjson
from penstock.wire.messages import WireRequest
from tests.unit.wire.models import document, ours, theirs, unconstrained, values

LOADED = {name: unconstrained(name) for name in ("sagemaker", "logs")}
OPERATIONS = [
    ("sagemaker", name)
    for name in (
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "DescribeEndpoint",
        "ListModels",
        "DescribeModel",
        "AddTags",
    )
] + [("logs", name) for name in ("FilterLogEvents", "GetLogEvents", "DescribeLogStreams")]
MODELS = {name: ours(name, loaded, *(o for s, o in OPERATIONS if s == name)) for name, loaded in LOADED.items()}
ORACLES = {name: theirs(name, loaded) for name, loaded in LOADED.items()}
STRICT = ours("sagemaker", document("sagemaker"), "CreateEndpointConfig", "CreateEndpoint", "ListModels", "AddTags")


def request(operation: str, body: object, prefix: str = "SageMaker") -> WireRequest:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireRequest("POST", "/", headers={"x-amz-target": f"{prefix}.{operation}"}, body=text)


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_botocore_writes_is_what_we_read(service: str, operation: str, data: st.DataObject) -> None:
    shape = MODELS[service].operation(operation).input
    assert shape is not None
    params = data.draw(values(shape, st.text(max_size=20), whole_seconds=True))
    serialized = botocore.serialize.create_serializer("json", include_validation=False).serialize_to_request(
        params, ORACLES[service].operation_model(operation)
    )
    headers = {k.lower(): v for k, v in serialized["headers"].items()}
    found, parsed = awsjson.parse(MODELS[service], WireRequest("POST", "/", "", headers, serialized["body"]))
    assert found.name == operation
    assert parsed == params


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_we_write_is_what_botocore_reads(service: str, operation: str, data: st.DataObject) -> None:
    model = MODELS[service].operation(operation)
    oracle = ORACLES[service].operation_model(operation).output_shape
    output = data.draw(values(model.output, st.text(max_size=20))) if model.output else {}
    answer = awsjson.render(model, output, "r-1")
    response = {"status_code": answer.status, "headers": dict(answer.headers), "body": answer.body}
    parsed = botocore.parsers.create_parser("json").parse(response, oracle)
    assert parsed.pop("ResponseMetadata")["RequestId"] == "r-1"
    assert parsed == output


def test_unset_members_stay_out_at_every_depth() -> None:
    model = MODELS["sagemaker"].operation("DescribeModel")
    answer = awsjson.render(
        model, {"ModelName": "m", "VpcConfig": None, "PrimaryContainer": {"Image": "i", "Mode": None}}, "r"
    )
    assert json.loads(answer.body) == {"ModelName": "m", "PrimaryContainer": {"Image": "i"}}


def test_moments_are_epoch_numbers_and_null_is_absent() -> None:
    moment = dt.datetime(2026, 1, 31, 12, 0, 0, 123456, dt.UTC)
    model = MODELS["sagemaker"].operation("DescribeModel")
    assert json.loads(awsjson.render(model, {"CreationTime": moment}, "r").body) == {"CreationTime": 1769860800.123}
    _, params = awsjson.parse(STRICT, request("ListModels", {"CreationTimeAfter": 1769860800, "NextToken": None}))
    assert params == {"CreationTimeAfter": moment.replace(microsecond=0)}


VARIANT = {"VariantName": "AllTraffic", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.g5.2xlarge"}


@pytest.mark.parametrize(
    ("operation", "body", "message"),
    [
        (
            "CreateEndpoint",
            {"EndpointName": "x_y", "EndpointConfigName": "c"},
            r"1 validation error detected: Value 'x_y' at 'endpointName' failed to satisfy constraint: Member must satisfy "
            r"regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        ),
        (
            "CreateEndpoint",
            {"EndpointName": "e"},
            "1 validation error detected: Value null at 'endpointConfigName' failed to satisfy constraint: "
            "Member must not be null",
        ),
        (
            "CreateEndpoint",
            {"EndpointName": "a" * 64, "EndpointConfigName": "c"},
            f"1 validation error detected: Value '{'a' * 64}' at 'endpointName' failed to satisfy constraint: "
            "Member must have length less than or equal to 63",
        ),
        (
            "ListModels",
            {"MaxResults": 0, "SortBy": "Size"},
            "2 validation errors detected: Value 'Size' at 'sortBy' failed to satisfy constraint: Member must satisfy enum "
            "value set: [Name, CreationTime]; Value '0' at 'maxResults' failed to satisfy constraint: Member must have value "
            "greater than or equal to 1",
        ),
        (
            "CreateEndpointConfig",
            {"EndpointConfigName": "c", "ProductionVariants": [{**VARIANT, "VariantName": "-"}]},
            "1 validation error detected: Value '-' at 'productionVariants.1.member.variantName' failed to satisfy constraint: "
            r"Member must satisfy regular expression pattern: [a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?",
        ),
    ],
)
def test_a_broken_constraint_reads_as_at_aws(operation: str, body: dict[str, Any], message: str) -> None:
    with pytest.raises(AwsError) as caught:
        awsjson.parse(STRICT, request(operation, body))
    assert caught.value.code == "ValidationException"
    # botocore's releases differ in how they write one and the same pattern.
    assert caught.value.message.split("pattern: ")[0] == message.split("pattern: ")[0]


def test_tags_may_be_written_in_any_script() -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"
    awsjson.parse(STRICT, request("AddTags", {"ResourceArn": arn, "Tags": [{"Key": "größe-量", "Value": "ça va ٣"}]}))
    with pytest.raises(AwsError, match=r"tags\.1\.member\.key"):
        awsjson.parse(STRICT, request("AddTags", {"ResourceArn": arn, "Tags": [{"Key": "a\N{SNOWMAN}", "Value": "v"}]}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        ([], "Start of list found where not expected"),
        ({"MaxResults": "1"}, "STRING_VALUE can not be converted to an Integer"),
        ({"MaxResults": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"MaxResults": 1.5}, "DECIMAL_VALUE can not be converted to an Integer"),
        ({"MaxResults": 2**40}, "out of the range of an Integer"),
        ({"NextToken": 1}, "NUMBER_VALUE can not be converted to a String"),
        ({"NextToken": {}}, "Start of structure or map found where not expected."),
        ({"CreationTimeAfter": "noon"}, "Unable to parse 'noon' as a timestamp"),
        ({"CreationTimeAfter": 1e300}, "as a timestamp"),
    ],
)
def test_a_malformed_body_is_a_serialization_exception(body: object, message: str) -> None:
    with pytest.raises(AwsError) as caught:
        awsjson.parse(STRICT, request("ListModels", body))
    assert caught.value.code == "SerializationException"
    assert message in caught.value.message


@pytest.mark.parametrize("target", ["", "SageMaker", "SageMaker.", "SageMaker.Nonsense", "Other.ListModels"])
def test_an_unknown_operation_is_told_so(target: str) -> None:
    with pytest.raises(AwsError) as caught:
        awsjson.parse(STRICT, WireRequest("POST", "/", headers={"x-amz-target": target}, body=b"{}"))
    assert (caught.value.code, caught.value.status) == ("UnknownOperationException", 400)


def test_errors_carry_type_message_and_members() -> None:
    error = AwsError("ResourceLimitExceeded", "too much", members={"Resource": "ml.g5"})
    answer = awsjson.render_error(error, "r-9")
    assert json.loads(answer.body) == {"__type": "ResourceLimitExceeded", "message": "too much", "Resource": "ml.g5"}
    assert answer.headers == {"content-type": "application/x-amz-json-1.1", "x-amzn-requestid": "r-9"}
    response = {"status_code": 400, "headers": dict(answer.headers), "body": answer.body}
    parsed = botocore.parsers.create_parser("json").parse(response, None)
    assert parsed["Error"] == {"Code": "ResourceLimitExceeded", "Message": "too much"}


def test_a_blob_is_base64() -> None:
    loaded: dict[str, Any] = {
        "metadata": {"apiVersion": "1", "protocol": "json", "targetPrefix": "T"},
        "operations": {
            "Op": {"http": {"method": "POST", "requestUri": "/"}, "input": {"shape": "S"}, "output": {"shape": "S"}}
        },
        "shapes": {"S": {"type": "structure", "members": {"B": {"shape": "B"}}}, "B": {"type": "blob"}},
    }
    model = ours("t", loaded, "Op")
    encoded = base64.b64encode(b"\x00\xff").decode()
    operation, params = awsjson.parse(model, request("Op", {"B": encoded}, "T"))
    assert params == {"B": b"\x00\xff"}
    assert json.loads(awsjson.render(operation, params, "r").body) == {"B": encoded}
    with pytest.raises(AwsError, match="base64"):
        awsjson.parse(model, request("Op", {"B": "%%%"}, "T"))
