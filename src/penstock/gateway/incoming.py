"""A request on a client's connection, from its head to its answer.

Owns what is known of it meanwhile. It must never do anything: the connection does.
"""

from __future__ import annotations

import msgspec

from penstock.gateway.exchange import Exchange
from penstock.gateway.head import Head
from penstock.gateway.trace import Trace


class Incoming(msgspec.Struct):
    """A request whose turn may not have come: what has arrived of it so far."""

    head: Head
    exchange: Exchange | None = None
    pieces: list[bytes] = []
    received: int = 0
    trace: Trace | None = None
    """While it is being served."""
    ended: bool = False
    answered: bool = False
