"""The plain HTTP proxy: `CONNECT` to AWS hosts ends here, `CONNECT` to any other host is passed through untouched.

Owns what happens on the proxy's port before there is a request for us. It must never read what it tunnels. Programs whose host names are
fixed in their code (`https://sts.us-east-1.amazonaws.com`) reach Penstock this way, through `HTTPS_PROXY`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from math import inf
from typing import cast

from penstock.gateway import answers
from penstock.gateway.bidi import alpn
from penstock.gateway.connection import ClientConnection, Opener
from penstock.gateway.door import Door
from penstock.gateway.head import BadRequest, split_authority
from penstock.gateway.hosts import is_served
from penstock.gateway.peers import is_local

log = logging.getLogger("penstock.gateway")

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONNECT_TIMEOUT_S = 10.0
TLS_FAREWELL_S = 1.0
"""How long we wait for a client's close_notify. Idle clients do not read, and would hold up the drain for as long as we waited."""
TUNNEL_IDLE_S = 600.0
"""How long a tunnel may carry nothing in either direction."""
TUNNEL_BUFFER = 256 * 1024
_EARLY_MAX = 256 * 1024
SERVED_PORTS = (443, 8443)
"""Of AWS's hosts; the second has the bidirectional call."""


class ProxyConnection(ClientConnection):
    """A connection to the proxy's port. After `CONNECT` it becomes TLS of ours, or one end of a tunnel."""

    __slots__ = ("_authority", "_context", "_task")

    def __init__(self, door: Door, opener: Opener, context: ssl.SSLContext) -> None:
        super().__init__(door, opener)
        self._context = context
        self._authority = b""
        self._task: asyncio.Task[None] | None = None

    def _read_quickly(self, data: bytes) -> bool:
        """What a proxy is asked is unusual: all of it is the parser's."""
        return False

    def on_headers_complete(self) -> None:
        if self._parser.get_method() == b"CONNECT":
            self._authority = self._url
            return
        host = split_authority(self._url.partition(b"://")[2].partition(b"/")[0].decode("latin-1"))
        if b"://" not in self._url or host is None or not is_served(host[0]):
            text = (
                "This port is Penstock's proxy: it takes CONNECT, and plain requests to AWS hosts that Penstock serves."
            )
            raise BadRequest(403 if b"://" in self._url else 400, text)
        super().on_headers_complete()

    def _upgraded(self, rest: bytes) -> None:
        if not self._authority:
            super()._upgraded(rest)
            return
        self._deaf = True
        self.deadline = inf
        target = split_authority(self._authority.decode("latin-1"))
        if target is None or not target[1]:
            self._refuse(BadRequest(400, "CONNECT takes a host and a port."))
        elif rest:
            self._refuse(BadRequest(400, "A tunnel's bytes come after the proxy's answer."))
        elif is_served(target[0]) and target[1] in SERVED_PORTS:
            self._task = self.door.loop.create_task(self._secure())
        elif not self._from_here():
            self._refuse(BadRequest(403, "Hosts other than AWS's are tunnelled for programs on this machine alone."))
        else:
            self._task = self.door.loop.create_task(self._tunnel(*target))

    def _from_here(self) -> bool:
        """Whether the client is on this machine: for others this would be an open proxy."""
        return is_local(self.transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(error)

    async def _secure(self) -> None:
        """Becomes the AWS host that the client believes it has reached."""
        door, early = self.door, _Early()
        self.transport.write(ESTABLISHED)
        door.left(self)
        try:
            secured = await door.loop.start_tls(
                self.transport,
                early,
                self._context,
                server_side=True,
                ssl_handshake_timeout=door.limits.header_timeout_s,
                ssl_shutdown_timeout=TLS_FAREWELL_S,
            )
        except (OSError, ConnectionError) as error:
            log.info("a proxied client did not accept our certificate: %s", error)
            self.transport.abort()
            return
        if secured is not None and not early.lost:
            early.hand_over(secured, alpn.speaker(door, self.opener, secured))

    async def _tunnel(self, host: str, port: int) -> None:
        door = self.door
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far = (await door.loop.create_connection(lambda: TunnelEnd(door), host, port))[1]
        except OSError as error:
            reason = str(error) or "no answer in time"
            answer = answers.plain_answer(502, f"{host}:{port} cannot be reached: {reason}", door.request_id())
            self.transport.write(answer)
            self._linger()
            return
        near = TunnelEnd(door)
        self.transport.set_protocol(near)
        door.left(self)
        near.connection_made(self.transport)
        near.peer, far.peer = far, near
        self.transport.write(ESTABLISHED)


class _Early(asyncio.Protocol):
    """Keeps what a client sends together with the end of its handshake until the connection proper is in place."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def hand_over(self, transport: asyncio.Transport, client: asyncio.Protocol) -> None:
        transport.set_protocol(client)
        client.connection_made(transport)
        if self._data:
            client.data_received(bytes(self._data))


class TunnelEnd(asyncio.Protocol):
    """One side of a tunnel: what comes in goes out at `peer`, no faster than that one takes it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.peer: TunnelEnd | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self.deadline = self.answer_by = inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=TUNNEL_BUFFER)
        self._progress()
        self.door.arrived(self)

    def data_received(self, data: bytes) -> None:
        self._progress()
        if self.peer is not None:
            self.peer._progress()
            self.peer.transport.write(data)

    def _progress(self) -> None:
        self.deadline = self.door.loop.time() + TUNNEL_IDLE_S

    def eof_received(self) -> bool:
        if self.peer is not None and self.peer.transport.can_write_eof():
            self.peer.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.door.left(self)
        if self.peer is not None:
            self.peer.transport.close()

    def pause_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def expire(self, now: float) -> None:
        self.transport.abort()

    def relieve(self) -> None:
        """A tunnel goes on while its ends do."""

    def drain(self) -> None:
        """A tunnel goes on while its ends do; `shut` ends it."""

    def shut(self) -> None:
        self.transport.abort()
