"""A thousand streams broken in every way: descriptors, connections to replicas and memory are back where they were."""

from __future__ import annotations

import random

import psutil

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, answering
from tests.wire.raw import connect, read_all, signed


async def misbehave(request: Seen, wire: Wire) -> None:
    how = request.body.decode()
    if how == "silent":
        wire.writer.close()
        return
    if how == "reset":
        wire.reset()
        return
    if how == "error":
        await wire.answer(b"no", status=500)
        return
    await wire.begin_chunks()
    await wire.chunk(b"x" * 2000)
    if how == "half":
        await wire.send(b"ff\r\nhalf")
        wire.writer.close()
    elif how == "leave":
        await wire.gone()
    else:
        await wire.end_chunks()


def test_nothing_leaks(house: House, rng: random.Random) -> None:
    replica: Scripted = house.replica(answering(misbehave))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    process = psutil.Process(house.pid)
    ways = ["silent", "reset", "error", "half", "leave", "whole"]

    def break_streams(count: int) -> None:
        for _ in range(count):
            how = rng.choice(ways)
            with connect(house) as sock:
                request = signed(house, "/endpoints/ep/invocations-response-stream", how.encode())
                if rng.random() < 0.1:
                    sock.sendall(request[:-2])
                    continue
                sock.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                if how == "leave":
                    sock.recv(100)
                else:
                    read_all(sock)

    break_streams(200)
    until(lambda: replica.open <= 1)
    descriptors, memory = process.num_fds(), process.memory_info().rss
    break_streams(1000)
    until(lambda: replica.open <= 1, what="connections to the replica closed")
    until(lambda: process.num_fds() <= descriptors + 1, what="descriptors back")
    assert process.memory_info().rss - memory < 3 * 1024 * 1024
    assert "Traceback" not in house.log()
