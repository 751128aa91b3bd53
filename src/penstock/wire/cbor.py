"""CBOR (RFC 8949), as far as AWS's RPC v2 protocol uses it.

Owns bytes to values and back. It must never do I/O or know a shape. What is read is bounded by its own length: no length that a client
states makes us reserve memory.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable
from typing import Any

_DEPTH = 64
_EPOCH = 1
"""The tag of a point in time: seconds since the epoch (§3.4.2)."""
_BREAK = object()


class CborError(ValueError):
    """Bytes that are no CBOR, or of a kind that the protocol does not have."""


def decode(data: bytes) -> Any:
    """The one value in `data`. A point in time comes as its seconds. Raises CborError."""
    reader = _Reader(data)
    value = reader.item(0)
    if value is _BREAK or reader.at != len(data):
        raise CborError("there is more, or less, than one value")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise CborError("the data ends inside a value")
        self.at += count
        return piece

    def item(self, depth: int) -> Any:
        if depth > _DEPTH:
            raise CborError("values are nested too deep")
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if major == 7:
            return self._simple(low)
        length = None if low == 31 else self._argument(low)
        return self._by_major(major, length, depth)

    def _by_major(self, major: int, length: int | None, depth: int) -> Any:
        match major:
            case 2:
                return self._string(2, length)
            case 3:
                try:
                    return self._string(3, length).decode()
                except UnicodeDecodeError:
                    raise CborError("a text is not UTF-8") from None
            case 4:
                return [value for (value,) in self._several(length, 1, depth)]
            case 5:
                pairs = self._several(length, 2, depth)
                if not all(isinstance(key, str) for key, _ in pairs):
                    raise CborError("a map's key is no text")
                return dict(pairs)
        if length is None:
            raise CborError("a number, or a tag, of no length")
        if major == 6:
            value = self.item(depth + 1)
            if length != _EPOCH or isinstance(value, bool) or not isinstance(value, int | float):
                raise CborError(f"the tag {length} means nothing here")
            return value
        return length if major == 0 else -1 - length

    def _argument(self, low: int) -> int:
        if low < 24:
            return low
        if low > 27:
            raise CborError("a length of a reserved kind")
        return int.from_bytes(self.take(1 << (low - 24)))

    def _string(self, major: int, length: int | None) -> bytes:
        if length is not None:
            return self.take(length)
        pieces = []
        while (first := self.take(1)[0]) != 0xFF:
            if first >> 5 != major or first & 31 == 31:
                raise CborError("a string's piece is none")
            pieces.append(self.take(self._argument(first & 31)))
        return b"".join(pieces)

    def _several(self, length: int | None, each: int, depth: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        while length is None or len(found) < length:
            first = self.item(depth + 1)
            if first is _BREAK:
                if length is None:
                    return found
                raise CborError("a break where none may be")
            rest = tuple(self.item(depth + 1) for _ in range(each - 1))
            if _BREAK in rest:
                raise CborError("a break where none may be")
            found.append((first, *rest))
        return found

    def _simple(self, low: int) -> Any:
        match low:
            case 20 | 21:
                return low == 21
            case 22 | 23:
                return None
            case 25 | 26 | 27:
                form = {25: "!e", 26: "!f", 27: "!d"}[low]
                return struct.unpack(form, self.take(struct.calcsize(form)))[0]
            case 31:
                return _BREAK
        raise CborError("a simple value that means nothing here")


def encode(value: Any) -> bytes:
    """`value`: None, bool, int, float, str, bytes, an aware datetime, or a list or dict of these."""
    out: list[bytes] = []
    _write(value, out.append)
    return b"".join(out)


def _write(value: Any, put: Callable[[bytes], None]) -> None:
    match value:
        case None:
            put(b"\xf6")
        case bool():
            put(b"\xf5" if value else b"\xf4")
        case int():
            put(_head(0, value) if value >= 0 else _head(1, -1 - value))
        case float():
            put(b"\xfb" + struct.pack("!d", value))
        case str():
            raw = value.encode()
            put(_head(3, len(raw)) + raw)
        case bytes():
            put(_head(2, len(value)) + value)
        case dt.datetime():
            put(_head(6, _EPOCH))
            _write(value.timestamp(), put)
        case list():
            put(_head(4, len(value)))
            for element in value:
                _write(element, put)
        case dict():
            put(_head(5, len(value)))
            for key, element in value.items():
                _write(key, put)
                _write(element, put)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in CBOR")


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for low, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes((major << 5 | low,)) + argument.to_bytes(size)
    raise TypeError("a number has at most 64 bits")
