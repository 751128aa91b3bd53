"""Which version of HTTP a connection over TLS speaks.

Owns the offer in the handshake and the choice after it, and whether HTTP/2 is there at all: its libraries are an optional part. It must
never parse a request.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from math import inf
from typing import cast

from penstock.gateway.connection import ClientConnection, Opener
from penstock.gateway.door import Door

AVAILABLE = find_spec("h2") is not None and find_spec("wsproto") is not None
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def offered() -> list[str]:
    """For ALPN, in our order of preference.

    AWS's SDKs offer both versions and take HTTP/1.1 where the server prefers it, in which the bidirectional call cannot be made: so HTTP/2
    is first, and every operation is answered in it.
    """
    return ["h2", "http/1.1"] if AVAILABLE else ["http/1.1"]


def speaker(door: Door, opener: Opener, transport: asyncio.Transport) -> asyncio.Protocol:
    """The protocol for a connection whose handshake is over."""
    spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
    if spoken == "h2":
        return http2(door, opener)
    return ClientConnection(door, opener) if spoken or not AVAILABLE else Sniffing(door, opener)


def http2(door: Door, opener: Opener) -> asyncio.Protocol:
    from penstock.gateway.bidi.http2 import Http2Connection
    from penstock.gateway.bidi.serve import serving

    return Http2Connection(door, serving(door, opener))


class Negotiated(asyncio.Protocol):
    """Stands in until the handshake is over, and no longer."""

    def __init__(self, door: Door, opener: Opener) -> None:
        self._door, self._opener = door, opener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        secured = cast(asyncio.Transport, transport)
        protocol = speaker(self._door, self._opener, secured)
        secured.set_protocol(protocol)
        protocol.connection_made(secured)


class Sniffing(asyncio.Protocol):
    """A client that does not negotiate: its first bytes tell. Java's SDK can be told to assume HTTP/2."""

    def __init__(self, door: Door, opener: Opener) -> None:
        self._door, self._opener = door, opener
        self._first = b""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self.deadline = self.answer_by = inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.deadline = self._door.loop.time() + self._door.limits.header_timeout_s
        self._door.arrived(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._door.left(self)

    def data_received(self, data: bytes) -> None:
        self._first += data
        if len(self._first) < len(PREFACE) and PREFACE.startswith(self._first):
            return
        door, opener = self._door, self._opener
        protocol = http2(door, opener) if self._first.startswith(PREFACE) else ClientConnection(door, opener)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        door.left(self)
        protocol.data_received(self._first)

    def expire(self, now: float) -> None:
        self.transport.abort()

    def relieve(self) -> None:
        """What comes is served."""

    def drain(self) -> None:
        self.transport.close()

    def shut(self) -> None:
        self.transport.abort()
