"""Kept-alive HTTP/1.1 connections to replicas and to the control process.

Owns connecting, reuse, reading a response piece by piece, and whether a failed request may be sent again. It must never know what a
response means: a `Sink` is told of its head, its parts and its end, and `Target`s are handed in.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum
from fcntl import ioctl
from termios import FIONREAD
from typing import Protocol, cast

import httptools

from penstock._speed import COMPILED
from penstock.gateway.head import joined
from penstock.gateway.quick import read_answer
from penstock.gateway.tokens import Tokens

if COMPILED:
    from penstock._speed import native

CONNECT_TIMEOUT_S = 5.0
"""A container must accept within 250 ms (AWS: "Custom Inference Code with Hosting Services"); this leaves room for a busy host."""
IDLE_S = 4.0
"""How long a connection waits for its next request: less than the 5 s of the commonest servers, so that they rarely close one in use."""
SHORTEST_S = 0.01
"""A server that closes sooner gets a connection for each request."""
MAX_IDLE = 256
MAX_HEAD = 64 * 1024
"""Bytes of an answer's head, or of anything else in it that is no body: trailers, chunk extensions."""
MAX_PART = 1024 * 1024
"""A chunk longer than this is passed on in pieces, so that one stream holds no more than this."""

_NOTHING = b"\0\0\0\0"
"""FIONREAD's answer where no byte waits to be read."""
_TCP_INFO_UNACKED = slice(24, 28)
_TCP_INFO_STATE = 0
_TCP_CLOSE = 7


class Failure(Enum):
    """How a request failed, as far as its sender must know."""

    REFUSED = "no connection came about"
    UNTOUCHED = "a reused connection was gone before the other side can have read the request: send it again"
    SILENT = "the connection ended before any answer"
    BROKEN = "the connection ended, or made no sense, inside an answer"


class Sink(Protocol):
    """Who asked. After `upstream_end` or `upstream_failed` nothing more is told."""

    def upstream_ready(self, upstream: Upstream) -> None: ...
    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None: ...
    def upstream_parts(self, parts: list[bytes]) -> None: ...
    def upstream_read(self, data: bytes) -> bool:
        """A read that began between two chunks. True if it was exactly one (`chunk_of`) and has been taken for a part."""
        ...

    def upstream_end(self) -> None: ...
    def upstream_failed(self, failure: Failure) -> None: ...
    def upstream_continue(self) -> None: ...
    def upstream_paused(self) -> None: ...
    def upstream_resumed(self) -> None: ...


class Target:
    """Somewhere that requests can be sent: `address` is (host, port), or the path of a unix socket."""

    __slots__ = ("address", "epoch", "gone", "host", "idle", "keep_s", "models", "name", "outstanding")

    def __init__(self, address: tuple[str, int] | str, name: str = "", epoch: int = 0) -> None:
        self.address = address
        self.host = b"localhost" if isinstance(address, str) else _authority(*address)
        self.name = name
        self.epoch = epoch
        self.outstanding = 0
        self.idle: list[Upstream] = []
        self.gone = False
        self.keep_s = IDLE_S
        self.models: frozenset[str] = frozenset()
        """Of a multi-model container: those that it is thought to have loaded (`modelloads.py`)."""

    def closed_after(self, idle_s: float) -> None:
        """The other side closed a connection that had idled so long: from now on ours end well before that, and meet it no more."""
        self.keep_s = min(self.keep_s, idle_s / 2)

    def retire(self) -> None:
        """No further request goes here; those in flight go on."""
        self.gone = True
        for upstream in list(self.idle):
            upstream.abort()

    def sweep(self, now: float) -> None:
        """Closes what has idled too long."""
        for upstream in [one for one in self.idle if one.idle_until <= now]:
            upstream.abort()


def _authority(host: str, port: int) -> bytes:
    return f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()


class Upstream(Tokens, asyncio.Protocol):
    """One connection, serving one request at a time."""

    __slots__ = (
        "_body_parts",
        "_ended",
        "_fd",
        "_feed",
        "_framed",
        "_head_bytes",
        "_head_ready",
        "_headless",
        "_inside",
        "_interim",
        "_keep_alive",
        "_loop",
        "_parser",
        "_parts",
        "_pending",
        "_raw",
        "answering",
        "begins_with_parts",
        "idle_since",
        "idle_until",
        "keep_s",
        "reused",
        "sending",
        "sink",
        "status",
        "target",
        "transport",
        "whole_chunks",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target) -> None:
        self._loop = loop
        self.target = target
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self.sink: Sink | None = None
        self._fd = -1
        self.reused = self.sending = False
        self.idle_since = self.idle_until = 0.0
        self.keep_s = IDLE_S
        self._new_parser()
        self._reset()

    def _new_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data

    def _reset(self) -> None:
        self._parts: list[bytes] = []
        self._pending = b""
        self._raw: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._head_ready = self._ended = self._interim = self._framed = self._keep_alive = False
        self.answering = False
        self.status = 0
        self.whole_chunks = False
        self._headless = False
        self._inside = False
        self.at_chunk = False
        self.begins_with_parts = False
        """In `upstream_head`: whether parts came together with the head."""

    def begin(self, sink: Sink, *, whole_chunks: bool, bodyless: bool = False) -> None:
        """Takes the connection for one request. `whole_chunks`: a part is exactly one HTTP chunk; `bodyless`: the method is HEAD.

        While the sink has `sending` set, an early answer ends the connection: the request's rest can't be told from another.
        """
        self.sink = sink
        self.sending = False
        self.whole_chunks = whole_chunks
        self._headless = bodyless

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def usable(self) -> bool:
        """Whether it is open, and the other side has not spoken unasked: that would pass for the next request's answer."""
        if self.transport.is_closing():
            return False
        if self._fd < 0:
            self._fd = self.transport.get_extra_info("socket").fileno()
        return native.silent(self._fd) if COMPILED else ioctl(self._fd, FIONREAD, _NOTHING) == _NOTHING

    def abort(self) -> None:
        """Closes at once and tells nobody: this is how a container learns that it may stop."""
        self.sink = None
        self.close_tokens()
        self._forget()
        self.transport.abort()

    def pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.sink:
            self.sink.upstream_paused()

    def resume_writing(self) -> None:
        if self.sink:
            self.sink.upstream_resumed()

    def eof_received(self) -> None:
        """The other side sends no more: the end of an answer without a length, else a failure, told while the socket can be asked."""
        if self.sink is None:
            self._closed_idle()
            return
        if self.answering and not self._framed:
            self._flush()
            if self.sink is not None:
                self._finish(reusable=False)
        else:
            self._fail(untouched=self._unread())

    def connection_lost(self, error: Exception | None) -> None:
        if self.sink is None:
            self._closed_idle()
        else:
            # A reset before any byte of an answer means that our request was never read: what was read is closed without one.
            self._fail(untouched=isinstance(error, ConnectionResetError | BrokenPipeError))

    def _unread(self) -> bool:
        """Whether bytes of our request are still unacknowledged, or not even sent: then the close came first."""
        if self.transport.get_write_buffer_size():
            return True
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.family == socket.AF_UNIX:
            return False
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        # A socket that is closed already: our request met the other side's closed one, which answered with a reset behind its FIN.
        return info[_TCP_INFO_STATE] == _TCP_CLOSE or int.from_bytes(info[_TCP_INFO_UNACKED], "little") > 0

    def _fail(self, *, untouched: bool) -> None:
        sink, self.sink = self.sink, None
        self.close_tokens()
        self._forget()
        self.transport.abort()
        if sink is not None:
            if self.answering or self._head_bytes:
                sink.upstream_failed(Failure.BROKEN)
            else:
                sink.upstream_failed(Failure.UNTOUCHED if self.reused and untouched else Failure.SILENT)

    def _closed_idle(self) -> None:
        if self in self.target.idle:
            self.target.idle.remove(self)
            self.target.closed_after(self._loop.time() - self.idle_since)

    def _forget(self) -> None:
        if self in self.target.idle:
            self.target.idle.remove(self)

    # --- reading an answer

    def received(self, data: bytes) -> None:
        """A read that was no part of an open stream."""
        sink = self.sink
        if sink is None:
            self.abort()  # an answer to nothing: nobody may take it for the next one's
            return
        if self.at_chunk:
            if sink.upstream_read(data):  # the token path: one read, one chunk, nothing for the parser to learn
                return
            self.at_chunk = False
        if (
            not self.answering
            and not self._head_bytes
            and self.whole_chunks
            and (read := read_answer(data)) is not None
        ):
            self._tell_whole(sink, *read)
            return
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._stumble()
            return
        if self._parts and self.answering and not (self._pending or self._ended):
            parts, self._parts = self._parts, []  # whole chunks inside an answer
            self.at_chunk = self.whole_chunks and not self._inside and data.endswith(b"\r\n")
            sink.upstream_parts(parts)
        else:
            self._settle()

    def _tell_whole(self, sink: Sink, status: int, headers: dict[str, str], body: bytes) -> None:
        """Of an answer that came in one read, and that the parser has not seen."""
        self.answering = True
        self.status = status
        sink.upstream_head(status, headers, [])
        if body and self.sink is sink:
            sink.upstream_parts([body])
        if self.sink is sink:
            self.answering = False
            self._finish(reusable=True, fresh=True)

    def _settle(self) -> None:
        """What a read may bring beside whole chunks: the head, pieces of chunks, the end."""
        if self._head_bytes > MAX_HEAD and not self._head_ready and not self._ended:
            self._fail(untouched=False)
            return
        self._flush()
        if self._ended and self.sink is not None:
            self._finish(reusable=self._keep_alive and self._framed)

    def _stumble(self) -> None:
        """What came is no HTTP. If that followed a whole answer, the answer stands and the connection goes."""
        self._flush()
        if not self._ended:
            self._fail(untouched=False)
        elif self.sink is not None:
            self._finish(reusable=False)

    def _flush(self) -> None:
        """Tells the sink what has been read so far, in order."""
        sink = self.sink
        if self._head_ready and sink is not None:
            self._head_ready = False
            self.answering = True
            headers = self._read_headers()
            if headers.get("transfer-encoding", "chunked").lower() != "chunked":
                self._fail(untouched=False)  # coded in a way that nobody asked for, and nobody here could decode
                return
            raw, self._raw = self._raw, []
            self.begins_with_parts = bool(self._parts)
            sink.upstream_head(self.status, headers, raw)
        if self._pending and not self.whole_chunks:
            self._parts.append(self._pending)
            self._pending = b""
        if self._parts and self.sink is sink and sink is not None:
            parts, self._parts = self._parts, []
            sink.upstream_parts(parts)

    def _read_headers(self) -> dict[str, str]:
        headers = joined(self._raw)
        chunked = "transfer-encoding" in headers
        self._framed = chunked or "content-length" in headers or self._headless or self.status in (204, 304)
        if not chunked:
            self.whole_chunks = False  # no chunks to keep apart: one part a read
        if limit := headers.get("keep-alive"):
            self.keep_s = _keep_alive_seconds(limit)
        return headers

    def _finish(self, *, reusable: bool, fresh: bool = False) -> None:
        """The answer is whole. `fresh`: only `status` and what `begin` sets are other than before the request."""
        sink, self.sink = self.sink, None
        self.close_tokens()
        self.keep_s = min(self.keep_s, self.target.keep_s)
        keeps = self.keep_s > SHORTEST_S and not self.sending and not self.target.gone
        if reusable and keeps and not self.transport.is_closing():
            self._release(fresh)
        else:
            self.transport.abort()
        if sink is not None:
            sink.upstream_end()

    def _release(self, fresh: bool) -> None:
        idle = self.target.idle
        if len(idle) >= MAX_IDLE:
            self.transport.abort()
            return
        if self._headless:
            self._new_parser()  # the old one still waits for the body that HEAD's answer announced
        if not fresh:
            self._reset()
        self.reused = True
        self.idle_since = self._loop.time()
        self.idle_until = self.idle_since + self.keep_s
        idle.append(self)

    # --- the parser's callbacks

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not (self.answering or self._head_ready):  # trailers are no headers (RFC 9110 §6.5.1): they are dropped
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._interim = 100 <= self.status < 200
        if self._interim:
            self._raw.clear()
            if self.status == 100 and self.sink is not None:
                self.sink.upstream_continue()
            return
        self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it with the message's end
        self._head_ready = True
        if self._headless:
            self._ended = True

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if not self._pending:  # one read is smaller than MAX_PART
            self._pending = body
            return
        self._pending += body
        if len(self._pending) >= MAX_PART:
            self._parts.append(self._pending)
            self._pending = b""

    def on_chunk_header(self) -> None:
        self._inside = True

    def on_chunk_complete(self) -> None:
        self._inside = False
        if self._pending:
            self._parts.append(self._pending)
            self._pending = b""

    def on_message_complete(self) -> None:
        self._ended = not self._interim


def _keep_alive_seconds(header: str) -> float:
    """Of `Keep-Alive: timeout=5, max=100`: a second less than the server says, never more than ours."""
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        if name.lower() == "timeout" and value.isdigit():
            return min(IDLE_S, float(value) - 1)
    return IDLE_S


class Dial:
    """A connection on its way to one sink; `cancel` when the sink has lost interest."""

    __slots__ = ("_loop", "_sink", "_target", "_task", "_upstream")

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target, sink: Sink) -> None:
        self._loop, self._target, self._sink = loop, target, sink
        self._task = loop.create_task(self._connect())

    def cancel(self) -> None:
        self._task.cancel()

    async def _connect(self) -> None:
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                upstream = await self._open(lambda: Upstream(self._loop, target))
        except OSError:  # TimeoutError is one
            self._sink.upstream_failed(Failure.REFUSED)
            return
        if upstream.usable():
            self._sink.upstream_ready(upstream)
        else:  # it closed, or spoke before it was asked: no answer of this connection could be told from that
            upstream.abort()
            self._sink.upstream_failed(Failure.REFUSED)

    async def _open(self, factory: Callable[[], Upstream]) -> Upstream:
        address = self._target.address
        if isinstance(address, str):
            return (await self._loop.create_unix_connection(factory, address))[1]
        return (await self._loop.create_connection(factory, *address))[1]


def reach(loop: asyncio.AbstractEventLoop, target: Target, sink: Sink, *, fresh: bool = False) -> Dial | None:
    """Gives `sink` a connection to `target`: an idle one at once, or a new one later, in which case the `Dial` can be cancelled.

    `fresh` asks for a new one. Ends in `upstream_ready` or in `upstream_failed(Failure.REFUSED)`.
    """
    while target.idle and not fresh:
        upstream = target.idle.pop()
        if upstream.idle_until <= loop.time():
            upstream.abort()
        elif upstream.usable():
            sink.upstream_ready(upstream)
            return None
        else:
            upstream.abort()
    return Dial(loop, target, sink)
