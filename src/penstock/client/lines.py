"""Lines out of bytes, however the bytes were cut.

Owns the splitting at LF, CR and CRLF. It must never know what a line means, nor where the bytes come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstock.client.errors import StreamError
from penstock.client.source import BomFilter


class LineSplitter:
    """Bytes in, whole lines out, without their ends: what `bytes.splitlines` gives for the whole, at any slicing.

    A line longer than `max_line` bytes raises StreamError `LineTooLong`, at any slicing. A byte order mark at the start is
    no part of the first line. Splitting bytes at CR and LF never cuts a UTF-8 character.
    """

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._bom: BomFilter | None = BomFilter()
        self._pending = (
            bytearray()
        )  # one buffer: a list of fragments would cost 40 bytes for each byte that comes alone
        self._after_cr = False  # a CR ends its line at once; an LF that follows in the next part belongs to it

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The lines which `data` completes; to be taken before anything else is fed."""
        if self._bom is not None:
            data = self._bom.feed(data)
            if data:
                self._bom = None
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if not data:
            return ()
        pending = self._pending
        guarded = len(pending) + len(data) > self._max
        lines = data.splitlines()
        if (last := data[-1]) == 10:
            rest = b""
        elif last == 13:
            self._after_cr, rest = True, b""
        else:
            rest = lines.pop()
        if pending and lines:
            lines[0] = bytes(pending) + lines[0]
            pending.clear()
        pending += rest
        return self._checked(lines) if guarded else lines

    def hand_over(self, most: int) -> bytes | None:
        """The line that is not complete yet, which the caller now holds; None where it is longer than `most`, or not all."""
        if self._bom is not None or self._after_cr or len(self._pending) > most:
            return None
        pending = bytes(self._pending)
        self._pending.clear()
        return pending

    def take_back(self, pending: bytes) -> None:
        """The line that was handed over, as far as it has grown."""
        self._pending += pending

    def _checked(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            if len(line) > self._max:
                raise self._too_long(line)
            yield line
        if len(self._pending) > self._max:
            raise self._too_long(self._pending)

    def _too_long(self, line: bytes | bytearray) -> StreamError:
        self._pending = bytearray(line)
        return StreamError("LineTooLong", f"a line is longer than {self._max} bytes")

    def finish(self) -> Iterator[bytes]:
        """The last line, where the stream did not end it."""
        if self._bom is not None:
            self._pending += self._bom.finish()
            self._bom = None
        if self._pending:
            line = bytes(self._pending)
            self._pending.clear()
            yield line

    @property
    def rest(self) -> bytes:
        """The bytes of the line that is not complete yet."""
        return bytes(self._pending) if self._bom is None else self._bom.held
