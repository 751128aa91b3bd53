"""From what an SDK hands out to plain bytes.

Owns the shapes a stream may have: PayloadPart events (boto3, aiobotocore), byte chunks (httpx, requests, a file), one
bytes object. It must never know what the bytes mean.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from penstock.client.errors import from_event

Part: TypeAlias = "Mapping[str, Any] | bytes | bytearray | memoryview"
Stream: TypeAlias = "Iterable[Part] | bytes | bytearray"
AsyncStream: TypeAlias = "AsyncIterable[Part]"

# Members of the event stream's union that carry no data and report no error.
_SILENT = frozenset({"SDK_UNKNOWN_MEMBER", "initial-response"})
BOM = b"\xef\xbb\xbf"
_MANY, _TINY = 4096, 256  # so many parts that are so short, in bytes, are joined: each by itself costs some 40 bytes


def parts_of(stream: Stream) -> Iterable[Part]:
    """`stream` as something to iterate; one bytes object is a stream of one part. TypeError for a whole response."""
    if isinstance(stream, (bytes, bytearray)):
        return [stream]
    if isinstance(stream, (Mapping, str)):
        raise TypeError("give the reader the stream itself: response['Body'], not the response")
    return stream


def payload(part: Part) -> bytes:
    """The bytes of one part, b"" for an event without any. Raises StreamError for an exception event."""
    if type(part) is bytes:
        return part
    if isinstance(part, (bytearray, memoryview)):
        return bytes(part)
    if not isinstance(part, Mapping):
        raise TypeError(f"a stream holds PayloadPart events or bytes, not {type(part).__name__}")
    data = part.get("PayloadPart")
    if data is not None:
        return bytes(data.get("Bytes") or b"")
    for name, members in part.items():
        if name not in _SILENT and isinstance(members, Mapping) and ("Message" in members or "message" in members):
            raise from_event(name, members)
    return b""


class BomFilter:
    """Drops one UTF-8 byte order mark at the very start of a stream, also when it comes byte by byte."""

    def __init__(self) -> None:
        self._head = b""
        self._past = False

    @property
    def held(self) -> bytes:
        """The first bytes, while they may still be a mark."""
        return self._head

    def feed(self, data: bytes) -> bytes:
        """`data` without the mark; b"" while it may still be one."""
        if self._past:
            return data
        head = self._head + data
        if len(head) < len(BOM) and BOM.startswith(head):
            self._head = head
            return b""
        self._past, self._head = True, b""
        return head.removeprefix(BOM)

    def finish(self) -> bytes:
        """The bytes held back, which turned out not to be a mark."""
        head, self._head, self._past = self._head, b"", True
        return head


class Tail:
    """The last `keep` bytes of what was received, for `StreamError.text`: linear time, not much more than twice `keep` of memory.

    Parts are kept as they came, and let go of in two halves; a copy of each would cost more than finding its lines.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._older: list[bytes] = []
        self._newer: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self.add_all((data,))

    def add_all(self, parts: Sequence[bytes]) -> None:
        self._newer += parts
        self._size += sum(map(len, parts))
        if self._size >= self._keep:
            self._older, self._newer, self._size = self._newer, [], 0
        elif len(self._newer) > _MANY and self._size < _MANY * _TINY:
            self._newer = [b"".join(self._newer)]

    def text(self) -> str:
        """The bytes as text; a character that was cut at either end is left out."""
        data = b"".join(self._older + self._newer)
        return data[max(0, len(data) - self._keep) :].decode("utf-8", "ignore")
