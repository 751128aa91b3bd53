"""Bytes to messages, whatever the slicing.

Owns the incremental reading of frames with both checksums. It does no I/O: bytes are fed in, whole messages come out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct, unpack_from
from zlib import crc32

MAX_MESSAGE = 24 * 1024 * 1024
"""Bytes of one whole message; a length above it is taken for garbage at once."""
MAX_HEADERS = 128 * 1024

HeaderValue = bool | int | bytes | str | datetime | uuid.UUID

_PRELUDE = Struct("!III")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER_SIZES = {2: 1, 3: 2, 4: 4, 5: 8}


class FrameError(ValueError):
    """The bytes are no event stream, or were damaged on the way. Nothing after it can be trusted."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event-stream message; its payload is raw bytes."""

    headers: Mapping[str, HeaderValue]
    payload: bytes


class Decoder:
    """Turns fed bytes into messages. After a FrameError the decoder is spent: each further `feed` raises it again.

    `longest` bounds one whole message, and with it what the decoder holds.
    """

    def __init__(self, longest: int = MAX_MESSAGE) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._error: FrameError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order. Raises FrameError on a bad length, checksum or header."""
        if self._error:
            raise self._error
        self._buffer += data
        messages = []
        try:
            while message := self._next():
                messages.append(message)
        except FrameError as error:
            self._error = error
            self._buffer.clear()
            if not messages:
                raise
        return messages

    def finish(self) -> None:
        """The stream has ended: raises FrameError when it ended inside a frame, which no reader may take for success."""
        if self._error:
            raise self._error
        if self._buffer:
            raise FrameError(f"the stream ended inside a frame, after {len(self._buffer)} bytes of it")

    def _next(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < 12:
            return None
        total, headers_length, prelude_crc = _PRELUDE.unpack_from(buffer)
        if crc32(buffer[:8]) != prelude_crc:
            raise FrameError("prelude checksum mismatch")
        if total > self._longest or headers_length > MAX_HEADERS or total < headers_length + 16:
            raise FrameError(f"impossible lengths: message {total}, headers {headers_length}")
        if len(buffer) < total:
            return None
        frame = bytes(buffer[:total])
        del buffer[:total]
        if crc32(frame[:-4]) != unpack_from("!I", frame, total - 4)[0]:
            raise FrameError("message checksum mismatch")
        return Message(_decode_headers(frame[12 : 12 + headers_length]), frame[12 + headers_length : -4])


def _decode_headers(raw: bytes) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(raw):
            end = at + 1 + raw[at]
            name = raw[at + 1 : end].decode()
            value, at = _decode_value(raw, raw[end], end + 1)
            headers[name] = value
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise FrameError(f"headers cannot be read: {error}") from None
    return headers


def _decode_value(raw: bytes, kind: int, at: int) -> tuple[HeaderValue, int]:
    """A header's value and where the next header starts. Raises FrameError when it is cut off."""
    if kind in (0, 1):
        return kind == 0, at
    if size := _INTEGER_SIZES.get(kind):
        return int.from_bytes(_exactly(raw, at, size), signed=True), at + size
    if kind in (6, 7):
        length = int.from_bytes(_exactly(raw, at, 2))
        value = _exactly(raw, at + 2, length)
        return (value if kind == 6 else value.decode()), at + 2 + length
    if kind == 8:
        return _EPOCH + timedelta(milliseconds=int.from_bytes(_exactly(raw, at, 8), signed=True)), at + 8
    if kind == 9:
        return uuid.UUID(bytes=_exactly(raw, at, 16)), at + 16
    raise FrameError(f"unknown header type {kind}")


def _exactly(raw: bytes, at: int, size: int) -> bytes:
    piece = raw[at : at + size]
    if len(piece) != size:
        raise FrameError("a header is cut off")
    return piece
