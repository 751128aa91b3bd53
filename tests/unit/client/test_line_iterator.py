"""The line iterator that AWS's streaming examples spread, told again in our words, fails where ours does not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from penstock.client import LineIterator, StreamError
from penstock.client.source import Part


class NaiveLines:
    """Keeps every byte that came, reads a line from where it stopped, and asks for more when the line has no end."""

    def __init__(self, stream: Iterator[Part]) -> None:
        self._events = iter(stream)
        self.buffer = io.BytesIO()
        self._at = 0
        self.turns = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while True:
            self.turns += 1
            if self.turns > 1000:
                raise RecursionError("turning for ever")
            self.buffer.seek(self._at)
            line = self.buffer.readline()
            if line.endswith(b"\n"):
                self._at += len(line)
                return line[:-1]
            try:
                event = next(self._events)
            except StopIteration:
                if self._at < self.buffer.getbuffer().nbytes:
                    continue  # there are bytes left, so there must be a line: for ever
                raise
            self.buffer.seek(0, io.SEEK_END)
            self.buffer.write(event["PayloadPart"]["Bytes"])  # type: ignore[call-overload]


def events(*parts: bytes) -> Iterator[Part]:
    for part in parts:
        yield {"PayloadPart": {"Bytes": part}}


def test_where_both_work() -> None:
    parts = (b'{"outputs": ["a"]}\n{"outp', b'uts": [" b"]}\n')
    assert list(NaiveLines(events(*parts))) == list(LineIterator(events(*parts))) != []


def test_a_missing_final_newline_hangs_the_naive_one() -> None:
    parts = (b"one\n", b"two")
    naive = NaiveLines(events(*parts))
    assert next(naive) == b"one"
    with pytest.raises(RecursionError):
        next(naive)
    assert list(LineIterator(events(*parts))) == [b"one", b"two"]


def test_carriage_returns_stay_in_the_naive_ones_lines() -> None:
    assert list(NaiveLines(events(b"data: 1\r", b"\n\r\n"))) == [b"data: 1\r", b"\r"]
    assert list(LineIterator(events(b"data: 1\r", b"\n\r\n"))) == [b"data: 1", b""]


def test_a_byte_order_mark_breaks_the_naive_ones_first_line() -> None:
    sse = b"\xef\xbb\xbfdata: 1\n"
    assert not next(NaiveLines(events(sse))).startswith(b"data")
    assert next(LineIterator(events(sse))) == b"data: 1"


def test_an_event_that_is_no_payload_crashes_the_naive_one() -> None:
    failure: Part = {"ModelStreamError": {"Message": "the model died", "ErrorCode": "StreamBroken"}}
    with pytest.raises(KeyError):
        list(NaiveLines(iter([failure])))
    with pytest.raises(StreamError, match="the model died") as caught:
        list(LineIterator(iter([failure])))
    assert (caught.value.code, caught.value.error_code) == ("ModelStreamError", "StreamBroken")


def test_the_naive_one_never_lets_go_of_a_byte() -> None:
    record = json.dumps({"outputs": ["x" * 100]}).encode() + b"\n"
    naive = NaiveLines(events(*[record] * 100))
    assert len(list(naive)) == 100
    assert naive.buffer.getbuffer().nbytes == 100 * len(record)
    lines = LineIterator(events(*[record] * 100))
    assert sum(1 for _ in lines) == 100


def test_after_an_error_the_iterator_is_at_its_end() -> None:
    parts: list[Part] = [b"one\n", {"InternalStreamFailure": {"Message": "sorry"}}]
    lines = LineIterator(parts)
    assert next(lines) == b"one"
    with pytest.raises(StreamError, match="InternalStreamFailure: sorry"):
        next(lines)
    assert list(lines) == []
