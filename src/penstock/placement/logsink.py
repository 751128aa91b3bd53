"""The writing half of the log store: from the pipes of replicas to files.

Owns one thread that reads every replica's stdout and stderr, splits lines, stamps and stores them (`logs.py` has the layout). It must
never run on an event loop, and never hold up a replica: where the disk is full or broken, lines are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from penstock.placement.logs import Line, Output, encode, segment_path, segments

LINE_BYTES = 16 * 1024
"""A longer line becomes several events."""
SEGMENT_BYTES = 4 * 1024 * 1024
SEGMENTS_KEPT = 8
STREAMS_KEPT = 100
"""Streams kept of a variant; the oldest make room."""

_READ_BYTES = 64 * 1024
_log = logging.getLogger(__name__)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class LogSink:
    """One replica's stream: takes raw output, keeps it as events. Not safe for several threads."""

    def __init__(
        self, directory: Path, *, clock: Callable[[], int] = now_ms, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._partial: dict[Output, bytes] = {}
        self._said: dict[Output, str] = {}
        self._last_ms = 0
        self._fd = -1
        self._base = 0
        self._size = 0
        self.dropped = 0
        """Lines that could not be stored since the last that could."""

    @property
    def last_words(self) -> str:
        """The last line that is not blank: of stderr if it said anything, else of stdout."""
        return self._said.get("stderr") or self._said.get("stdout", "")

    def feed(self, output: Output, data: bytes) -> None:
        """Take what was read. Whole lines are stored now, the rest when it is whole, too long, or the end comes."""
        pieces = (self._partial.pop(output, b"") + data).split(b"\n")
        rest = pieces.pop()
        while len(rest) >= LINE_BYTES:
            pieces.append(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        if rest:
            self._partial[output] = rest
        self._store(output, pieces)

    def end(self, output: Output) -> None:
        """That output is closed: what is left of it is a line."""
        if rest := self._partial.pop(output, b""):
            self._store(output, [rest])

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _store(self, output: Output, pieces: list[bytes]) -> None:
        texts = [
            piece[i : i + LINE_BYTES].removesuffix(b"\r").decode(errors="replace")
            for piece in pieces
            for i in range(0, max(1, len(piece)), LINE_BYTES)
        ]
        if not texts:
            return
        self._said[output] = next((t for t in reversed(texts) if t.strip()), self._said.get(output, ""))
        self._last_ms = stamp = max(self._clock(), self._last_ms)
        lines = [encode(Line(stamp, output, text)) for text in texts]
        try:
            if self.dropped:
                note = f"[{self.dropped} log lines before this one could not be stored]"
                self._append(encode(Line(stamp, "stderr", note)))
                self.dropped = 0
            self._append(b"".join(lines))
        except OSError as error:
            if not self.dropped:
                _log.warning("log lines of %s are dropped: %s", self._directory.name, error)
            self.dropped += len(lines)

    def _append(self, data: bytes) -> None:
        """Write all of `data` or nothing. Raises OSError."""
        if self._fd < 0 or self._size >= self._segment_bytes or not os.fstat(self._fd).st_nlink:
            self._begin_segment()
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += written

    def _begin_segment(self) -> None:
        self.close()
        first = not self._directory.is_dir()
        self._directory.mkdir(parents=True, exist_ok=True)
        if first:
            _prune_streams(self._directory.parent)
        kept = segments(self._directory)
        # A segment is never continued: the last line of one whose writer was killed may be torn.
        self._base = kept[-1][0] + max(1, kept[-1][1].stat().st_size) if kept else 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(segment_path(self._directory, self._base), flags, 0o600)
        self._size = 0
        for _, path in kept[: max(0, len(kept) + 1 - SEGMENTS_KEPT)]:
            path.unlink(missing_ok=True)


def _prune_streams(variant: Path) -> None:
    streams = sorted((p for p in variant.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for path in streams[: max(0, len(streams) - STREAMS_KEPT)]:
        shutil.rmtree(path, ignore_errors=True)


class LogPump:
    """The thread that reads the pipes of all replicas of this process. Started by the first `attach`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._new: list[tuple[int, Output, LogSink, Callable[[], None]]] = []
        self._open: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_r, selectors.EVENT_READ, None)

    def attach(self, sink: LogSink, stdout: int, stderr: int, ended: Callable[[], None]) -> None:
        """Read both pipes into `sink` until their ends, then close all three and call `ended` (in the pump's thread).

        Takes the descriptors over.
        """
        with self._lock:
            if self._closing:
                raise RuntimeError("the log pump is closed")
            self._new += [(stdout, "stdout", sink, ended), (stderr, "stderr", sink, ended)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penstock-logs", daemon=True)
                self._thread.start()
        self._wake()

    def close(self) -> None:
        """Stop reading, at once; the pipes are closed. Safe to call twice."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._selector.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"x")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._read(key.fd, *key.data)
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_r, 4096)
            with self._lock:
                new, self._new = self._new, []
                closing = self._closing
            for fd, output, sink, ended in new:
                os.set_blocking(fd, False)
                self._open[id(sink)] = self._open.get(id(sink), 0) + 1
                self._selector.register(fd, selectors.EVENT_READ, (output, sink, ended))
            if closing:
                for key in list(self._selector.get_map().values()):
                    if key.data is not None:
                        self._finish(key.fd, *key.data)
                return

    def _read(self, fd: int, output: Output, sink: LogSink, ended: Callable[[], None]) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("cannot read a replica's output: %s", error)
            data = b""
        if data:
            sink.feed(output, data)
        else:
            self._finish(fd, output, sink, ended)

    def _finish(self, fd: int, output: Output, sink: LogSink, ended: Callable[[], None]) -> None:
        self._selector.unregister(fd)
        os.close(fd)
        sink.end(output)
        self._open[id(sink)] -= 1
        if not self._open[id(sink)]:
            del self._open[id(sink)]
            sink.close()
            ended()
