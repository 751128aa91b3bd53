"""The tie of a child process to its parent's life. Imports nothing that a bare interpreter lacks."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """In a child process, first of all: be killed (SIGKILL) when the parent dies, however it dies.

    `parent_pid` is the parent's `os.getpid()`, handed down by argument or environment: if it has already died, this process ends here.
    The kernel watches the thread that started the child, so the parent must start it from a thread that lives as long as it does.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(1)
