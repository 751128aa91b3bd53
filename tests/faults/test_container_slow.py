"""The container takes too long: AWS's texts, before the stream and inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[House]:
    environ = {"PENSTOCK_INVOCATION_TIMEOUT_S": "0.5", "PENSTOCK_STREAM_TIMEOUT_S": "0.8"}
    house = House(tmp_path / "home", environ)
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.parametrize("call", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_no_answer_in_time(hurried: House, call: str) -> None:
    closed = []

    async def think(request: Seen, wire: Wire) -> None:
        await wire.gone()
        closed.append(request)

    hurried.serve(think)
    with pytest.raises(ClientError) as failed:
        getattr(hurried.client("sagemaker-runtime"), call)(EndpointName="ep", Body=b"{}")
    response = failed.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert response["OriginalStatusCode"] == 0
    assert response["OriginalMessage"] == (
        "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
        "each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    until(lambda: closed, what="the container's connection closed")


def test_a_stream_that_does_not_end_in_time(hurried: House) -> None:
    async def trickle(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        while True:
            await wire.chunk(b"tick")
            await asyncio.sleep(0.1)

    hurried.serve(trickle)
    parts, error = hurried.stream()
    assert parts
    assert set(parts) == {b"tick"}
    assert error is not None
    assert error.response["Error"] == {
        "Code": "ModelStreamError",
        "Message": "Your model primary did not complete sending the inference response in the allotted time.",
    }
