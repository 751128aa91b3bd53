"""The sockets of one boto3 client, so that a Stop closes them while another thread waits in them.

Owns the reach into botocore that this needs: botocore offers no way to end a call that waits for its first byte, and closing
a file descriptor does not wake a thread that reads it; shutting the socket down does both. Where a botocore to come is built
differently, `watch` says no, and a Stop takes effect at the next part.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any


class Connections:
    """Remembers each socket that a client opens, from `watch` on. `sever` may be called from any thread, many times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._severed = False

    def watch(self, client: Any) -> bool:
        """Watches `client`, whose calls must not have begun. False where its inside is not as expected."""
        http = getattr(getattr(client, "_endpoint", None), "http_session", None)
        pools = getattr(http, "_pool_classes_by_scheme", None)
        if not isinstance(pools, dict):
            return False
        pools.update({scheme: self._watched(pool) for scheme, pool in pools.items()})
        return True

    def _watched(self, pool: Any) -> Any:
        connections = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                connections._add(self.sock)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    def _add(self, opened: socket.socket) -> None:
        with self._lock:
            if not self._severed:
                self._sockets.append(opened)
                return
        opened.close()
        raise ConnectionAbortedError("stopped")

    def sever(self) -> None:
        """Ends every connection at once, both ways: the server sees its client leave, the reading thread wakes."""
        with self._lock:
            self._severed = True
            sockets, self._sockets = self._sockets, []
        for opened in sockets:
            with contextlib.suppress(OSError):  # it is closed already
                opened.shutdown(socket.SHUT_RDWR)
