"""What a client may have us do for nothing.

Owns one connection's ledger of cheap frames: pings, settings, cancelled streams, empty data. Each costs the sender almost nothing and us
something, so a connection may send only so many of them at once and in the long run. Owns too the bounds that the HTTP/2 library looks at
only when a frame or a header block is whole. It must never do I/O.
RFC 9113 §10.5; CVE-2019-9512, -9514, -9515, -9518, CVE-2023-44487 and the CONTINUATION flood of 2024 are what it is against.
"""

from __future__ import annotations

from h2.errors import ErrorCodes

BURST = 1000.0
"""Units that a new connection has, and the most that it can save up."""
REFILL = 100.0
"""Units that come back a second: twenty streams cancelled, or a hundred pings."""

PING = PRIORITY = EMPTY_DATA = UNKNOWN = WINDOW = 1.0
SETTINGS = RESET = 5.0
SENT_DATA = 2.0
"""Earned: each frame of data that we send may be answered by the window updates that it needs, for the stream and for the connection."""


PREFACE_BYTES = 24
_HEAD = 9
_HEADERS, _CONTINUATION = 1, 9


class Lengths:
    """Watches the lengths of frames and of header blocks as they are announced, whatever the slicing."""

    __slots__ = ("_block", "_head", "_longest_block", "_longest_frame", "_skip")

    def __init__(self, longest_frame: int, longest_block: int) -> None:
        self._longest_frame, self._longest_block = longest_frame, longest_block
        self._skip = PREFACE_BYTES
        self._head = b""
        self._block = 0

    def check(self, data: bytes) -> ErrorCodes | None:
        """What to end the connection with, None where all is well."""
        at, self._skip = self._skip, 0
        while at < len(data):
            piece = data[at : at + _HEAD - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == _HEAD:
                length, kind, self._head = int.from_bytes(self._head[:3]), self._head[3], b""
                if length > self._longest_frame:
                    return ErrorCodes.FRAME_SIZE_ERROR
                begun = self._block if kind == _CONTINUATION else 0
                self._block = begun + length if kind in (_HEADERS, _CONTINUATION) else 0
                if self._block > self._longest_block:
                    return ErrorCodes.ENHANCE_YOUR_CALM
                at += length
        self._skip = at - len(data)
        return None


class Ledger:
    """Times are the loop's, seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = BURST
        self._at = now

    def spend(self, units: float, now: float) -> bool:
        """Whether the connection may have what it asks for."""
        self._left = min(BURST, self._left + (now - self._at) * REFILL) - units
        self._at = now
        return self._left >= 0

    def earn(self, units: float) -> None:
        self._left = min(BURST, self._left + units)
