"""A thousand conversations broken in every way: descriptors, connections to replicas and memory are back where they were."""

from __future__ import annotations

import random

import psutil
from wsproto.events import TextMessage

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, Wire
from tests.wire.http2 import Http2, payload_part
from tests.wire.websockets import Socket, speaking

WAYS = ["close", "fail", "reset", "vanish", "half", "leave", "cancel", "bad event", "bad bytes", "refuse", "end"]


async def misbehave(socket: Socket) -> None:
    event = await socket.event()
    assert isinstance(event, TextMessage)
    await socket.text("x" * 2000)
    if event.data == "close":
        await socket.close()
    elif event.data == "fail":
        await socket.close(1011, "no")
    elif event.data == "reset":
        socket.wire.reset()
    elif event.data == "half":
        await socket.wire.send(b"\x82\x7e\x10\x00half")
    elif event.data != "vanish":
        await socket.event()


async def script(wire: Wire) -> None:
    await speaking(misbehave)(wire)


async def refuse(wire: Wire) -> None:
    await wire.request()
    await wire.answer(b"no", status=403)


def test_nothing_leaks(house: House, rng: random.Random) -> None:
    replica, unwilling = house.replica(script), house.replica(refuse)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    house.endpoint("no", Variant("AllTraffic", 1.0, (unwilling.replica,)))
    process = psutil.Process(house.pid)

    def break_conversations(count: int) -> None:
        while count > 0:
            with Http2(house) as client:
                for _ in range(min(count, rng.randrange(1, 12))):
                    count -= 1
                    converse(client, rng.choice(WAYS))

    def converse(client: Http2, how: str) -> None:
        name = "no" if how == "refuse" else "ep"
        stream = client.converse(f"/endpoints/{name}/invocations-bidirectional-stream")
        stream.part(how)
        if how == "leave":
            return
        if how == "refuse":
            assert stream.head() == 424
            return
        stream.message()
        if how == "cancel":
            stream.cancel()
            return
        if how == "bad event":
            stream.send(payload_part(b"", "UTF16"))
        elif how == "bad bytes":
            stream.send(b"x" * 100, sign=False)
        elif how == "end":
            stream.finish()
        client.run(lambda: stream.over)

    break_conversations(200)
    until(lambda: replica.open + unwilling.open == 0)
    descriptors, memory = process.num_fds(), process.memory_info().rss
    break_conversations(1000)
    until(lambda: replica.open + unwilling.open == 0, what="connections to the replicas closed")
    until(lambda: process.num_fds() <= descriptors + 1, what="descriptors back")
    assert process.memory_info().rss - memory < 4 * 1024 * 1024
    assert "Traceback" not in house.log()
