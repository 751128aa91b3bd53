"""What gateways are told: the routing table, and the socket on which they get it.

Owns the making of the table and its delivery: whole, on connecting and after each change. It must never hold up who publishes: a gateway
that reads too slowly skips tables, and one that does not read at all is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import msgspec

from penstock import faultplan
from penstock.control.fleet import Fleet, ProductionVariant
from penstock.control.reconcile import Serving
from penstock.control.store import StoredPlan
from penstock.routes import (
    AccessKey,
    Container,
    Endpoint,
    GatewayEvent,
    InferenceComponent,
    Replica,
    RoutingTable,
    Variant,
    decode_event,
    encode_line,
)

log = logging.getLogger(__name__)
WRITE_DEADLINE_S = 10.0
LINE_BYTES = 64 * 1024


Tags = Mapping[str, Mapping[str, str]]
Plans = Mapping[str, StoredPlan]
"""Both by endpoint ARN."""


def endpoints(serving: tuple[Serving, ...], tags: Tags, plans: Plans) -> tuple[Endpoint, ...]:
    """The table's endpoints: those that can be invoked, each with the replicas that answer, or with its components and their copies."""
    hosted: dict[str, list[Serving]] = {}
    for s in serving:
        if s.endpoint.host:
            hosted.setdefault(s.endpoint.host.endpoint_id, []).append(s)
    return tuple(
        _endpoint(s, tags.get(s.endpoint.arn, {}), plans.get(s.endpoint.arn), hosted.get(s.endpoint.id, ()))
        for s in serving
        if not s.endpoint.host
    )


def _endpoint(
    serving: Serving, tags: Mapping[str, str], plan: StoredPlan | None, hosted: Iterable[Serving]
) -> Endpoint:
    endpoint = serving.endpoint
    faults = plan or StoredPlan(tags.get(faultplan.TAG, ""), 0.0)
    return Endpoint(
        endpoint.name,
        endpoint.arn,
        endpoint.region,
        endpoint.account,
        tuple(_variant(v, serving) for v in endpoint.fleet.variants),
        dict(tags),
        faults.text,
        faults.set_at,
        tuple(_component(s, endpoint.fleet) for s in hosted) if endpoint.fleet.hosts_components else None,
    )


def _component(serving: Serving, host: Fleet) -> InferenceComponent:
    """It runs what it runs, and is routed to as its host's variant says."""
    (own,) = serving.endpoint.fleet.variants
    variant = host.variant(own.name) or own
    return InferenceComponent(serving.endpoint.name, _variant(replace(variant, container=own.container), serving))


def _variant(v: ProductionVariant, serving: Serving) -> Variant:
    return Variant(
        v.name,
        v.weight,
        () if v.containers else _replicas(serving, v.name),
        v.container,
        v.routing,
        v.max_concurrency,
        v.prefix_length,
        v.concurrency_threshold,
        v.multi_model,
        tuple(Container(container.name, _replicas(serving, v.name, container.name)) for container in v.containers),
        v.serial,
    )


def _replicas(serving: Serving, variant: str, container: str = "") -> tuple[Replica, ...]:
    return tuple(
        Replica(replica.id, replica.epoch, status.host or "127.0.0.1", status.port)
        for replica, status in serving.replicas
        if (replica.slot.variant, replica.slot.container) == (variant, container)
    )


class TableServer:
    """Sends the table to every gateway that connects. `on_event` gets what they say.

    `is_ours` is asked about the process at the other end (its pid): a worker that outlived an earlier control process by a moment must
    not pass for one of ours, with the ports that it had.
    """

    def __init__(
        self,
        keys: tuple[AccessKey, ...],
        on_event: Callable[[GatewayEvent], None],
        is_ours: Callable[[int], bool] = lambda pid: True,
    ) -> None:
        # Versions rise across restarts: a gateway that outlived us keeps the newest it has seen.
        self.table = RoutingTable(version=time.time_ns() // 1_000_000, keys=keys)
        self._line = encode_line(self.table)
        self._on_event, self._is_ours = on_event, is_ours
        self._changed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def publish(self, serving: tuple[Serving, ...], tags: Tags, plans: Plans) -> None:
        """Tell the gateways, if anything differs."""
        self._replace(endpoints(serving, tags, plans), self.table.keys)

    def publish_keys(self, keys: tuple[AccessKey, ...]) -> None:
        """The keys that may sign from now on."""
        self._replace(self.table.endpoints, keys)

    def _replace(self, endpoints: tuple[Endpoint, ...], keys: tuple[AccessKey, ...]) -> None:
        if (endpoints, keys) == (self.table.endpoints, self.table.keys):
            return
        self.table = RoutingTable(self.table.version + 1, endpoints, keys)
        self._line = encode_line(self.table)
        self._changed.set()
        self._changed = asyncio.Event()

    async def start(self, listening: socket.socket) -> None:
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, limit=LINE_BYTES)

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_ours(_peer(writer)):
            log.warning("process %d is no gateway of ours: it gets no table", _peer(writer))
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways until one of them ends."""
        try:
            ways = [asyncio.create_task(self._send(writer)), asyncio.create_task(self._receive(reader))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                for outcome in await asyncio.gather(*ways, return_exceptions=True):
                    if isinstance(outcome, Exception):
                        log.warning("a gateway's table connection ended: %s", outcome or type(outcome).__name__)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        sent = -1
        while True:
            changed = self._changed
            if sent != self.table.version:
                sent = self.table.version
                writer.write(self._line)
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await writer.drain()
            else:
                await changed.wait()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            try:
                event = decode_event(line)
            except msgspec.MsgspecError as error:
                raise ValueError(f"not an event: {error}") from None
            self._on_event(event)


def _peer(writer: asyncio.StreamWriter) -> int:
    """The pid of the process at the other end (SO_PEERCRED)."""
    end: socket.socket = writer.get_extra_info("socket")
    pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)
