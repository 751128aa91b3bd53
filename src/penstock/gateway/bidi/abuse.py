"""What a client may have us do for nothing.

Owns one connection's ledger of cheap frames: pings, settings, cancelled streams, empty data. Each costs the sender almost nothing and us
something, so a connection may send only so many of them at once and in the long run. It must never know a frame's bytes.
RFC 9113 §10.5; CVE-2019-9512, -9514, -9515, -9518 and CVE-2023-44487 are what it is against.
"""

from __future__ import annotations

BURST = 1000.0
"""Units that a new connection has, and the most that it can save up."""
REFILL = 100.0
"""Units that come back a second: twenty streams cancelled, or a hundred pings."""

PING = PRIORITY = EMPTY_DATA = UNKNOWN = WINDOW = 1.0
SETTINGS = RESET = 5.0
SENT_DATA = -2.0
"""Each frame of data that we send may be answered by the window updates that it needs, for the stream and for the connection."""


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
