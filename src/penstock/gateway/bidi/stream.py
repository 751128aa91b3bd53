"""One stream of an HTTP/2 connection, as whoever answers it sees it.

Owns what waits to be sent, and which of the received bytes have been taken: a window is given back only for those. It must never know a
request or its answer; the connection carries the frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from h2.errors import ErrorCodes

log = logging.getLogger("penstock.gateway")

HIGH = 64 * 1024
"""Bytes that may wait for a slow client before whoever makes them is told to pause."""
LOW = 16 * 1024

Headers = Iterable[tuple[str, str]]


class Receiver(Protocol):
    """Who answers a stream. After `gone`, or once it has finished or reset the stream itself, nothing more is told."""

    def data(self, data: bytes) -> None: ...
    def ended(self) -> None:
        """The client sends no more."""

    def gone(self) -> None:
        """The client has left, or cancelled the stream."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def shut(self) -> None:
        """The drain time is over: end now, so that the client knows it was cut short. May be called twice."""


class Carrier(Protocol):
    """The connection, as far as a stream needs it."""

    def send_headers(self, stream: Http2Stream, headers: Headers, *, end: bool) -> None: ...
    def send_soon(self, stream: Http2Stream) -> None:
        """Takes from `stream.pending` as windows allow."""

    def taken(self, stream: Http2Stream, size: int) -> None:
        """The client may send so many bytes more."""

    def outlast(self, stream: Http2Stream) -> None:
        """Waits for the client to take the last of a stream, for a while."""

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None: ...


class Http2Stream:
    """Both directions of one stream."""

    __slots__ = (
        "_carrier",
        "_held",
        "_holding",
        "_paused",
        "broken",
        "finishing",
        "give_up",
        "number",
        "open",
        "pending",
        "receiver",
        "remote_ended",
        "waiting",
    )

    def __init__(self, carrier: Carrier, number: int) -> None:
        self._carrier = carrier
        self.number = number
        self.receiver: Receiver | None = None
        self.pending = bytearray()
        self.open = True
        self.remote_ended = False
        self.finishing = False
        """Whether the end follows what is pending."""
        self.broken: ErrorCodes | None = None
        self.give_up = inf
        """When a client that gives no room for the end of its answer has had time enough (loop time, seconds)."""
        self.waiting = False
        """Whether the connection has it in its queue of streams with something to send."""
        self._paused = False
        self._holding = False
        self._held = 0

    # --- for the receiver

    def headers(self, headers: Headers, *, end: bool = False) -> None:
        if self.open:
            self._carrier.send_headers(self, headers, end=end)

    def write(self, data: bytes) -> None:
        if not self.open or not data:
            return
        self.pending += data
        self._carrier.send_soon(self)
        if self.open and not self._paused and len(self.pending) > HIGH:
            self._paused = True
            self._tell(lambda receiver: receiver.pause())

    def finish(self, broken: ErrorCodes | None = None) -> None:
        """The answer is whole, or with `broken` cut off behind what is pending. What the client still sends is no longer wanted."""
        if self.open and not self.finishing:
            self.finishing = True
            self.broken = broken
            self.receiver = None
            self._carrier.send_soon(self)
            self._carrier.outlast(self)

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Ends the stream so that no client takes what it got for a whole answer."""
        if self.open:
            self.receiver = None
            self._carrier.reset(self, code)

    def hold(self) -> None:
        """Lets the client send no more than its window allows until `release`."""
        self._holding = True

    def release(self) -> None:
        self._holding = False
        held, self._held = self._held, 0
        if held and self.open:
            self._carrier.taken(self, held)

    # --- for the connection

    def received(self, data: bytes, flow: int) -> None:
        """`flow` is what counts against the window: the data with its padding."""
        self._tell(lambda receiver: receiver.data(data))
        if self._holding and self.receiver is not None:
            self._held += flow
        else:
            self._carrier.taken(self, flow)

    def received_end(self) -> None:
        self.remote_ended = True
        self._tell(lambda receiver: receiver.ended())

    def sent(self, size: int) -> None:
        del self.pending[:size]
        if self._paused and len(self.pending) <= LOW:
            self._paused = False
            self._tell(lambda receiver: receiver.resume())

    def lost(self) -> None:
        """The stream is no more."""
        self.open = False
        self.pending.clear()
        held, self._held = self._held, 0
        self._carrier.taken(self, held)  # for the connection's window, which all streams share
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.gone()

    def _tell(self, what: Callable[[Receiver], None]) -> None:
        receiver = self.receiver
        if receiver is None:
            return
        try:
            what(receiver)
        except Exception:
            self.fail()

    def fail(self) -> None:
        """An error of ours is being handled: it ends this stream and leaves the others alone."""
        log.exception("a stream met an error of ours")
        receiver = self.receiver
        self.reset()
        if receiver is not None:
            receiver.gone()
