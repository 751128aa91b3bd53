"""A connection's end by TCP reset, under TLS too.

Owns the waiting until what was written has arrived, for a reset destroys what is still on its way, and the reset itself. It must never
know what was written.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import sys
import termios

LOOK_S = 0.001
PATIENCE_S = 5.0
"""How long a client may take over what is on its way before it is reset all the same."""


class Reset:
    """Resets `transport` soon."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop, self._transport = loop, transport
        self._until = loop.time() + PATIENCE_S
        # Not at once: what was written in this turn of the loop goes out at its end.
        loop.call_soon(self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if self._on_its_way() and self._loop.time() < self._until:
            self._loop.call_later(LOOK_S, self._look)
            return
        if self._own():
            with self._socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _on_its_way(self) -> bool:
        if self._transport.get_write_buffer_size():
            return True
        if not self._own():
            return False
        with self._socket() as sock:
            # Bytes that the client's machine has not acknowledged, those among them that its full window keeps here.
            queued = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(queued, sys.byteorder) > 0

    def _own(self) -> bool:
        """Whether the transport has a socket of its own. A stream of HTTP/2 has none: it is reset by its transport's `abort`."""
        return self._transport.get_extra_info("socket") is not None

    def _socket(self) -> socket.socket:
        """A second handle on the transport's socket, whose options are the socket's own."""
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
