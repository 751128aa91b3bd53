"""The access log: one line of JSON a request, written beside the event loop.

Owns the file, its bound and its rotation. It must never hold up a request: lines are gathered and written by a thread, at most a buffer of
them waits, and a disk that is full costs lines, which are counted, and nothing else.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger("penstock.gateway")

MAX_WAITING = 4 * 1024 * 1024
"""Bytes of lines that wait for the disk."""
MAX_FILE = 64 * 1024 * 1024
"""Bytes of the file; then it becomes `access.jsonl.1`, and the one before goes."""
OFF = "off"


def place(setting: str, logs: Path) -> Path | None:
    """Where the log is, by `Settings.access_log`; None where there shall be none."""
    if setting == OFF:
        return None
    return Path(setting) if setting else logs / "access.jsonl"


class AccessLog:
    """Of one worker; several may share the file, since each line goes out in one appending write with others."""

    def __init__(self, path: Path | None, max_file: int = MAX_FILE) -> None:
        self._path, self._max_file = path, max_file
        self._lines: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Future[None] | None = None
        self._file = -1
        self._torn = self._failing = False
        self.dropped = 0
        """Lines lost so far."""

    @property
    def on(self) -> bool:
        return self._path is not None

    def add(self, line: bytes) -> None:
        if self._size + len(line) > MAX_WAITING:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)

    def flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has a thread write what waits, unless it is still writing."""
        if self._lines and (self._writing is None or self._writing.done()):
            self._writing = loop.run_in_executor(None, self._write, self._take())

    async def close(self) -> None:
        """Writes the rest."""
        if self._writing is not None:
            await self._writing
        if self._lines:
            await asyncio.to_thread(self._write, self._take())
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take(self) -> list[bytes]:
        lines, self._lines, self._size = self._lines, [], 0
        return lines

    def _write(self, lines: list[bytes]) -> None:
        """In a thread, one at a time."""
        data = b"\n" * self._torn + b"".join(lines)
        try:
            self._open()
            written = os.write(self._file, data)
        except OSError as error:
            self._lost(lines, error)
            return
        self._torn = written < len(data)
        if self._torn:  # the disk is full: what got through is whole lines and one piece of a line
            kept = data[:written].count(b"\n")
            self._lost(lines[kept:], OSError("no room for all of it"))
        else:
            self._failing = False

    def _lost(self, lines: list[bytes], error: OSError) -> None:
        self.dropped += len(lines)
        if not self._failing:
            log.warning("the access log %s cannot be written, lines are dropped: %s", self._path, error)
        self._failing = True

    def _open(self) -> None:
        """The file as it is now: another worker may have put it aside, or somebody may have deleted it. Raises OSError."""
        assert self._path is not None
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if self._file >= 0:
            ours = os.fstat(self._file)
            current = there is not None and ours.st_ino == there.st_ino
            if current and (ours.st_size < self._max_file or not self._put_aside(ours.st_ino)):
                return
            os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _put_aside(self, inode: int) -> bool:
        """Renames a file that is full. False where another worker is about it."""
        assert self._path is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.stat(self._path).st_ino == inode:
            os.replace(self._path, f"{self._path}.1")
        return True
