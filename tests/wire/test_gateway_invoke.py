"""boto3 against the gateway: the plain and the streamed invocation."""

from __future__ import annotations

import pytest

from tests.wire.gateway_fixture import House, Seen, Wire, echo

CHUNKS = [b"data:one\n\n", b"data:two\n\n", "data:dreï\n\n".encode(), b"x" * 70_000]


async def stream_chunks(request: Seen, wire: Wire) -> None:
    await wire.begin_chunks("text/event-stream")
    for chunk in CHUNKS:
        await wire.chunk(chunk)
    await wire.end_chunks()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_invoke_endpoint(house: House, scheme: str) -> None:
    replica = house.serve(echo)
    runtime = house.client("sagemaker-runtime", scheme)
    for _ in range(3):
        answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"hello", ContentType="text/x", Accept="text/y")
        assert answer["Body"].read() == b"you said hello"
        assert answer["ContentType"] == "text/plain"
        assert answer["InvokedProductionVariant"] == "AllTraffic"
        assert answer["ResponseMetadata"]["RequestId"]
    seen = replica.requests[0]
    assert (seen.method, seen.target) == ("POST", "/invocations")
    assert seen.headers["content-type"] == "text/x"
    assert seen.headers["accept"] == "text/y"
    assert replica.accepted == 1, "the connection to the replica is kept"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_one_container_chunk_is_one_payload_part(house: House, scheme: str) -> None:
    replica = house.serve(stream_chunks)
    runtime = house.client("sagemaker-runtime", scheme)
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="ep", Body=b"{}", ContentType="application/json", Accept="text/event-stream"
    )
    assert answer["ContentType"] == "text/event-stream"
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert [event["PayloadPart"]["Bytes"] for event in answer["Body"]] == CHUNKS
    assert replica.requests[0].headers["accept"] == "text/event-stream"
