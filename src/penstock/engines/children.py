"""No process outlives the engine that started it.

An engine library may start processes of its own (a worker for each device), which would go on turning, with the device's memory, when
the engine is killed. Owns the guard against that: a process that waits for the engine's end and then ends what is left of its process
group. It must never import an engine library, and is called before anything that makes threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

_KEPT = b"from multiprocessing.resource_tracker import main"
"""Python's own process that gives shared memory back when its users are gone, and then ends by itself."""


def guard_children() -> None:
    """Whatever this process starts from now on ends when this process ends, however that happens."""
    engine = os.getpid()
    if os.getpgrp() != engine:
        os.setpgid(0, 0)
    if os.fork() != 0:
        return
    try:
        os.setsid()  # a signal to the engine's group, such as a terminal's, must not reach the guard
        _let_go_of_files()
        _wait_for(engine)
        _end_group(engine)
    finally:
        os._exit(0)


def _let_go_of_files() -> None:
    """The guard holds nothing open: the front reads the engine's end from its socket."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _wait_for(engine: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(engine)
        if os.getppid() == engine:
            select.select([descriptor], [], [])


def _end_group(group: int) -> None:
    """Again and again until none is found: one that is starting others may start one more."""
    while found := [pid for pid in _members(group) if _KEPT not in _command(pid)]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.01)


def _members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # After the name, which is in brackets and may hold anything: state, parent, group.
                state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(its_group) == group and state not in "ZX":
                    found.append(int(entry.name))
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
