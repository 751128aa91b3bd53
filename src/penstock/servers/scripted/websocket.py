"""The script over a WebSocket: each message that comes is a request, each chunk that the script sends is a message.

Owns the frames. It must never know steps. `wsproto` is an optional part: without it there is no WebSocket here.
AWS's page: "Container Contract to Support Bidirectional Streaming Capabilities".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from penstock.servers.scripted.http import BODY_BYTES, Answer, Request

_READ_BYTES = 64 * 1024
_AHEAD = 16
"""Messages that are read before their turn."""

Play = Callable[[Request, Answer], Awaitable[None]]


class Frames(Answer):
    """What a script sends in answer to one message: messages of the same type, where text is UTF-8."""

    def __init__(self, writer: asyncio.StreamWriter, wire: WSConnection, *, text: bool) -> None:
        super().__init__(writer)
        self._wire, self._text = wire, text

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """A status has no place here, but for an error's: it closes."""
        self.begun = True
        if status >= 400:
            await self.farewell(CloseReason.INTERNAL_ERROR, f"status {status}")

    async def chunk(self, data: bytes) -> None:
        if self.broken or not data:
            return
        self.chunks += 1
        message: Event = BytesMessage(data=data)
        if self._text:
            with suppress(UnicodeDecodeError):
                message = TextMessage(data=data.decode())
        await self._write(self._wire.send(message))

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await self.farewell(CloseReason.POLICY_VIOLATION, body.decode("utf-8", "replace"))

    async def end(self) -> None:
        """The next message may come."""

    async def farewell(self, code: CloseReason, reason: str) -> None:
        self.broken = True
        await self._write(self._wire.send(CloseConnection(code=code, reason=reason)))


async def serve_websocket(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, rest: bytes, play: Play
) -> None:
    """Plays to each message in turn, until either side ends the connection."""
    wire = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        wire.initiate_upgrade_connection(headers, request.path)
        writer.write(wire.send(AcceptConnection()))
        wire.receive_data(rest)
    except ProtocolError as error:
        await Answer(writer).whole(400, {"content-type": "text/plain"}, f"{error}\n".encode())
        return
    messages: asyncio.Queue[tuple[Request, Frames]] = asyncio.Queue(_AHEAD)
    reading = asyncio.ensure_future(_read(reader, writer, wire, request, messages))
    playing = asyncio.ensure_future(_play(messages, play))
    try:
        await asyncio.wait({reading, playing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, playing):
            task.cancel()
        await asyncio.gather(reading, playing, return_exceptions=True)


async def _play(messages: asyncio.Queue[tuple[Request, Frames]], play: Play) -> None:
    while True:
        request, frames = await messages.get()
        await play(request, frames)
        if frames.broken:
            return


async def _read(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    wire: WSConnection,
    request: Request,
    messages: asyncio.Queue[tuple[Request, Frames]],
) -> None:
    """Returns when the client has closed or left."""
    body = b""
    with suppress(ConnectionError, ProtocolError):
        while True:
            for event in wire.events():
                if isinstance(event, TextMessage | BytesMessage):
                    body += event.data.encode() if isinstance(event.data, str) else event.data
                    if len(body) > BODY_BYTES:
                        event = CloseConnection(code=CloseReason.MESSAGE_TOO_BIG)
                        writer.write(wire.send(event))
                        return
                    if event.message_finished:
                        frames = Frames(writer, wire, text=isinstance(event, TextMessage))
                        await messages.put(
                            (Request(request.method, request.path, request.headers, bytes(body)), frames)
                        )
                        body = b""
                elif isinstance(event, Ping | CloseConnection):
                    writer.write(wire.send(event.response()))
                    if isinstance(event, CloseConnection):
                        return
            if not (data := await reader.read(_READ_BYTES)):
                return
            wire.receive_data(data)
