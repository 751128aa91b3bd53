"""Is a replica well? `GET /ping`, as SageMaker asks it.

Owns the prober and its rhythm (AWS: "How Your Container Should Respond to Health Check (Ping) Requests"). It must never know processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

USER_AGENT = "AHC/2.0"
"""What SageMaker's own pinger calls itself."""


@dataclass(frozen=True, slots=True)
class Probing:
    """How to ask. Seconds."""

    connect_timeout_s: float = 0.25
    timeout_s: float = 2.0
    first_s: float = 0.02
    """The wait after the first ping that was not answered well; it grows by `growth` up to `longest_s`."""
    growth: float = 1.3
    longest_s: float = 1.0
    period_s: float = 2.0
    """Between the pings of a replica that was well."""
    misses: int = 3
    """So many pings in a row without a 200 make it unhealthy; one 200 makes it healthy."""


async def ping(host: str, port: int, probing: Probing) -> bool:
    """Whether `/ping` answers 200 in time. The answer's body does not matter."""
    try:
        async with asyncio.timeout(probing.connect_timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=8192)
    except (OSError, TimeoutError):
        return False
    try:
        async with asyncio.timeout(probing.timeout_s):
            head = f"GET /ping HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n")
            words = (await reader.readline()).split(maxsplit=2)
            return len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1] == b"200"
    except (OSError, TimeoutError, ValueError):  # ValueError: a line without an end
        return False
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


async def until_healthy(host: str, port: int, probing: Probing) -> None:
    """Ping, often at first, until the first 200. Never gives up: the caller has the deadline."""
    wait_s = probing.first_s
    while not await ping(host, port, probing):
        await asyncio.sleep(wait_s)
        wait_s = min(probing.longest_s, wait_s * probing.growth)


async def watch(host: str, port: int, probing: Probing) -> AsyncIterator[bool]:
    """Each change of a replica that was well: False when it no longer is, True when it is again. Never ends."""
    well, missed = True, 0
    while True:
        await asyncio.sleep(probing.period_s if not missed else min(probing.period_s, probing.longest_s))
        missed = 0 if await ping(host, port, probing) else missed + 1
        if well != (now := missed < probing.misses if well else missed == 0):
            well = now
            yield now
