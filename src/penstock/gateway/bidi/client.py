"""The client of one bidirectional stream, as an exchange sees it.

Owns the request's note, its two deadlines and its one end. It must never know what is said, nor HTTP/2's frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf

from h2.errors import ErrorCodes

from penstock.errors import AwsError
from penstock.gateway.answers import http_date
from penstock.gateway.bidi.errors import renamed
from penstock.gateway.bidi.stream import Headers, Http2Stream
from penstock.gateway.door import Door
from penstock.gateway.exchange import Exchange
from penstock.gateway.head import Head
from penstock.gateway.trace import LEFT, Trace
from penstock.wire import restjson


class Timed(Exchange):
    """An exchange that wants to be woken again and again: `tick` is called when `StreamClient.deadline` has passed."""

    __slots__ = ()

    def tick(self, now: float) -> None:
        raise NotImplementedError


class StreamClient:
    """A `Client`, a stream's `Receiver`, and looked after by the door for itself."""

    keep_alive = True

    def __init__(self, door: Door, transport: asyncio.Transport, stream: Http2Stream, trace: Trace) -> None:
        self.door = door
        self.transport = transport
        self.trace = trace
        self.write_paused = False
        self.answer_by = self.deadline = inf
        self.exchange: Timed | None = None
        self._stream = stream
        self._received = 0
        self._begun = self._over = False
        stream.receiver = self
        door.arrived(self)

    # --- for the exchange

    def proceed(self) -> None:
        """HTTP/2's clients wait for the answer's head, if for anything."""

    def respond(self, status: int, headers: Headers) -> None:
        """The answer's head."""
        self._begun = True
        self._stream.headers([(":status", str(status)), *headers])

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def done(self) -> None:
        self._end()
        self._stream.finish()

    def refuse(self, head: Head, error: AwsError, request_id: str, marks: Iterable[tuple[str, str]] = ()) -> None:
        error = renamed(error)
        answer = restjson.render_error(error, request_id)
        self.trace.status, self.trace.error = error.status, error.code or str(error.status)
        self.trace.bytes_out = len(answer.body)
        extra = [*marks, ("date", http_date(int(self.door.clock()))), ("content-length", str(len(answer.body)))]
        self.respond(answer.status, [*answer.headers.items(), *extra])
        self.write(answer.body)
        self.done()

    def break_off(self) -> None:
        self._end()
        self._stream.reset()

    def close_early(self) -> None:
        self.break_off()

    def reset(self) -> None:
        self._end()
        self._stream.reset(ErrorCodes.CANCEL)

    def pause_body(self) -> None:
        self._stream.hold()

    def resume_body(self) -> None:
        self._stream.release()

    def _end(self, error: str = "") -> None:
        """Notes the end, once; `error` is what ended it where nothing else has been told."""
        if self._over:
            return
        self._over = True
        self.exchange = None
        self.answer_by = self.deadline = inf
        trace = self.trace
        broken = trace.status == 200 and bool(trace.error)
        trace.error = trace.error or error
        trace.bytes_in = self._received
        self.door.left(self)
        self.door.finished(trace, broken=broken)

    # --- for the stream

    def data(self, data: bytes) -> None:
        self._received += len(data)
        if self.exchange is not None:
            self.exchange.body(data)

    def ended(self) -> None:
        if self.exchange is not None:
            self.exchange.body_end()

    def gone(self) -> None:
        exchange = self.exchange
        self._end(LEFT)
        if exchange is not None:
            exchange.gone()

    def pause(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.resume()

    # --- for the door

    def expire(self, now: float) -> None:
        if self.exchange is None:
            return
        if self.answer_by <= now:
            self.answer_by = inf
            self.exchange.expired()
        else:
            self.deadline = inf
            self.exchange.tick(now)

    def relieve(self) -> None:
        """The stream goes on, however long it is."""

    def drain(self) -> None:
        """The stream goes on while it may; `shut` ends it."""

    def shut(self) -> None:
        if self.exchange is not None:
            self.exchange.shut()
