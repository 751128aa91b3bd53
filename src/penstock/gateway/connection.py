"""A client's connection: HTTP/1.1 from bytes to exchanges and back.

Owns parsing, pipelining in order, keep-alive, back-pressure towards the client and the client's deadlines. It must never know what a
request asks for: the opener that it is given makes an `Exchange` of each head.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import cast

import httptools

from penstock.errors import AwsError
from penstock.gateway import answers, failures
from penstock.gateway.door import Door
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import BadRequest, Head, read_head, without_upgrade
from penstock.gateway.hostile.reset import PATIENCE_S, Reset
from penstock.gateway.incoming import Incoming
from penstock.gateway.quick import read_request
from penstock.gateway.trace import LEFT, Trace, instant

log = logging.getLogger("penstock.gateway")

WRITE_HIGH = 64 * 1024
"""Bytes that may wait for a slow client before its container is paused."""
LINGER_S = 2.0
SLOWEST_BODY = 500.0
"""Bytes a second that a request's body must bring on average, as Apache's mod_reqtimeout has it: who trickles one is not waited for."""
MAX_WAITING = 64 * 1024
"""Bytes of pipelined requests that are read ahead of their turn."""


Opener = Callable[[Client, Head, str], Exchange]
"""What makes an exchange of a client, a head and a request id. Raises AwsError where the head alone is reason to refuse."""


class ClientConnection(asyncio.Protocol):
    """One accepted connection. `answer_by` and `deadline` are looked at by the door's sweep (loop time, seconds)."""

    __slots__ = (
        "_begun",
        "_body_from",
        "_closing",
        "_deaf",
        "_expects",
        "_head_size",
        "_keep_alive",
        "_left",
        "_longest_head",
        "_offered",
        "_parser",
        "_queue",
        "_raw",
        "_read_paused",
        "_unproductive",
        "_url",
        "_waiting",
        "answer_by",
        "deadline",
        "door",
        "opener",
        "trace",
        "transport",
        "write_paused",
    )

    def __init__(self, door: Door, opener: Opener) -> None:
        self.door = door
        self.opener = opener
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self.trace: Trace = None  # type: ignore[assignment]  # set with each request, before anybody is asked to answer it
        self.answer_by = inf
        self.deadline = inf
        self.write_paused = False
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Incoming] = deque()
        self._raw: list[tuple[bytes, bytes]] = []
        self._url = self._offered = b""
        self._head_size = self._unproductive = self._waiting = 0
        self._left = 0
        """Bytes still to come of a body whose head the parser has not seen."""
        self._body_from = 0.0
        self._longest_head = door.limits.header_bytes
        self._keep_alive = True
        self._closing = self._deaf = self._expects = self._read_paused = self._begun = False

    # --- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.deadline = self.door.loop.time() + self.door.limits.header_timeout_s
        self.door.arrived(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.door.left(self)
        self._leave()

    def eof_received(self) -> None:
        """A client that closes its side has left: nobody half-closes and goes on reading but by accident."""
        if any(incoming.exchange for incoming in self._queue):
            self._leave()
            self.transport.abort()

    def _leave(self) -> None:
        queue, self._queue = self._queue, deque()
        for incoming in queue:
            exchange, incoming.exchange = incoming.exchange, None
            if exchange is not None:
                exchange.gone()  # before it is noted: that counts the last parts
            self._over(incoming, LEFT)

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._queue and (exchange := self._queue[0].exchange):
            exchange.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._queue and (exchange := self._queue[0].exchange):
            exchange.resume()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._left or not (self._queue or self._unproductive or self._closing):
            try:
                if self._read_quickly(data):
                    return
            except Exception as error:
                self._fail_internally(error)
                return
        if not self._unproductive and not self._queue:
            self.deadline = self.door.loop.time() + self.door.limits.header_timeout_s
        self._unproductive += len(data)
        upgraded_at = -1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded_at = upgrade.args[0]
        except httptools.HttpParserCallbackError as error:
            self._refuse_cause(error)
        except httptools.HttpParserError as error:
            self._refuse(BadRequest(400, f"This is not HTTP/1.1: {error}."))
        if upgraded_at >= 0:  # not in the handler: an error's context tells us what it is
            self._upgraded(data[upgraded_at:])
        if self._unproductive > self.door.limits.header_bytes and not self._closing:
            self._refuse(BadRequest(431, "The request's head, or what stands between pieces of its body, is too long."))

    def _read_quickly(self, data: bytes) -> bool:
        """Reads a usual request, or more of its body, past the parser. False where it is the parser's: it stands between two requests."""
        if self._left:
            body = data[: self._left]
            self._left -= len(body)
            self.on_body(body)
            if not self._left:
                self.on_message_complete()
                if len(data) > len(body):
                    self.data_received(data[len(body) :])
            return True
        read = read_request(data, self._longest_head)
        if read is None:
            return False
        head, at, length = read
        left = length - (len(data) - at)
        if left < 0:
            return False  # the next request is there already
        self._left = left
        incoming = Incoming(head)
        if length > left:
            incoming.pieces.append(data[at:])
            incoming.received = length - left
        incoming.ended = not left
        self._queue.append(incoming)
        self._start(incoming)
        return True

    def _upgraded(self, rest: bytes) -> None:
        """The client offered another protocol; we go on in this one (RFC 9110 §7.8), by reading the head again without the offer."""
        self._parser = httptools.HttpRequestParser(self)
        head, self._offered = self._offered, b""
        self.data_received(head + rest)

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        if self._closing:
            raise BadRequest(400, "Nothing follows a request that closes the connection.")
        self._raw = []
        self._url = b""
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._raw.append((name, value))
        self._head_size += len(name) + len(value) + 4
        if self._head_size > self._longest_head:
            raise BadRequest(431, "The request's head is too long.")

    def on_headers_complete(self) -> None:
        parser = self._parser
        if parser.get_method() == b"CONNECT":
            raise BadRequest(405, "This port is no proxy.")
        if parser.should_upgrade():
            self._offered = without_upgrade(parser.get_method(), self._url, parser.get_http_version(), self._raw)
            return
        keep_alive = parser.should_keep_alive()
        head = read_head(parser.get_method().decode(), self._url, self._raw, parser.get_http_version(), keep_alive)
        self._unproductive = 0
        self._head_size = 0
        self._raw = []
        incoming = Incoming(head)
        self._queue.append(incoming)
        if len(self._queue) == 1:
            self._start(incoming)

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        incoming = self._queue[-1] if self._queue else None
        if incoming is None or incoming.answered:
            return
        incoming.received += len(data)
        if incoming.exchange is not None:
            due = self._body_from + incoming.received / SLOWEST_BODY
            self.deadline = min(self.door.loop.time(), due) + self.door.limits.header_timeout_s
            self._expects = False
            incoming.exchange.body(data)
        else:
            incoming.pieces.append(data)
            self._waiting += len(data)
            self._wait_if_too_much()

    def on_message_complete(self) -> None:
        self._unproductive = 0
        if self._raw:
            self._raw = []  # trailers are read and dropped
        if not self._queue or self._offered:
            return
        incoming = self._queue[-1]
        incoming.ended = True
        if incoming.exchange is not None:
            self.deadline = inf
            incoming.exchange.body_end()
        elif incoming.answered:
            self._next()
        else:
            self._waiting += 1024  # a request without a body takes room too
            self._wait_if_too_much()

    def _wait_if_too_much(self) -> None:
        if self._waiting > MAX_WAITING:
            self.pause_body()

    # --- requests in turn

    def _start(self, incoming: Incoming) -> None:
        head = incoming.head
        self._begun = False
        self._keep_alive = head.keep_alive and head.http11
        self._expects = head.expects and not incoming.pieces and not incoming.ended
        self._body_from = self.door.loop.time()
        self.deadline = self._body_from + self.door.limits.header_timeout_s
        request_id = self.door.request_id()
        self.trace = incoming.trace = Trace(request_id, f"{head.method} {head.path}", instant())
        try:
            exchange = incoming.exchange = self.opener(self, head, request_id)
            exchange.start()
        except AwsError as error:
            self.refuse(head, error, request_id)
            return
        pieces, incoming.pieces = incoming.pieces, []
        for piece in pieces:
            if not incoming.answered:
                exchange.body(piece)
        if incoming.answered:
            return
        if incoming.ended:
            self.deadline = inf
            exchange.body_end()

    def _next(self) -> None:
        """The first request is answered and its body is read: on to the next, or to waiting for one."""
        self._queue.popleft()
        if self._closing or not self._keep_alive or self.door.stopping:
            self._close()
        elif self._queue:
            self._waiting = 0
            self.resume_body()
            self.door.loop.call_soon(self._start_waiting)  # not from here: a long pipeline would be a deep recursion
        else:
            self._unproductive = 0
            self.deadline = self.door.loop.time() + self.door.limits.keepalive_timeout_s

    def _start_waiting(self) -> None:
        if self._queue and self._queue[0].exchange is None and not self._queue[0].answered:
            self._start(self._queue[0])

    def _close(self) -> None:
        """Closes when all that was written is out."""
        self._closing = True
        self._leave()
        self.deadline = self.door.loop.time() + self.door.limits.keepalive_timeout_s
        self.transport.close()

    # --- for exchanges

    @property
    def keep_alive(self) -> bool:
        """Whether the connection goes on after the present answer: its head must say so."""
        if self.door.draining and len(self._queue) < 2:  # what is in the pipeline already is answered here
            self._keep_alive = False
        return self._keep_alive and not self._closing and not self.door.stopping

    def proceed(self) -> None:
        """Tells a client that waits for it to send the body."""
        if self._expects:
            self._expects = False
            self.transport.write(answers.CONTINUE)

    def write(self, data: bytes) -> None:
        self._begun = True
        self.transport.write(data)

    def done(self) -> None:
        """Ends the present answer. What is left of the request's body is read and dropped, for a while."""
        incoming = self._queue[0]
        incoming.exchange = None
        incoming.answered = True
        self._over(incoming)
        self.answer_by = inf
        if incoming.ended:
            self._next()
        elif self._expects:
            self._close()  # the body may or may not come: no next request could be told from it
        else:
            self.deadline = self.door.loop.time() + self.door.limits.header_timeout_s
            self.resume_body()

    def refuse(self, head: Head, error: AwsError, request_id: str, marks: Iterable[tuple[str, str]] = ()) -> None:
        """Answers the present request with an error; `marks` are further headers."""
        if self._expects:
            self._keep_alive = False
        answer = answers.error_answer(head, error, request_id, marks, keep_alive=self.keep_alive)
        trace = self.trace
        trace.status, trace.error = error.status, error.code or str(error.status)
        trace.bytes_out = len(answer) - answer.index(b"\r\n\r\n") - 4
        self.write(answer)
        self.done()

    def _over(self, incoming: Incoming, error: str = "") -> None:
        """Notes the end of a request that was being served; `error` is what ended it where nothing else has been told."""
        trace, incoming.trace = incoming.trace, None
        if trace is None:
            return
        broken = trace.status == 200 and bool(trace.error)
        trace.error = trace.error or error
        trace.bytes_in = incoming.received
        self.door.finished(trace, broken=broken)

    def break_off(self) -> None:
        """Ends the connection so that no client can take what it got for a whole answer."""
        self._closing = True
        self._leave()
        self.transport.abort()

    def close_early(self) -> None:
        """Ends the connection in order in the middle of an answer, once all that was written is out."""
        self._deaf = True
        self._close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset, once all that was written has arrived."""
        self._closing = self._deaf = True
        self._leave()
        self.deadline = self.door.loop.time() + PATIENCE_S + LINGER_S
        Reset(self.door.loop, self.transport)

    def pause_body(self) -> None:
        """Reads no more from the client until `resume_body`."""
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.deadline = inf
            self.transport.pause_reading()

    def resume_body(self) -> None:
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()
            if self._queue and not self._queue[-1].ended:
                self._body_from = self.door.loop.time()
                self.deadline = self._body_from + self.door.limits.header_timeout_s

    # --- refusals of what is not HTTP, and deadlines

    def _refuse_cause(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, BadRequest):
            self._refuse(cause)
            return
        self._fail_internally(cause)

    def _fail_internally(self, cause: BaseException | None) -> None:
        """A fault of ours: told if nothing has been, otherwise the connection breaks so that it shows."""
        trace = self._queue[0].trace if self._queue else None
        request_id = trace.request_id if trace else self.door.request_id()
        log.error("request %s met an error of ours", request_id, exc_info=cause)
        if self._begun or len(self._queue) != 1:
            self.break_off()
            return
        head, exchange = self._queue[0].head, self._queue[0].exchange
        self._closing = self._deaf = True
        if exchange is not None:
            exchange.gone()
            self._queue[0].exchange = None
        if trace:
            trace.status, trace.error = 500, "InternalFailure"
            self._over(self._queue[0])
        self.transport.write(answers.error_answer(head, failures.internal(), request_id, keep_alive=False))
        self._linger()

    def _refuse(self, error: BadRequest) -> None:
        """Answers, unless an answer has begun, and closes: after this no byte can be trusted to start a request."""
        self._closing = self._deaf = True
        if self._queue and self._queue[-1].ended:
            return  # garbage behind whole requests: those are answered first, then the connection closes
        if len(self._queue) > 1 or (self._begun and self._queue and not self._queue[0].answered):
            self.break_off()
            return
        if not (self._queue and self._queue[0].answered):
            self.transport.write(answers.plain_answer(error.status, str(error), self._note_refusal(error)))
        self._leave()
        self._linger()

    def _note_refusal(self, error: BadRequest) -> str:
        """Notes the answer to what is no request, or not the whole of one; the answer's request id."""
        incoming = self._queue[0] if self._queue else None
        trace = (incoming.trace if incoming else None) or Trace(self.door.request_id(), "", instant())
        trace.status, trace.error, trace.bytes_out = error.status, "BadRequest", len(str(error)) + 1
        if incoming is not None and incoming.trace is not None:
            self._over(incoming)
        else:
            self.door.finished(trace)
        return trace.request_id

    def _linger(self) -> None:
        """Closes our side and reads the rest of theirs for a moment: closing over unread bytes would destroy the answer on its way."""
        self.deadline = self.door.loop.time() + LINGER_S
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def expire(self, now: float) -> None:
        """A deadline has passed: the sweep calls this."""
        if self.answer_by <= now:
            self.answer_by = inf
            if self._queue and (exchange := self._queue[0].exchange):
                exchange.expired()
            return
        self.deadline = inf
        incoming = self._queue[0] if self._queue else None
        if self._closing or (incoming is not None and incoming.answered):
            self.break_off()
        elif incoming is not None and incoming.exchange is not None:
            self._refuse(BadRequest(408, "The request's body stopped coming."))
        elif self._unproductive:
            self._refuse(BadRequest(408, "The request's head did not come in time."))
        else:
            self._close()

    def relieve(self) -> None:
        """Another worker has taken our place: the next answer says so, if one comes."""

    def drain(self) -> None:
        """The server is stopping: an idle connection closes now, a busy one after its answer."""
        if not self._queue:
            self._close()

    def shut(self) -> None:
        """The drain time is over."""
        if self._queue and (exchange := self._queue[0].exchange):
            exchange.shut()
        else:
            self.break_off()
