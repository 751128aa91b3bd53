from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from penstock.placement.health import Probing, ping, until_healthy, watch

QUICK = Probing(connect_timeout_s=0.25, timeout_s=0.2, first_s=0.005, longest_s=0.02, period_s=0.01)


@asynccontextmanager
async def server(answer: Callable[[], bytes], seen: list[bytes] | None = None) -> AsyncIterator[int]:
    """Answers each connection with what `answer` makes; nothing is silence, the connection stays open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            if data := answer():
                writer.write(data)
            else:
                await reader.read()
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\n\r\nall is well", True),
        (b"HTTP/1.1 200\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 2000 OK\r\n\r\n", False),
        (b"200 OK\r\n\r\n", False),
        (b"\r\n", False),
        (b"x" * 100_000, False),
        (b"HTTP/1.1 ", False),
        (b"", False),
    ],
)
async def test_only_a_200_in_time_is_well(answer: bytes, well: bool) -> None:
    async with server(lambda: answer) as port:
        assert await ping("127.0.0.1", port, QUICK) is well


async def test_nobody_listening_is_not_well() -> None:
    async with server(lambda: b"") as port:
        pass
    assert await ping("127.0.0.1", port, QUICK) is False


async def test_the_ping_is_sagemakers() -> None:
    seen: list[bytes] = []
    async with server(lambda: b"HTTP/1.1 200 OK\r\n\r\n", seen) as port:
        assert await ping("127.0.0.1", port, QUICK)
    assert seen[0].startswith(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: AHC/2.0\r\n" % port)


async def test_a_silent_server_costs_no_more_than_the_time_out() -> None:
    async with server(lambda: b"") as port:
        began = time.monotonic()
        assert not await ping("127.0.0.1", port, QUICK)
        assert 0.15 < time.monotonic() - began < 1.5


async def test_the_gate_opens_at_the_first_200() -> None:
    answers = iter([b"HTTP/1.1 503 no\r\n\r\n"] * 4)
    asked: list[bytes] = []
    async with server(lambda: next(answers, b"HTTP/1.1 200 OK\r\n\r\n"), asked) as port:
        await asyncio.wait_for(until_healthy("127.0.0.1", port, QUICK), 5)
    assert len(asked) == 5


async def test_a_few_misses_in_a_row_are_forgiven() -> None:
    bad, good = b"HTTP/1.1 503 no\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
    answers = iter([bad, bad, good, bad, bad, bad, bad, good, good, bad])
    changes: list[tuple[bool, int]] = []
    asked: list[bytes] = []
    async with server(lambda: next(answers, good), asked) as port, asyncio.timeout(5):
        async for well in watch("127.0.0.1", port, QUICK):
            changes.append((well, len(asked)))
            if len(changes) == 2:
                break
    assert changes == [(False, 6), (True, 8)]
