"""The client of a conversation leaves, or only stops reading: the container is told at once, or waits."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil
import pytest

from penstock.routes import Variant
from tests.waiting import until, until_async
from tests.wire.gateway_fixture import House
from tests.wire.http2 import Http2
from tests.wire.test_bidi import said, serve
from tests.wire.websockets import BytesMessage, CloseConnection, Socket

WINDOWS = 16 * 1024 * 1024
"""More than all buffers and windows on the way can hold."""


def test_the_container_sees_the_close_within_50_ms(house: House) -> None:
    left: list[tuple[float, int]] = []

    async def wait(socket: Socket) -> None:
        await socket.text("first")
        event = await socket.event()
        assert isinstance(event, CloseConnection), event
        left.append((time.monotonic(), int(event.code)))

    replica = serve(house, wait)
    delays: list[float] = []
    for number in range(20):
        with Http2(house) as client:
            stream = client.converse()
            assert said(stream.message())[0] == b"first"
            if number % 2:
                stream.cancel()
            left_at = time.monotonic()
            if number % 2:
                until(lambda: len(left) > len(delays), every_s=0.001, what="the container to see the close")
        until(lambda: len(left) > len(delays), every_s=0.001, what="the container to see the close")
        delays.append(left[-1][0] - left_at)
    assert sorted(delays)[-2] < 0.05, delays
    assert {code for _, code in left} == {1001}
    until(lambda: replica.open == 0)


def test_a_client_that_leaves_before_the_upgrade_ends_it(house: House) -> None:
    state: list[str] = []

    async def thinking(wire: object) -> None:
        state.append("asked")
        await wire.gone()  # type: ignore[attr-defined]
        state.append("closed")

    replica = house.replica(thinking)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    with Http2(house) as client:
        client.converse()
        until(lambda: "asked" in state)
    until(lambda: "closed" in state)


def test_a_client_that_does_not_read_pauses_the_container_and_loses_nothing(house: House) -> None:
    sent = [0]

    async def flood(socket: Socket) -> None:
        for number in range(1000):
            await socket.bytes(number.to_bytes(2) * 32 * 1024)
            sent[0] += 1
        await socket.close()

    serve(house, flood)
    serve(house, name="other")
    memory = psutil.Process(house.pid).memory_info().rss
    with Http2(house, greedy=False) as client:
        stream = client.converse()
        assert stream.head() == 200
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: sent[0] == 1000, deadline_s=1)
        paused_at = sent[0]
        assert paused_at * 64 * 1024 < WINDOWS
        assert psutil.Process(house.pid).memory_info().rss - memory < WINDOWS
        other = client.converse("/endpoints/other/invocations-bidirectional-stream")
        other.part("other streams go on")
        client.greedy = True
        assert said(other.message())[0] == b"other streams go on"
        client.give_back(stream)
        client.run(lambda: stream.over)
    assert [said(message)[0][:2] for message in stream.messages] == [number.to_bytes(2) for number in range(1000)]
    assert stream.ended


def test_a_container_that_does_not_read_holds_the_client_back_and_loses_nothing(house: House) -> None:
    got: list[bytes] = []
    asked: list[str] = []

    async def slow(socket: Socket) -> None:
        transport = socket.wire.writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        await until_async(lambda: asked)
        transport.resume_reading()
        pieces = b""
        while len(got) < 500:
            event = await socket.event()
            assert isinstance(event, BytesMessage)
            pieces += bytes(event.data)
            if event.message_finished:
                got.append(pieces[:2])
                pieces = b""
        await socket.close()

    serve(house, slow)
    serve(house, name="other")
    memory = psutil.Process(house.pid).memory_info().rss
    with Http2(house) as client:
        stream = client.converse()
        assert stream.head() == 200
        client.sock.settimeout(1)
        data = [number.to_bytes(2) * 32 * 1024 for number in range(500)]
        sent = 0
        with contextlib.suppress(TimeoutError):
            for one in data:
                stream.part(one)
                sent += 1
        assert sent * 64 * 1024 < WINDOWS, "the window was closed"
        assert psutil.Process(house.pid).memory_info().rss - memory < WINDOWS
        client.sock.settimeout(10)
        other = client.converse("/endpoints/other/invocations-bidirectional-stream")
        other.part("other streams go on")
        assert said(other.message())[0] == b"other streams go on"
        asked.append("read on")
        until(lambda: len(got) >= sent - 1, what="what was taken to arrive")
        assert got == [number.to_bytes(2) for number in range(len(got))]
