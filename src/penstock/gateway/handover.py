"""A worker whose place another has taken: no more connections, and every request on those that it has answered to the end.

Owns that farewell. It must never refuse a request: the client does not know that workers come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.gateway.door import Door


async def hand_over(door: Door, servers: Sequence[asyncio.Server], stop: asyncio.Event) -> None:
    """Returns when all that was accepted here is over, or on `stop`; at the latest when the longest stream and a silence would be.

    The sockets that close here are held open by the successor, who accepts what waits on them. A connection that is kept gets one
    more answer, with `connection: close` (in HTTP/2 it is told at once that it goes away). Before that it is closed only when it has
    been silent for as long as ever: a client must never find it closed under a request that it has just sent.
    """
    # They begin to wait before the sockets close: afterwards uvloop's `wait_closed` returns at once. It counts every connection, those
    # too that are still shaking hands, which the door does not know of yet.
    over = [asyncio.ensure_future(server.wait_closed()) for server in servers]
    await asyncio.sleep(0)
    for server in servers:
        server.close()
    door.draining = True
    for client in list(door.connections):
        client.relieve()
    told = asyncio.ensure_future(stop.wait())
    limits = door.limits
    everything = asyncio.gather(*over)
    await asyncio.wait(
        (everything, told),
        timeout=max(limits.stream_timeout_s, limits.bidirectional_timeout_s) + limits.keepalive_timeout_s,
        return_when=asyncio.FIRST_COMPLETED,
    )
    everything.cancel()
    told.cancel()
