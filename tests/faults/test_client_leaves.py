"""The client leaves in the middle of a stream: the container is told at once, by the close of its connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

import pytest

from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire
from tests.wire.raw import connect, signed


def open_plain(house: House) -> socket.socket:
    return connect(house)


def open_tls(house: House) -> socket.socket:
    context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
    return context.wrap_socket(
        socket.create_connection(("localhost", house.ports["https"]), 10), server_hostname="localhost"
    )


@pytest.mark.parametrize("path", ["invocations", "invocations-response-stream"])
@pytest.mark.parametrize("door", [open_plain, open_tls])
def test_the_container_sees_the_close_within_50_ms(
    house: House, door: Callable[[House], socket.socket], path: str
) -> None:
    """99 of 100 times, among other streams that go on: a client of the plain call leaves while it waits, of the streamed one inside."""
    asked: list[float] = []
    closed_at: list[float] = []

    async def endless(request: Seen, wire: Wire) -> None:
        if path == "invocations":
            asked.append(time.monotonic())
        else:
            await wire.begin_chunks()
            await wire.chunk(b"first")
        await wire.gone()
        closed_at.append(time.monotonic())

    async def busy(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        while True:
            await wire.chunk(b"token")
            await asyncio.sleep(0.02)

    house.serve(busy, name="busy")
    house.serve(endless)
    others = [connect(house) for _ in range(10)]
    for other in others:
        other.sendall(signed(house, "/endpoints/busy/invocations-response-stream", b"{}"))
    delays: list[float] = []
    for _ in range(100):
        sock = door(house)
        sock.sendall(signed(house, f"/endpoints/ep/{path}", b"{}"))
        if path == "invocations":
            until(lambda: len(asked) > len(delays), every_s=0.001, what="the container asked")
        else:
            while b"first" not in sock.recv(65536):
                pass
        left_at = time.monotonic()
        sock.close()
        until(lambda: len(closed_at) > len(delays), every_s=0.001, what="the container to see the close")
        delays.append(closed_at[-1] - left_at)
    for other in others:
        other.close()
    assert sorted(delays)[98] < 0.05, sorted(delays)[-5:]


def test_a_client_that_leaves_before_the_answer_ends_the_request_too(house: House) -> None:
    state: list[str] = []

    async def thinking(request: Seen, wire: Wire) -> None:
        state.append("asked")
        await wire.gone()
        state.append("closed")

    house.serve(thinking)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"{}"))
        until(lambda: "asked" in state)
    until(lambda: "closed" in state)


def test_a_client_that_leaves_inside_its_body_reaches_no_container(house: House) -> None:
    replica = house.serve(lambda request, wire: asyncio.sleep(0))
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"x" * 1000)[:-10])
    house.serve(lambda request, wire: wire.answer(b"ok"), name="other")
    assert house.client("sagemaker-runtime").invoke_endpoint(EndpointName="other", Body=b"")["Body"].read() == b"ok"
    assert replica.accepted == 0
