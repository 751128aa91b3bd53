"""The connection over which the routing table comes and events go.

Owns that socket: reading whole tables, sending events, coming back after a loss. It must never judge a table; without a connection the
last one stays in force, so that endpoints outlive a restart of control.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from penstock.routes import GatewayEvent, RoutingTable, decode_table, encode_line

log = logging.getLogger("penstock.gateway")

MAX_TABLE = 64 * 1024 * 1024
"""Bytes of one table's line."""
MAX_EVENTS = 1000
"""Events that wait for control to come back; beyond it the oldest are dropped: they are news, not state."""
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class TableClient:
    """Follows the table on the unix socket `address`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ready: GatewayEvent | None = None
        self._events: deque[GatewayEvent] = deque(maxlen=MAX_EVENTS)
        self._writer: asyncio.StreamWriter | None = None

    def announce(self, ready: GatewayEvent) -> None:
        """Sends `ready`, now and at the start of each later connection."""
        self._ready = ready
        self.send(ready)

    def send(self, event: GatewayEvent) -> None:
        """Never waits: what cannot go now goes after the next connection."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > 1024 * 1024:
            self._events.append(event)
        else:
            writer.write(encode_line(event))

    async def run(self, apply: Callable[[RoutingTable], None]) -> None:
        """Connects, calls `apply` with each table, and comes back after a loss, until cancelled."""
        failed = 0
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._address, limit=MAX_TABLE)
            except OSError as error:
                if failed == len(RETRY_S):
                    log.warning("no connection for the routing table: %s", error)
                await asyncio.sleep(RETRY_S[min(failed, len(RETRY_S) - 1)])
                failed += 1
                continue
            failed = 0
            try:
                await self._follow(reader, writer, apply)
            finally:
                self._writer = None
                writer.close()
            await asyncio.sleep(RETRY_S[0])

    async def _follow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, apply: Callable[[RoutingTable], None]
    ) -> None:
        if self._ready is not None:
            writer.write(encode_line(self._ready))
        while self._events:
            writer.write(encode_line(self._events.popleft()))
        self._writer = writer
        try:
            while True:
                line = await reader.readuntil()
                try:
                    table = decode_table(line)
                except msgspec.MsgspecError as error:
                    log.error("a routing table that cannot be read was left out: %s", error)
                else:
                    apply(table)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.info("the routing table's connection ended: %s", error or type(error).__name__)
