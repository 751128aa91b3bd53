"""The client leaves in the middle of a stream: the container is told at once, by the close of its connection."""

from __future__ import annotations

import asyncio
import time

from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire
from tests.wire.raw import connect, signed


def test_the_container_sees_the_close_within_50_ms(house: House) -> None:
    closed_at: list[float] = []

    async def endless(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await wire.gone()
        closed_at.append(time.monotonic())

    house.serve(endless)
    delays: list[float] = []
    for _ in range(20):
        sock = connect(house)
        sock.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))
        while b"first" not in sock.recv(65536):
            pass
        left_at = time.monotonic()
        sock.close()
        until(lambda: len(closed_at) > len(delays), every_s=0.001, what="the container to see the close")
        delays.append(closed_at[-1] - left_at)
    assert sorted(delays)[-2] < 0.05, delays


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
