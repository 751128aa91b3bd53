"""A WebSocket to a replica: one for each bidirectional stream.

Owns connecting, the upgrade, frames, pings and the closing handshake, all bounded. It must never know what a part means or who the client
is: a `Listener` is told of what comes. RFC 6455; AWS's page: "Container Contract to Support Bidirectional Streaming Capabilities".
"""

from __future__ import annotations

import asyncio
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import Protocol, cast

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from penstock.gateway.bidi.parts import Part
from penstock.gateway.failures import MAX_ORIGINAL
from penstock.gateway.upstream import CONNECT_TIMEOUT_S, Dial, Failure, Sink, Target

WRITE_HIGH = 64 * 1024
"""Bytes that may wait for a slow container before its client is held back."""
FAREWELL_S = 1.0
"""How long a last frame may take to leave."""
MISSED_PONGS = 5
"""Pings in a row that a container may leave unanswered (AWS: the same)."""
CLEAN = (CloseReason.NORMAL_CLOSURE, CloseReason.NO_STATUS_RCVD)
"""Close codes of a container that has said all it had to say."""

_Text = getincrementaldecoder("utf-8")


class MixedTypes(ValueError):
    """A part of another type inside a message."""


class Listener(Sink, Protocol):
    """Who asked for the WebSocket. After `socket_refused`, `socket_closed` or `upstream_failed` nothing more is told."""

    def socket_ready(self, socket: WebSocket) -> None:
        """The connection stands: `WebSocket.upgrade` is next."""

    def socket_opened(self) -> None: ...
    def socket_refused(self, status: int, body: bytes | None) -> None:
        """The container answered with something else than 101. `body` is None where it was too long or broke off."""

    def socket_part(self, part: Part) -> None: ...
    def socket_closed(self, code: int, reason: str) -> None: ...


class WebSocket(asyncio.Protocol):
    """One connection. `longest` is the largest frame that is taken, bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, longest: int) -> None:
        self._loop = loop
        self._longest = longest
        self.target = target
        self.listener: Listener | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._open = False
        self._refusal = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._unanswered = 0
        self._message_is_text: bool | None = None
        self._text = _Text()

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)

    def pause_writing(self) -> None:
        if self.listener is not None:
            self.listener.upstream_paused()

    def resume_writing(self) -> None:
        if self.listener is not None:
            self.listener.upstream_resumed()

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, error: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        """The container left without a word of farewell."""
        if self._refusal:
            self._refuse(None)
        else:
            self._fail(Failure.BROKEN if self._open else Failure.SILENT)

    def _fail(self, failure: Failure) -> None:
        listener, self.listener = self.listener, None
        self._open = False
        self.transport.abort()
        if listener is not None:
            listener.upstream_failed(failure)

    def _refuse(self, body: bytes | None) -> None:
        listener, self.listener = self.listener, None
        self.transport.abort()
        if listener is not None:
            listener.socket_refused(self._refusal, body)

    # --- for the listener

    def upgrade(self, listener: Listener, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Asks for the WebSocket at `path`, which has no leading slash and may have a query."""
        self.listener = listener
        host = self.target.host.decode()
        self.transport.write(self._wire.send(Request(host=host, target=f"/{path}", extra_headers=headers)))

    def send(self, part: Part) -> None:
        """One frame. Raises MixedTypes, and ValueError on text that is no UTF-8. A character cut in two goes out with its end."""
        if not self._open:
            return  # the container is closing: what comes from the client now has no reader
        inside = self._message_is_text
        text = bool(part.text if part.text is not None else inside)
        if inside is not None and text != inside:
            raise MixedTypes("the parts of one message have one DataType")
        event: Event
        if text:
            decoded = self._text.decode(part.data, final=part.last)
            event = TextMessage(data=decoded, message_finished=part.last)
        else:
            event = BytesMessage(data=part.data, message_finished=part.last)
        self._message_is_text = None if part.last else text
        self.transport.write(self._wire.send(event))

    def ping(self) -> bool:
        """Asks whether the container is there. False where it has left too many pings unanswered."""
        if self._unanswered >= MISSED_PONGS:
            return False
        if self._open:
            self._unanswered += 1
            self.transport.write(self._wire.send(Ping()))
        return True

    def close(self, code: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        """Says that nothing more comes. What the container still has to say is told until it closes too."""
        if self._open:
            self._open = False
            self.transport.write(self._wire.send(CloseConnection(code=code)))

    def leave(self) -> None:
        """Closes at once and tells nobody: this is how a container learns that it may stop."""
        self.listener = None
        if self.transport.is_closing():
            return
        if self._open and not self.transport.get_write_buffer_size():
            self.close(CloseReason.GOING_AWAY)
            self._farewell()
        else:
            self.transport.abort()

    def _farewell(self) -> None:
        """Closes once the last frame is out, or soon."""
        self.transport.close()
        self._loop.call_later(FAREWELL_S, self.transport.abort)

    def pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- what the container sends

    def data_received(self, data: bytes) -> None:
        if not self._heard():
            return
        try:
            self._wire.receive_data(data)
            for event in self._wire.events():
                if self._heard():
                    self._take(event)
        except ProtocolError:
            self._gone()

    def _heard(self) -> bool:
        return self.listener is not None

    def _take(self, event: Event) -> None:
        if isinstance(event, TextMessage):
            self._piece(event.data.encode(), True, event.frame_finished, event.message_finished)
        elif isinstance(event, BytesMessage):
            self._piece(bytes(event.data), False, event.frame_finished, event.message_finished)
        elif isinstance(event, Ping):
            if self._open:
                self.transport.write(self._wire.send(event.response()))
        elif isinstance(event, Pong):
            self._unanswered = 0
        elif isinstance(event, CloseConnection):
            self._closed(event)
        elif isinstance(event, AcceptConnection):
            self._open = True
            if self.listener is not None:
                self.listener.socket_opened()
        elif isinstance(event, RejectConnection):
            self._refusal = event.status_code
            if not event.has_body:
                self._refuse(b"")
        elif isinstance(event, RejectData):
            self._refused(event)

    def _piece(self, data: bytes, text: bool, whole: bool, last: bool) -> None:
        """A piece of a frame: the library tells what it has read, we tell whole frames."""
        self._size += len(data)
        if self._size > self._longest:
            self._break(CloseReason.MESSAGE_TOO_BIG, f"a frame has at most {self._longest} bytes")
            return
        self._pieces.append(data)
        if whole:
            frame, self._pieces, self._size = b"".join(self._pieces), [], 0
            if self.listener is not None:
                self.listener.socket_part(Part(frame, text, last))

    def _break(self, code: CloseReason, reason: str) -> None:
        """Closes on a container that does not keep the rules."""
        listener, self.listener = self.listener, None
        self.close(code)
        self._farewell()
        if listener is not None:
            listener.socket_closed(code, reason)

    def _closed(self, event: CloseConnection) -> None:
        """The container's close frame, or, of the library's making, what it thinks of a frame that makes no sense."""
        listener, self.listener = self.listener, None
        if self._open:
            self._open = False
            with suppress(ProtocolError):
                self.transport.write(self._wire.send(event.response()))
        self._farewell()
        if listener is not None:
            listener.socket_closed(int(event.code), event.reason or "")

    def _refused(self, event: RejectData) -> None:
        self._size += len(event.data)
        if self._size > MAX_ORIGINAL:
            self._refuse(None)
            return
        self._pieces.append(bytes(event.data))
        if event.body_finished:
            self._refuse(b"".join(self._pieces))


class WebSocketDial(Dial):
    """A WebSocket's connection on its way to one listener."""

    __slots__ = ("_listener", "_longest")

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, listener: Listener, longest: int) -> None:
        self._listener, self._longest = listener, longest
        super().__init__(loop, target, listener)

    async def _connect(self) -> None:
        address, loop, target = self._target.address, self._loop, self._target
        assert isinstance(address, tuple), "replicas listen on TCP"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = (await loop.create_connection(lambda: WebSocket(loop, target, self._longest), *address))[1]
        except OSError:  # TimeoutError is one
            self._listener.upstream_failed(Failure.REFUSED)
            return
        self._listener.socket_ready(socket)
