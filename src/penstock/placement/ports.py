"""Loopback ports that nobody else takes while a replica starts.

Owns the reservation: a bound socket that never listens. The kernel gives its port to no one who asks for any, and yet a server that sets
SO_REUSEADDR, as servers do, can listen on it.
"""

from __future__ import annotations

import socket


class ReservedPort:
    """A free port of 127.0.0.1, kept until `release`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()
