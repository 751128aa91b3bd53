"""An endpoint that is not there, in this region or at all."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.wire.gateway_fixture import KEY, House, echo
from tests.wire.raw import connect, read_answer, signed


@pytest.mark.parametrize("call", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_the_text_is_aws_s(house: House, call: str) -> None:
    runtime = house.client("sagemaker-runtime")
    with pytest.raises(ClientError) as refused:
        getattr(runtime, call)(EndpointName="nowhere", Body=b"{}")
    assert refused.value.response["Error"] == {
        "Code": "ValidationError",
        "Message": "Endpoint nowhere of account 123456789012 not found.",
    }
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_another_region_has_other_endpoints(house: House) -> None:
    house.serve(echo)
    elsewhere: Any = boto3.client(
        "sagemaker-runtime",
        region_name="eu-west-1",
        endpoint_url=house.url(),
        aws_access_key_id=KEY.id,
        aws_secret_access_key=KEY.secret,
    )
    with pytest.raises(ClientError, match="not found"):
        elsewhere.invoke_endpoint(EndpointName="ep", Body=b"{}")


def test_a_name_that_no_endpoint_can_have(house: House) -> None:
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/-bad%20name/invocations", b""))
        answer = read_answer(sock)
    assert answer.status == 400
    assert answer.headers["x-amzn-errortype"] == "ValidationError"
    assert b"1 validation error detected" in answer.body


@pytest.mark.parametrize(("method", "path"), [("GET", "/endpoints/ep/invocations"), ("POST", "/endpoints/ep/other")])
def test_what_is_no_operation(house: House, method: str, path: str) -> None:
    with connect(house) as sock:
        sock.sendall(signed(house, path, method=method))
        answer = read_answer(sock)
    assert answer.status in (404, 405)
    assert answer.headers["x-amzn-errortype"] == "UnknownOperationException"
