"""The token path's short cut: from a container's read to a client's socket in one step of the compiled twin.

Owns which class an upstream connection is made of, what a read that is exactly one chunk looks like, and which clients' sockets may be
written past their transport. It must never know what a stream means.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING

from uvloop.loop import TCPTransport  # type: ignore[attr-defined]  # there, and not in its stubs

from penstock._speed import COMPILED
from penstock.gateway.trace import Trace


class TokensHere:
    """The twin in Python. It has no short cut: `at_chunk` is all it knows, and every read is `received`."""

    __slots__ = ("at_chunk",)
    at_chunk: bool
    """Whether the next read begins between two chunks of an answer whose chunks are passed on whole."""

    def data_received(self, data: bytes) -> None:
        """A read. While a stream is open, one that is exactly one chunk is framed and written; any other is `received`."""
        self.received(data)

    def received(self, data: bytes) -> None:
        """Reads what is no part of an open stream."""
        raise NotImplementedError

    def open_tokens(self, client: asyncio.Transport, fd: int, note: Trace) -> None:
        """From now on chunks go to `client` as frames of an event stream in HTTP chunks: into `fd` where that is its socket, not -1.

        What went is added to `note.parts` and `note.bytes_out` by `close_tokens`.
        """

    def close_tokens(self) -> None:
        """The stream is over: nothing goes to the client any more."""


@lru_cache(maxsize=8192)
def chunk_of(length: int) -> tuple[tuple[bytes, ...], int]:
    """How a read of that many bytes begins if it is exactly one chunk, its size in either case; and where its data begins."""
    for digits in range(1, 8):
        size = length - digits - 4
        if size > 0 and len(f"{size:x}") == digits:
            return (b"%x\r\n" % size, b"%X\r\n" % size), digits + 2
    return (), 0


def socket_of(transport: asyncio.Transport) -> int:
    """The socket of a transport that does nothing but write to it; -1 of any other (TLS, HTTP/2)."""
    fd: int = transport.get_extra_info("socket").fileno() if type(transport) is TCPTransport else -1
    return fd


if TYPE_CHECKING:
    Tokens = TokensHere
elif COMPILED:
    from penstock._speed.native import Tokens
else:
    Tokens = TokensHere
