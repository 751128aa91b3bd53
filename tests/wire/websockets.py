"""A container that speaks WebSocket, on the library's server side: for replicas of the gateway under test.

Owns the handshake and the frames; what is said is the test's. It must never know the gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from tests.wire.gateway_fixture import Script, Wire

__all__ = ["BytesMessage", "CloseConnection", "Ping", "Socket", "TextMessage", "speaking"]


class Socket:
    """One accepted WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.target = ""
        self.headers: dict[str, str] = {}
        self.pings = 0
        self.answers_pings = True
        self._connection = WSConnection(ConnectionType.SERVER)
        self._events: Iterator[Event] = iter(())

    async def accept(self) -> None:
        event = await self.event()
        assert isinstance(event, Request), event
        self.target = event.target
        self.headers = {name.decode().lower(): value.decode() for name, value in event.extra_headers}
        await self.send(AcceptConnection())

    async def event(self) -> Event:
        """The next event but pings and pongs. Raises EOFError when the connection is gone."""
        while True:
            for event in self._events:  # one at a time: the library's state is that of the last one taken
                if isinstance(event, Ping):
                    self.pings += 1
                    if self.answers_pings:
                        await self.send(event.response())
                elif not isinstance(event, Pong):
                    return event
            data = await self.wire.reader.read(65536)
            if not data:
                raise EOFError
            self._connection.receive_data(data)
            self._events = self._connection.events()

    async def send(self, event: Event) -> None:
        await self.wire.send(self._connection.send(event))

    async def text(self, data: str, *, last: bool = True) -> None:
        await self.send(TextMessage(data=data, message_finished=last))

    async def bytes(self, data: bytes, *, last: bool = True) -> None:
        await self.send(BytesMessage(data=data, message_finished=last))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Our close frame; the other side's is waited for, and no ping is answered any more."""
        self.answers_pings = False
        await self.send(CloseConnection(code=code, reason=reason))
        try:
            while not isinstance(await self.event(), CloseConnection):
                pass
        except (EOFError, ConnectionError):
            pass


def speaking(handle: Callable[[Socket], Awaitable[None]]) -> Script:
    """A replica's script that runs `handle` on each WebSocket."""

    async def script(wire: Wire) -> None:
        socket = Socket(wire)
        try:
            await socket.accept()
            await handle(socket)
        except EOFError:
            pass

    return script


async def echo(socket: Socket) -> None:
    """Sends back frame by frame, and answers the close."""
    while True:
        event = await socket.event()
        if isinstance(event, TextMessage):
            await socket.text(event.data, last=event.message_finished)
        elif isinstance(event, BytesMessage):
            await socket.bytes(bytes(event.data), last=event.message_finished)
        elif isinstance(event, CloseConnection):
            await socket.send(event.response())
            return
