"""JSON values out of bytes: JSON lines, values one after the other, or values spread over many lines.

Owns the finding of a value's end, in linear time. It must never know what a value means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from penstock.client.errors import StreamError
from penstock.client.source import BomFilter

_BLANK = b" \t\r\n\x1e"  # 0x1e starts a record in JSON text sequences (RFC 7464)
_MARK = re.compile(rb'["{}\[\]\r\n]')
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_DECODER = json.JSONDecoder()
_SHOWN = 500


class JsonParser:
    """Bytes in, Python values out. Objects and arrays end with their bracket, bare scalars with their line.

    Raises StreamError `InvalidJson` for what is no JSON (the message shows it: model servers end a failed stream with plain
    text), `ValueTooLong` for more than `max_value` bytes, `Truncated` when the stream ends inside a value.
    """

    def __init__(self, max_value: int) -> None:
        self._max = max_value
        self._bom = BomFilter()
        self._pending = bytearray()
        self._depth = 0
        self._in_string = False
        self._after_backslash = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values which `data` completes."""
        data = self._bom.feed(data)
        if not self._pending:
            data = data.lstrip(_BLANK)
            if data[:1] in (b"{", b"[") and len(data) <= self._max:
                # The usual part is one whole value. At most one try a part, so that the time stays linear.
                try:
                    value = _DECODER.decode(data.decode())
                except (ValueError, RecursionError):
                    pass
                else:
                    yield value
                    return
        yield from self._scan(data)

    def _scan(self, data: bytes) -> Iterator[Any]:
        start = at = 0
        while at < len(data):
            if self._in_string:
                at = self._skip_string(data, at)
                continue
            mark = _MARK.search(data, at)
            if mark is None:
                break
            at = mark.end()
            match mark.group():
                case b'"':
                    self._in_string = True
                    continue
                case b"{" | b"[":
                    self._depth += 1
                    continue
                case b"}" | b"]":
                    self._depth -= 1
            if self._depth <= 0:
                self._depth = 0
                record = bytes(self._pending) + data[start:at]
                self._pending.clear()
                start = at
                yield from self._values(record)
        self._pending += data[start:] if self._pending else data[start:].lstrip(_BLANK)
        if len(self._pending) > self._max:
            raise self._too_long()

    def _skip_string(self, data: bytes, at: int) -> int:
        """Where scanning goes on in `data`, from `at` inside a string: behind its quote, or at the end of the data."""
        if self._after_backslash:
            self._after_backslash = False
            at += 1
        found = _STRING.match(data, at)
        end = found.end() if found else at
        if end < len(data):
            self._after_backslash = data[end] == 0x5C  # a backslash stops the match only as the last byte
            self._in_string = self._after_backslash
            end += 1
        return end

    def _values(self, record: bytes) -> Iterator[Any]:
        record = record.strip(_BLANK)
        if len(record) > self._max:
            self._pending[:] = record
            raise self._too_long()
        if not record:
            return
        try:
            value = _DECODER.decode(record.decode())
        except (ValueError, RecursionError):
            yield from self._one_by_one(record)
        else:
            yield value

    def _one_by_one(self, record: bytes) -> Iterator[Any]:
        """Several values in one record, as in `1 2 {"a": 3}`."""
        try:
            text = record.decode("utf-8")
        except UnicodeDecodeError:
            raise self._invalid(record) from None
        at = 0
        while at < len(text):
            try:
                value, at = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                raise self._invalid(text[at:].encode()) from None
            yield value
            while at < len(text) and text[at] in " \t\r\n\x1e":
                at += 1

    def finish(self) -> Iterator[Any]:
        """The last value, where no line end followed it."""
        self._pending += self._bom.finish()
        record = bytes(self._pending)
        if self._depth > 0 or self._in_string:
            if record[:1] not in (b"{", b"[", b'"'):  # plain text with a quote or a bracket in it
                raise self._invalid(record)
            raise StreamError("Truncated", "the stream ended inside a JSON value")
        self._pending.clear()
        yield from self._values(record)

    def _too_long(self) -> StreamError:
        return StreamError("ValueTooLong", f"a JSON value is longer than {self._max} bytes")

    def _invalid(self, record: bytes) -> StreamError:
        self._pending[:] = record
        return StreamError("InvalidJson", record[:_SHOWN].decode("utf-8", "replace"))

    @property
    def rest(self) -> bytes:
        """The bytes of the value that is not complete yet."""
        return bytes(self._pending) or self._bom.held
