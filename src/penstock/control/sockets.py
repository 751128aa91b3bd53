"""Unix sockets that listen for this user alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from penstock.config import socket_address


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600 from the first moment on; one that an earlier life left there is replaced.

    Changes the process's umask for an instant: to be called before there are threads.
    """
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listening.bind(socket_address(path))
    finally:
        os.umask(old)
    listening.listen(128)
    listening.setblocking(False)
    return listening
