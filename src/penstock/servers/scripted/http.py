"""HTTP/1.1 close to the socket, so that an answer can end in every wrong way.

Owns the parsing of requests and the framing of answers: one `chunk` call is exactly one HTTP chunk. It must never know scripts.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import httptools

BODY_BYTES = 64 * 1024 * 1024
HEAD_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_PHRASES = {int(s): s.phrase for s in HTTPStatus}
DRAIN_TIMEOUT_S = 3600.0
"""How long a client may leave an answer unread."""


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request. Header names are in lower case; of a repeated header the last counts."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class BadRequest(Exception):
    """The bytes are no request, or too many."""


class _Parser:
    """Feed bytes, take whole requests."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.whole: deque[Request] = deque()
        self.expects_continue = False
        self.rest: bytes | None = None
        """What followed a request that asked for another protocol; None where none has."""
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._head_bytes = 0

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise BadRequest(str(error)) from error

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name + value)
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.expects_continue = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_BYTES:
            raise BadRequest("the body is too large")

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        path = self._url.decode("latin-1").partition("?")[0]
        self.whole.append(Request(method, path, self._headers, bytes(self._body)))

    def _count(self, data: bytes) -> None:
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            raise BadRequest("the head is too large")


class Answer:
    """The answer to one request. Every method that writes waits until the client has taken what was written before."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun = False
        self.broken = False
        self.chunks = 0
        self._framed = True

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head. Chunked, unless the headers hold a content-length: then what follows is sent as it is."""
        names = {name.lower() for name in headers}
        bodiless = status in (204, 304)
        self._framed = not bodiless and "content-length" not in names
        phrase = _PHRASES.get(status, "Scripted")
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        if self._framed:
            lines.append("transfer-encoding: chunked")
        self.begun = True
        await self._write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))

    async def chunk(self, data: bytes) -> None:
        """Send `data` as exactly one chunk. Empty data is nothing: an empty chunk would be the end."""
        if data:
            self.chunks += 1
            await self._write(b"%x\r\n%s\r\n" % (len(data), data) if self._framed else data)

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """An answer of known length."""
        await self.begin(status, {**headers, "content-length": str(len(body))})
        await self.chunk(body)

    async def end(self) -> None:
        if self._framed and self.begun and not self.broken:
            await self._write(b"0\r\n\r\n")

    def close(self) -> None:
        """End the connection in the middle, what was written is delivered."""
        self.broken = True
        self._writer.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.broken = True
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await self._writer.drain()


Handler = Callable[[Request, Answer], Awaitable[None]]
Left = Callable[[Request, Answer], None]
Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Request, bytes], Awaitable[None]]
"""Takes a connection over whose request asks for a WebSocket; the bytes are what followed it."""


async def serve_connection(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handler: Handler,
    left: Left,
    converse: Converse | None = None,
) -> None:
    """Answer a connection's requests one after another; `left` is told when the client goes before its answer is whole."""
    # With the mark at nought `drain` returns only when the kernel has everything, so close and reset lose nothing before them.
    writer.transport.set_write_buffer_limits(high=0)
    parser = _Parser()
    try:
        while True:
            while not parser.whole:
                if not (data := await reader.read(_READ_BYTES)):
                    return
                parser.feed(data)
                if parser.expects_continue and not parser.whole:
                    parser.expects_continue = False
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = parser.whole.popleft()
            if converse and parser.rest is not None and request.headers.get("upgrade", "").lower() == "websocket":
                await converse(reader, writer, request, parser.rest)
                return
            answer = Answer(writer)
            if not await _answer(reader, parser, handler(request, answer)):
                left(request, answer)
                return
            if answer.broken or request.headers.get("connection", "").lower() == "close":
                return
    except BadRequest as error:
        with suppress(OSError):
            await Answer(writer).whole(
                400, {"content-type": "text/plain", "connection": "close"}, f"{error}\n".encode()
            )
    except (ConnectionError, TimeoutError):
        return
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader, parser: _Parser, work: Awaitable[None]) -> bool:
    """Carry out `work` while watching for the client's leaving, which ends it. True where the work came to its end."""
    playing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_watch(reader, parser))
    try:
        await asyncio.wait({playing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not playing.done():
            return False
        try:
            playing.result()
        except ConnectionError:
            return False
        return True
    finally:
        for task in (playing, watching):
            task.cancel()
        await asyncio.gather(playing, watching, return_exceptions=True)


async def _watch(reader: asyncio.StreamReader, parser: _Parser) -> None:
    """Return when the client has left. Requests that it sends ahead are kept; the reader's own limit bounds them."""
    with suppress(ConnectionError):
        while data := await reader.read(_READ_BYTES):
            parser.feed(data)
