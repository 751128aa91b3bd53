"""Wrong key, changed body, expired date, no signature at all: refused before any byte reaches a container."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore import auth
from botocore.exceptions import ClientError

from tests.wire.gateway_fixture import KEY, House, echo
from tests.wire.raw import connect, read_answer, signed


def refusal(client: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as refused:
        client.invoke_endpoint(EndpointName="ep", Body=b"{}", **arguments)
    response: dict[str, Any] = refused.value.response
    return response


def test_unknown_key_and_wrong_secret(house: House) -> None:
    replica = house.serve(echo)
    unknown = refusal(house.client("sagemaker-runtime", key=replace(KEY, id="AKIDOTHER")))
    assert unknown["Error"]["Code"] == "UnrecognizedClientException"
    assert unknown["Error"]["Message"] == "The security token included in the request is invalid."
    wrong = refusal(house.client("sagemaker-runtime", key=replace(KEY, secret="guessed")))
    assert wrong["Error"]["Code"] == "InvalidSignatureException"
    assert wrong["ResponseMetadata"]["HTTPStatusCode"] == 403
    stray = refusal(house.client("sagemaker-runtime", key=replace(KEY, session_token="stray")))
    assert stray["Error"]["Code"] == "UnrecognizedClientException"
    assert replica.requests == []


@pytest.mark.parametrize("operation", ["invocations", "invocations-response-stream"])
def test_a_changed_body(house: House, operation: str) -> None:
    replica = house.serve(echo)
    with connect(house) as sock:
        sock.sendall(signed(house, f"/endpoints/ep/{operation}", b"pay 10").replace(b"pay 10", b"pay 99"))
        answer = read_answer(sock)
    assert answer.status == 403
    assert answer.headers["x-amzn-errortype"] == "InvalidSignatureException"
    assert replica.requests == []


def test_an_expired_date(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    monkeypatch.setattr(auth, "get_current_datetime", lambda **_: old)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"{}"))
        answer = read_answer(sock)
    assert answer.headers["x-amzn-errortype"] == "InvalidSignatureException"
    assert f"Signature expired: {old:%Y%m%dT%H%M%SZ} is now earlier than " in answer.body.decode()


def test_no_signature(house: House) -> None:
    with connect(house) as sock:
        sock.sendall(b"POST /endpoints/ep/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = read_answer(sock)
    assert answer.status == 403
    assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    assert answer.headers["x-amzn-requestid"]


def test_a_changed_upload_never_looks_whole_to_control(house: House) -> None:
    s3 = house.client("s3", request_checksum_calculation="when_required")

    def change(request: Any, **_: object) -> None:
        request.body = b"changed!"

    s3.meta.events.register("before-send", change)
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="b", Key="k", Body=b"original")
    assert refused.value.response["Error"]["Code"] == "XAmzContentSHA256Mismatch"
    assert house.control_seen == []


def test_a_key_that_was_taken_away(house: House) -> None:
    house.serve(echo)
    runtime = house.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    other = replace(KEY, id="AKIDNEXT", secret="next")
    house.keys = (KEY, other)
    house.publish()
    house.keys = (KEY,)
    house.publish()
    assert refusal(house.client("sagemaker-runtime", key=other))["Error"]["Code"] == "UnrecognizedClientException"
