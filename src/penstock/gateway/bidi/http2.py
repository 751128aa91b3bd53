"""A client's connection in HTTP/2.

Owns frames, windows, the order in which streams send, what a client may have us do for nothing, and draining. It must never know what a
request asks for: `serve`, which it is given, answers each stream. RFC 9113.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    UnknownFrameReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from penstock.gateway.bidi import abuse
from penstock.gateway.bidi.request import Field
from penstock.gateway.bidi.stream import Headers, Http2Stream
from penstock.gateway.door import Door

log = logging.getLogger("penstock.gateway")

MAX_STREAMS = 100
MAX_FRAME = 16 * 1024
WINDOW = 256 * 1024
"""Bytes that a client may send on one stream before they are taken. The connection's window is that of all: no stream starves another."""
WRITE_HIGH = 64 * 1024
UNREAD = 1024 * 1024
"""Bytes that wait for a client which makes us answer and does not read: then it is no client."""
SLICE = 16 * 1024
"""Bytes parsed before the ledger is looked at."""
GOING_AWAY = bytes.fromhex("0000080700000000007fffffff00000000")
"""A GOAWAY frame that takes no stream back: those under way finish, new ones are answered that the server stops (RFC 9113 §6.8).
The library's own ends the connection."""

Serve = Callable[[asyncio.Transport, Http2Stream, list[Field], bool], None]
"""Answers a stream: the connection's transport, the stream, its header list, and whether no body follows."""

_INITIAL = {
    SettingCodes.HEADER_TABLE_SIZE: 4096,
    SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
    SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
}
_CHEAP: dict[type[Event], float] = {
    PingReceived: abuse.PING,
    PriorityUpdated: abuse.PRIORITY,
    RemoteSettingsChanged: abuse.SETTINGS,
    StreamReset: abuse.RESET,
    UnknownFrameReceived: abuse.UNKNOWN,
    WindowUpdated: abuse.WINDOW,
}


class Http2Connection(asyncio.Protocol):
    """One accepted connection. `deadline` is looked at by the door's sweep; its streams look after their own."""

    def __init__(self, door: Door, serve: Serve) -> None:
        self.door = door
        self.deadline = self.answer_by = inf
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anybody else sees this object
        self._serve = serve
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self._h2.local_settings = Settings(
            client=False,
            initial_values={**_INITIAL, SettingCodes.MAX_HEADER_LIST_SIZE: door.limits.header_bytes},
        )
        self._h2.decoder.max_header_list_size = door.limits.header_bytes
        self._ledger = abuse.Ledger(door.loop.time())
        self._lengths = abuse.Lengths(MAX_FRAME, door.limits.header_bytes)
        self._streams: dict[int, Http2Stream] = {}
        self._queue: deque[Http2Stream] = deque()
        self._paused = self._pumping = self._over = False

    # --- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.deadline = self.door.loop.time() + self.door.limits.header_timeout_s
        self.door.arrived(self)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(MAX_STREAMS * WINDOW - 65535)
        self._flush()
        if self.door.draining:
            self.relieve()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self.door.left(self)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        now = self.door.loop.time()
        try:
            for at in range(0, len(data), SLICE):
                piece = data[at : at + SLICE]
                if code := self._lengths.check(piece):
                    self._end(code)
                    return
                for event in self._h2.receive_data(piece):
                    self._take(event, now)
                if self._is_over():
                    return
        except ProtocolError as error:
            log.info("a client broke HTTP/2: %s", error)
            self._close()  # the library has said goodbye, and why
            return
        self._pump()

    def _is_over(self) -> bool:
        return self._over

    def _take(self, event: Event, now: float) -> None:
        if self._over:
            return
        cost = _CHEAP.get(type(event), 0.0)
        if isinstance(event, DataReceived):
            cost = 0.0 if event.data else abuse.EMPTY_DATA
        if cost and not self._ledger.spend(cost, now):
            log.info("a client sent too many frames that ask for work and carry nothing")
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.received_end()
        elif isinstance(event, StreamReset):
            self._forget(self._streams.get(event.stream_id))
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._wake()
        elif isinstance(event, ConnectionTerminated):
            self._end()  # whoever says goodbye leaves soon, and the library sends nothing after it

    # --- streams

    def _request(self, event: RequestReceived) -> None:
        stream = self._streams[event.stream_id] = Http2Stream(self, event.stream_id)
        self._schedule()
        try:
            self._serve(self.transport, stream, event.headers, event.stream_ended is not None)
        except Exception:
            stream.fail()

    def _data(self, event: DataReceived) -> None:
        stream, flow = self._streams.get(event.stream_id), event.flow_controlled_length
        if stream is not None:
            stream.received(event.data, flow)
        elif flow:
            self._h2.acknowledge_received_data(flow, event.stream_id)  # for the connection's window alone

    def _forget(self, stream: Http2Stream | None) -> None:
        if stream is None or self._streams.pop(stream.number, None) is None:
            return
        stream.lost()
        self._schedule()
        if not self._streams and self.door.draining:
            self._end()

    def _schedule(self) -> None:
        """An idle connection has its time; one with streams has that of those which only wait to be read."""
        if self._streams:
            self.deadline = min(stream.give_up for stream in self._streams.values())
        elif not self._over:
            self.deadline = self.door.loop.time() + self.door.limits.keepalive_timeout_s

    def outlast(self, stream: Http2Stream) -> None:
        if stream.open:
            stream.give_up = self.door.loop.time() + self.door.limits.keepalive_timeout_s
            self._schedule()

    def send_headers(self, stream: Http2Stream, headers: Headers, *, end: bool) -> None:
        if self._over:
            return
        try:
            self._h2.send_headers(stream.number, list(headers), end_stream=end)
        except ProtocolError:
            return  # the client has cancelled the stream, in bytes that are being taken right now
        if end:
            self._sent_end(stream)
        self._flush()

    def send_soon(self, stream: Http2Stream) -> None:
        if not stream.waiting:
            stream.waiting = True
            self._queue.append(stream)
        self._pump()

    def taken(self, stream: Http2Stream, size: int) -> None:
        if not self._over and size:
            with suppress(ProtocolError):  # cancelled, in bytes that are being taken right now
                self._h2.acknowledge_received_data(size, stream.number)
            self._flush()

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        if not self._over:
            with suppress(ProtocolError):  # the client may have been faster
                self._h2.reset_stream(stream.number, code)
            self._forget(stream)
            self._flush()

    def _sent_end(self, stream: Http2Stream) -> None:
        """Our side of a stream is closed; where the client still sends it is told to stop (RFC 9113 §8.1)."""
        if stream.remote_ended:
            self._forget(stream)
        else:
            self.reset(stream, ErrorCodes.NO_ERROR)

    # --- sending

    def _wake(self) -> None:
        """A window has grown: every stream that waited for it may try again."""
        for stream in self._streams.values():
            if (stream.pending or stream.finishing) and not stream.waiting:
                stream.waiting = True
                self._queue.append(stream)

    def _pump(self) -> None:
        """Sends what waits, a frame a stream in turn, as far as windows and the client's reading allow."""
        if self._pumping or self._over:
            return
        self._pumping = True
        try:
            while self._queue and not self._paused and not self._over:
                stream = self._queue.popleft()
                stream.waiting = False
                if stream.open:
                    with suppress(ProtocolError):  # cancelled, in bytes that are being taken right now
                        self._send_some(stream)
            self._flush()
        finally:
            self._pumping = False

    def _send_some(self, stream: Http2Stream) -> None:
        """One frame of a stream. One whose window is empty waits outside the queue for `_wake`."""
        window = self._h2.local_flow_control_window(stream.number)
        size = max(0, min(window, self._h2.max_outbound_frame_size, len(stream.pending)))
        if stream.pending and not size:
            return
        last = stream.finishing and size == len(stream.pending)
        whole = last and stream.broken is None
        if size or whole:
            self._h2.send_data(stream.number, bytes(stream.pending[:size]), end_stream=whole)
            self._ledger.earn(abuse.SENT_DATA)
            self._flush()
        if last:
            if stream.broken is None:
                self._sent_end(stream)
            else:
                self.reset(stream, stream.broken)
            return
        stream.sent(size)
        if stream.open and (stream.pending or stream.finishing) and not stream.waiting:
            stream.waiting = True
            self._queue.append(stream)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self.transport.write(data)
            if self.transport.get_write_buffer_size() > UNREAD:
                log.info("a client makes us answer and does not read")
                self._over = True
                self.transport.abort()

    def _end(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Says goodbye, and closes when all that was written is out."""
        if not self._over:
            with suppress(ProtocolError):  # the client may have been faster
                self._h2.close_connection(code)
            self._close()

    def _close(self) -> None:
        self._flush()
        self._over = True
        self.transport.close()
        self.deadline = self.door.loop.time() + self.door.limits.keepalive_timeout_s
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost()

    # --- for the door

    def expire(self, now: float) -> None:
        self.deadline = inf
        if self._over:
            self.transport.abort()
        elif not self._streams:
            self._end()
        else:
            for stream in [one for one in self._streams.values() if one.give_up <= now]:
                self.reset(stream, ErrorCodes.CANCEL)

    def relieve(self) -> None:
        """Another worker has taken our place: new streams belong on another connection; those that come nevertheless are answered."""
        if not self._over:
            self._flush()
            self.transport.write(GOING_AWAY)

    def drain(self) -> None:
        """The server is stopping: an idle connection closes now, a busy one when its streams have ended."""
        if not self._streams:
            self._end()
        elif not self._over:
            self._flush()
            self.transport.write(GOING_AWAY)

    def shut(self) -> None:
        """The drain time is over: each stream says so, then the connection ends."""
        for stream in list(self._streams.values()):
            if stream.receiver is not None:
                stream.receiver.shut()
        self._end()
