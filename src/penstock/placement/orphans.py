"""What an earlier run left behind: its processes and its directories.

Owns the record of a replica's processes, the proof that a living process is still the recorded one, and the sweep. It must never touch a
process that it can't prove to be ours.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

RECORD = "process.json"
_MARK = "PENSTOCK_MODEL_DIR"


def record(directory: Path, pids: tuple[int, ...]) -> None:
    """Write down the processes of the replica whose directory this is, with the times at which they began."""
    value = {"boot": _boot_id(), "processes": {str(pid): started(pid) for pid in pids}}
    temporary = directory / (RECORD + ".new")
    temporary.write_text(json.dumps(value))
    temporary.replace(directory / RECORD)


def recorded(directory: Path) -> tuple[int, ...]:
    """The recorded processes that still live: same number, same time of beginning, same boot."""
    try:
        value = json.loads((directory / RECORD).read_bytes())
        if value["boot"] != _boot_id():
            return ()
        return tuple(int(pid) for pid, start in value["processes"].items() if start and started(int(pid)) == start)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or torn by a crash
        return ()


def marked(directory: Path) -> tuple[int, ...]:
    """The living processes whose environment places their model below `directory`: replicas, and what they have started."""
    return tuple(_marked(os.fsencode(f"{_MARK}={directory}{os.sep}")))


def kill(find: Callable[[], tuple[int, ...]], *, deadline_s: float = 5.0) -> tuple[int, ...]:
    """SIGKILL all that `find` finds, until it finds none or the time is over. Blocking. Returns those that were found."""
    found: set[int] = set()
    end = time.monotonic() + deadline_s
    while (pids := [p for p in find() if p != os.getpid()]) and time.monotonic() < end:
        for pid in pids:
            found.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return tuple(sorted(found))


def sweep(replicas: Path) -> tuple[Path, ...]:
    """Kill what an earlier run left living below `replicas` (`Paths.replicas`); return the directories that can be removed.

    Only the holder of the home's lock may call it: to another run that still lives it would be murder.
    """
    if not replicas.is_dir():
        return ()
    left = tuple(path for path in replicas.iterdir() if path.is_dir())
    kill(lambda: tuple(pid for path in left for pid in recorded(path)) + marked(replicas))
    return left


def _marked(prefix: bytes) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:  # gone, or another user's
                continue
            if any(variable.startswith(prefix) for variable in environment.split(b"\0")):
                yield int(entry)


def started(pid: int) -> int:
    """When a process began, in the kernel's ticks since boot; 0 where it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
