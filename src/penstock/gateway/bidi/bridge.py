"""Every other operation over HTTP/2: a stream that a connection of HTTP/1.1 answers.

Owns the pipe between the two: the request goes in as HTTP/1.1, its answer is read back and sent as HTTP/2. It must never know what is
asked; what answers is the very code that answers clients of HTTP/1.1. AWS's clients of the bidirectional call offer both versions, so
whoever offers both gets HTTP/2, and all that such clients ask must work.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from h2.errors import ErrorCodes

from penstock.gateway.bidi.request import as_http1
from penstock.gateway.bidi.stream import Http2Stream
from penstock.gateway.connection import ClientConnection, Opener
from penstock.gateway.door import Door
from penstock.gateway.head import Head

_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding"))


class Bridge:
    """A stream's `Receiver`: it feeds a connection."""

    def __init__(
        self, door: Door, opener: Opener, transport: asyncio.Transport, stream: Http2Stream, head: Head
    ) -> None:
        self._connection = ClientConnection(door, opener)
        self._pipe = Pipe(door.loop, transport, stream, self._connection, headless=head.method == "HEAD")
        self._stream = stream
        self._chunked = False

    def begin(self, head: Head, *, ended: bool) -> None:
        self._stream.receiver = self
        self._connection.connection_made(self._pipe)
        raw, self._chunked = as_http1(head, body=not ended)
        self._feed(raw)

    def _feed(self, data: bytes) -> None:
        if not self._pipe.is_closing():
            self._connection.data_received(data)

    def data(self, data: bytes) -> None:
        if data:
            self._feed(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    def ended(self) -> None:
        if self._chunked:
            self._feed(b"0\r\n\r\n")

    def gone(self) -> None:
        self._pipe.lose()

    def pause(self) -> None:
        self._connection.pause_writing()

    def resume(self) -> None:
        self._connection.resume_writing()

    def shut(self) -> None:
        self._connection.shut()


class Pipe(asyncio.Transport):
    """What a connection takes for its transport. One answer is read from what it writes; then it is over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        real: asyncio.Transport,
        stream: Http2Stream,
        connection: ClientConnection,
        *,
        headless: bool,
    ) -> None:
        super().__init__()
        self._loop, self._real, self._stream, self._connection = loop, real, stream, connection
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[str, str]] = []
        self._headless = headless
        self._complete = self._closing = self._lost = False

    # --- the answer

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing and not self._complete:
            self._parser.feed_data(bytes(data))

    def on_message_begin(self) -> None:
        self._fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        if key not in _HOP_BY_HOP:
            self._fields.append((key, value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        end = self._headless or status in (204, 304)
        self._stream.headers([(":status", str(status)), *self._fields], end=end and status >= 200)
        if end:
            self._finish()

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._stream.write(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200 and not self._complete:
            self._finish()
            self._stream.finish()

    def _finish(self) -> None:
        """The answer is whole: the connection, which would wait for another request, is told soon that its client has left."""
        self._complete = True
        self._loop.call_soon(self.lose)

    # --- the end

    def is_closing(self) -> bool:
        return self._closing or self._complete

    def close(self) -> None:
        """Ends the stream behind what has been written."""
        if not self._closing:
            self._closing = True
            if not self._complete:
                self._stream.finish(broken=ErrorCodes.INTERNAL_ERROR)
            self._loop.call_soon(self.lose)

    def abort(self) -> None:
        if not self._complete:
            self._stream.reset(ErrorCodes.INTERNAL_ERROR)
        self.close()

    def lose(self) -> None:
        self._closing = True
        if not self._lost:
            self._lost = True
            self._connection.connection_lost(None)

    # --- what else a transport has

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The client's, but for the socket: options set on it would be every stream's."""
        return default if name == "socket" else self._real.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The stream has its own."""

    def get_write_buffer_size(self) -> int:
        return len(self._stream.pending)

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._stream.hold()

    def resume_reading(self) -> None:
        self._stream.release()
