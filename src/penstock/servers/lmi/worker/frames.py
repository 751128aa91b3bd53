"""The bytes between the server and a handler process.

Owns the framing: four bytes of length, a JSON header of that length, then as many bytes as the header's `sizes` say. It must never know
what a header means.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_HEADER = 16 * 1024 * 1024
MAX_BLOB = 1024 * 1024 * 1024
LENGTH = struct.Struct(">I")


class BrokenFrame(Exception):
    """The other side sent what is no frame, or closed in the middle of one."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A header, whose `kind` says what it is, and blobs."""

    header: Mapping[str, Any]
    blobs: tuple[bytes, ...] = ()

    @property
    def kind(self) -> str:
        return str(self.header.get("kind"))


def encode(header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One frame's bytes."""
    head = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join([LENGTH.pack(len(head)), head, *blobs])


def header_size(data: bytes) -> int:
    """How long the header is. Raises BrokenFrame."""
    size: int = LENGTH.unpack(data)[0]
    if size > MAX_HEADER:
        raise BrokenFrame(f"a header of {size} bytes")
    return size


def header(data: bytes) -> dict[str, Any]:
    """The header, with sane `sizes`. Raises BrokenFrame."""
    try:
        value = json.loads(data)
        sizes = value["sizes"]
        if all(isinstance(size, int) and 0 <= size <= MAX_BLOB for size in sizes):
            return dict(value)
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenFrame(f"no header: {error}") from error
    raise BrokenFrame("a blob of more than 1 GiB")


def read(receive: Callable[[int], bytes]) -> Frame | None:
    """The next frame from a blocking source; None at the end. `receive(n)` gives n bytes, fewer only at the end. Raises BrokenFrame."""
    start = receive(LENGTH.size)
    if not start:
        return None
    if len(start) < LENGTH.size:
        raise BrokenFrame("the end in the middle of a frame")
    size = header_size(start)
    head = header(receive(size))
    blobs = tuple(receive(size) for size in head["sizes"])
    if any(len(blob) != size for blob, size in zip(blobs, head["sizes"], strict=True)):
        raise BrokenFrame("the end in the middle of a frame")
    return Frame(head, blobs)
