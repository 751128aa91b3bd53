"""A full disk: the replica goes on, its lines are dropped and counted, and the store is whole again when there is room."""

from __future__ import annotations

import errno
import os
from itertools import count
from pathlib import Path

import pytest

from penstock.placement.logs import read_forward
from penstock.placement.logsink import LogSink


def test_lines_are_dropped_counted_and_none_is_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(1)
    sink = LogSink(tmp_path / "AllTraffic" / "i-0a", clock=lambda: next(clock))
    sink.feed("stdout", b"before\n")
    real, room = os.write, [10]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: room[0]]
        room[0] -= len(part)
        return real(fd, part)

    monkeypatch.setattr(os, "write", write)
    sink.feed("stdout", b"lost\nalso lost\n")
    sink.feed("stderr", b"lost too\n")
    assert sink.dropped == 3
    assert sink.last_words == "lost too"
    room[0] = 1 << 20
    sink.feed("stdout", b"after\n")
    assert sink.dropped == 0
    sink.close()
    assert [e.message for e in read_forward(tmp_path / "AllTraffic" / "i-0a").events] == [
        "before",
        "[3 log lines before this one could not be stored]",
        "after",
    ]


def test_a_directory_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "AllTraffic").write_text("in the way")
    sink = LogSink(tmp_path / "AllTraffic" / "i-0a")
    sink.feed("stdout", b"lost\n")
    assert sink.dropped == 1
    sink.close()
