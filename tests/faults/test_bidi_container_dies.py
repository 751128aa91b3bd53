"""The container of a conversation dies, breaks WebSocket, or says too much: the client is told once, in the stream."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
from wsproto.events import BytesMessage

from tests.waiting import until
from tests.wire.gateway_fixture import House
from tests.wire.http2 import Http2
from tests.wire.test_bidi import ends_cleanly, said, serve
from tests.wire.websockets import Socket


async def reset(socket: Socket) -> None:
    socket.wire.reset()


async def vanish(socket: Socket) -> None:
    socket.wire.writer.close()


async def half_a_frame(socket: Socket) -> None:
    await socket.wire.send(b"\x82\x7e\x10\x00half")
    socket.wire.writer.close()


async def masked(socket: Socket) -> None:
    """A server's frames are never masked."""
    await socket.wire.send(b"\x82\x81\x00\x00\x00\x00x")
    await socket.event()


async def reserved(socket: Socket) -> None:
    await socket.wire.send(b"\xf2\x01x")
    await socket.event()


async def no_utf8(socket: Socket) -> None:
    await socket.wire.send(b"\x81\x02\xff\xfe")
    await socket.event()


async def continuation_of_nothing(socket: Socket) -> None:
    await socket.wire.send(b"\x80\x01x")
    await socket.event()


async def too_large(socket: Socket) -> None:
    await socket.send(BytesMessage(data=b"x" * (4 * 1024 * 1024 + 1)))
    await socket.event()


async def going_away(socket: Socket) -> None:
    await socket.close(1001)


Death = Callable[[Socket], Awaitable[None]]
DEATHS: dict[Death, str] = {
    reset: "closed the connection before",
    vanish: "closed the connection before",
    half_a_frame: "closed the connection before",
    masked: "code 1002",
    reserved: "code 1002",
    no_utf8: "code 1007",
    continuation_of_nothing: "code 1002",
    too_large: "code 1009",
    going_away: "code 1001",
}


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.__name__)
def test_the_stream_ends_with_one_exception(house: House, death: Death) -> None:
    async def handle(socket: Socket) -> None:
        await socket.event()
        await socket.text("last words")
        await death(socket)

    replica = serve(house, handle)
    with Http2(house) as client:
        stream = client.converse()
        stream.part("go")
        assert said(stream.message())[0] == b"last words"
        message = stream.message()
        assert message.headers[":exception-type"] == "ModelStreamError"
        told = json.loads(message.payload)
        assert DEATHS[death] in told["Message"]
        assert told["ErrorCode"] == "StreamBroken"
        ends_cleanly(stream)
        again = client.converse()
        assert again.head() == 200, "the connection goes on"
    until(lambda: replica.open == 0)
    assert "Traceback" not in house.log()


def test_a_conversation_that_lasts_too_long(tmp_path_factory: pytest.TempPathFactory) -> None:
    house = House(tmp_path_factory.mktemp("long") / "home", {"PENSTOCK_BIDIRECTIONAL_TIMEOUT_S": "0.3"})
    try:
        house.start()
        replica = serve(house)
        with Http2(house) as client:
            stream = client.converse()
            message = stream.message()
            assert message.headers[":exception-type"] == "ModelStreamError"
            assert json.loads(message.payload)["ErrorCode"] == "ModelInvocationTimeExceeded"
            ends_cleanly(stream)
        until(lambda: replica.open == 0)
    finally:
        house.close()


def test_a_container_that_never_answers_the_upgrade(tmp_path_factory: pytest.TempPathFactory) -> None:
    from penstock.routes import Variant
    from tests.wire.gateway_fixture import Wire

    house = House(tmp_path_factory.mktemp("never") / "home", {"PENSTOCK_INVOCATION_TIMEOUT_S": "0.3"})
    try:
        house.start()

        async def never(wire: Wire) -> None:
            await wire.gone()

        replica = house.replica(never)
        house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
        with Http2(house) as client:
            stream = client.converse()
            assert stream.head() == 424
            assert "timed out while waiting for a response" in json.loads(stream.whole())["OriginalMessage"]
        until(lambda: replica.open == 0)
    finally:
        house.close()
