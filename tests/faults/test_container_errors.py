"""The container answers with an error: AWS's ModelError, word for word."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from penstock.routes import Variant
from tests.wire.gateway_fixture import House, Seen, Wire, answering
from tests.wire.raw import connect, read_answer, signed

SEE = (
    " See https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1"
    "#logEventViewer:group=/aws/sagemaker/Endpoints/ep in account 123456789012 for more information."
)


def failing(status: int, body: bytes) -> object:
    async def script(request: Seen, wire: Wire) -> None:
        await wire.answer(body, status=status, type_="application/json")

    return script


@pytest.mark.parametrize("call", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (422, "client"), (500, "server"), (503, "server")])
def test_status_message_and_log_are_passed_on(house: House, call: str, status: int, kind: str) -> None:
    house.serve(failing(status, b'{"error": "no"}'))  # type: ignore[arg-type]
    runtime = house.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError) as failed:
        getattr(runtime, call)(EndpointName="ep", Body=b"{}")
    response = failed.value.response
    assert response["Error"]["Message"] == (
        f'Received {kind} error ({status}) from primary with message "{{"error": "no"}}".{SEE}'
    )
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == '{"error": "no"}'
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_the_raw_body_has_the_error_code_and_no_type(house: House) -> None:
    house.serve(failing(400, b"bad"))  # type: ignore[arg-type]
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"{}"))
        answer = read_answer(sock)
    body = json.loads(answer.body)
    assert answer.headers["x-amzn-errortype"] == "ModelError"
    assert set(body) == {"ErrorCode", "LogStreamArn", "Message", "OriginalMessage", "OriginalStatusCode"}
    assert body["ErrorCode"] == "CLIENT_ERROR_FROM_MODEL"


@pytest.mark.parametrize("body", [b"", b"x" * 100_000])
def test_an_empty_or_endless_error_is_told_as_one_that_could_not_be_loaded(house: House, body: bytes) -> None:
    house.serve(failing(500, body))  # type: ignore[arg-type]
    with pytest.raises(ClientError) as failed:
        house.client("sagemaker-runtime").invoke_endpoint(EndpointName="ep", Body=b"{}")
    assert failed.value.response["Error"]["Message"] == (
        "Received server error (500) from primary and could not load the entire response body." + SEE
    )


def test_the_container_s_own_hostname_is_named(house: House) -> None:
    replica = house.replica(answering(failing(500, b"no")))  # type: ignore[arg-type]
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,), container="llm"))
    with pytest.raises(ClientError, match="from llm with message"):
        house.client("sagemaker-runtime").invoke_endpoint(EndpointName="ep", Body=b"{}")
