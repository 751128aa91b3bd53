"""The container dies: before its answer, inside it, and while nobody asks anything of it."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.routes import Variant
from penstock.wire.eventstream import Decoder
from tests.faults.test_client_stalls import unchunk
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, answering, echo
from tests.wire.raw import connect, signed

DEAD = "Amazon SageMaker could not get a response from the ep endpoint."


def model_error(call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as failed:
        call(EndpointName="ep", Body=b"{}", **arguments)
    response: dict[str, Any] = failed.value.response
    assert response["Error"]["Code"] == "ModelError"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["LogStreamArn"] == "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/ep"
    return response


async def die(request: Seen, wire: Wire) -> None:
    wire.writer.close()


async def reset(request: Seen, wire: Wire) -> None:
    wire.reset()


async def die_inside_the_head(request: Seen, wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
    wire.writer.close()


async def talk_nonsense(request: Seen, wire: Wire) -> None:
    await wire.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    wire.writer.close()


@pytest.mark.parametrize("script", [die, reset, die_inside_the_head, talk_nonsense])
@pytest.mark.parametrize("call", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_before_its_answer(house: House, script: Any, call: str) -> None:
    replica = house.serve(script)
    response = model_error(getattr(house.client("sagemaker-runtime"), call))
    assert DEAD in response["Error"]["Message"]
    assert response["OriginalStatusCode"] == 0
    assert len(replica.requests) == 1, "an invocation that may have run is not run again"
    until(lambda: [e for e in house.events if e.kind == "unreachable" and e.replica == replica.replica.id])


async def die_mid_stream(request: Seen, wire: Wire) -> None:
    await wire.begin_chunks()
    await wire.chunk(b"one\n")
    await wire.chunk(b"two\n")
    wire.writer.write(b"ff\r\nhalf a chunk")
    await wire.writer.drain()
    wire.writer.close()


def test_inside_its_stream_is_one_exception_frame(house: House) -> None:
    house.serve(die_mid_stream)
    parts, error = house.stream()
    assert parts == [b"one\n", b"two\n"]
    assert error is not None
    assert error.response["Error"]["Code"] == "ModelStreamError"
    assert "Your model primary closed the connection" in error.response["Error"]["Message"]


def test_the_exception_frame_carries_stream_broken_and_then_ends(house: House) -> None:
    house.serve(die_mid_stream)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        decoder = Decoder()
        messages = [m for piece in unchunk(data.partition(b"\r\n\r\n")[2], sock) for m in decoder.feed(piece)]
        decoder.finish()
    kinds = [m.headers[":message-type"] for m in messages]
    assert kinds == ["event", "event", "exception"]
    assert b'"ErrorCode": "StreamBroken"' in messages[-1].payload


def test_inside_a_plain_answer_is_a_model_error(house: House) -> None:
    house.serve(die_mid_stream)
    assert DEAD in model_error(house.client("sagemaker-runtime").invoke_endpoint)["Error"]["Message"]


def test_a_shorter_body_than_announced_is_a_model_error(house: House) -> None:
    async def short(request: Seen, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        wire.writer.close()

    house.serve(short)
    assert DEAD in model_error(house.client("sagemaker-runtime").invoke_endpoint)["Error"]["Message"]


def test_a_body_that_ends_with_the_connection_is_whole(house: House) -> None:
    async def old(request: Seen, wire: Wire) -> None:
        await wire.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        wire.writer.close()

    house.serve(old)
    runtime = house.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"")["Body"].read() == b"all of it"
    parts, error = house.stream()
    assert b"".join(parts) == b"all of it"
    assert error is None


def test_a_replica_that_refuses_is_passed_over(house: House) -> None:
    alive = house.replica(answering(echo))
    dead = house.replica(answering(echo))
    assert dead.server is not None

    async def close(scripted: Scripted) -> None:
        assert scripted.server is not None
        scripted.server.close()

    house.run(close(dead))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (dead.replica, alive.replica)))
    runtime = house.client("sagemaker-runtime")
    for _ in range(20):
        assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    until(lambda: [e for e in house.events if e.replica == dead.replica.id and e.epoch == dead.replica.epoch])


def test_no_replica_left(house: House) -> None:
    house.endpoint("ep", Variant("AllTraffic", 1.0, ()))
    assert DEAD in model_error(house.client("sagemaker-runtime").invoke_endpoint)["Error"]["Message"]


def test_a_kept_connection_that_the_container_closed_costs_no_request(house: House, rng: random.Random) -> None:
    """The container closes idle connections after a few milliseconds, without ever saying so."""

    async def impatient(wire: Wire) -> None:
        while True:
            waiting = asyncio.ensure_future(wire.request())
            await asyncio.wait({waiting}, timeout=0.03)
            if not waiting.done() and not wire.reader._buffer:  # type: ignore[attr-defined]
                waiting.cancel()  # closed unread: of a request that it has read nothing can be known
                return
            if (request := await waiting) is None:
                return
            await echo(request, wire)

    replica = house.replica(impatient)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    runtime = house.client("sagemaker-runtime")
    for n in range(100):
        time.sleep(rng.uniform(0.0, 0.05))
        assert runtime.invoke_endpoint(EndpointName="ep", Body=b"%d" % n)["Body"].read() == b"you said %d" % n
