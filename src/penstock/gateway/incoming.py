"""A request on a client's connection, from its head to its answer.

Owns what is known of it meanwhile. It must never do anything: the connection does.
"""

from __future__ import annotations

from penstock.gateway.exchange import Exchange
from penstock.gateway.head import Head
from penstock.gateway.trace import Trace


class Incoming:
    """A request whose turn may not have come: what has arrived of it so far."""

    __slots__ = ("answered", "ended", "exchange", "head", "pieces", "received", "trace")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.exchange: Exchange | None = None
        self.pieces: list[bytes] = []
        self.received = 0
        self.trace: Trace | None = None
        """While it is being served."""
        self.ended = False
        self.answered = False
