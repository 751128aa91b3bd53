"""How a stream's bytes are cut into PayloadParts.

Owns the modes and nothing else: bytes in, parts out, no clock and no I/O; randomness comes in as a seed. It must never change,
drop or reorder a byte: joined, the parts are the content, whatever the mode.

AWS promises nothing about the borders of PayloadParts (API reference, `PayloadPart`): a part may hold several of the container's
chunks, or end inside a JSON text, an SSE line or a UTF-8 character. A client that holds under every mode here holds on AWS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Protocol

from penstock.faultplan import LARGEST_SIZE, Slicing


class Slicer(Protocol):
    """Cuts one stream. Holds back at most what its mode says; `flush` gives that up at the end."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The parts to send now that this chunk has come, cut as they are taken; to be exhausted before the next `feed` or `flush`."""
        ...

    def flush(self) -> list[bytes]:
        """What is left when the stream ends."""
        ...


def slicer(slicing: Slicing, seed: int = 0) -> Slicer:
    """A fresh slicer for one stream. `seed` is for "random": the same seed cuts the same bytes at the same places."""
    if slicing.mode == "coalesce":
        return _Coalesce(slicing.size)
    if slicing.mode == "bytes":
        return _Every(slicing.size)
    if slicing.mode == "one-byte":
        return _Every(1)
    if slicing.mode == "random":
        return _Random(seed, slicing.size or 64)
    return _PerChunk(
        {"as-is": _whole, "empty": _with_empty, "json": _inside_json, "sse": _inside_lines, "utf8": _inside_characters}[
            slicing.mode
        ]
    )


class _PerChunk:
    """Modes that cut each chunk by itself and hold nothing back."""

    def __init__(self, cut: Callable[[bytes], Iterator[bytes]]) -> None:
        self._cut = cut

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        return self._cut(chunk)

    def flush(self) -> list[bytes]:
        return []


class _Coalesce:
    """Several chunks in one part, which is given up early where it would hold more than 1 MiB."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._held.append(chunk)
        full = len(self._held) >= self._count or sum(map(len, self._held)) >= LARGEST_SIZE
        return iter(self.flush() if full else ())

    def flush(self) -> list[bytes]:
        held, self._held = self._held, []
        return [b"".join(held)] if held else []


class _Every:
    """A border every `size` bytes of the stream, and at the end of each chunk, so that nothing is delayed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = size

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(chunk):
            part = chunk[at : at + self._room]
            at += len(part)
            self._room = self._room - len(part) or self._size
            yield part

    def flush(self) -> list[bytes]:
        return []


class _Random:
    """Parts of random lengths that neither begin nor end where chunks do.

    The same seed gives the same borders, however the bytes came in chunks: lengths are drawn along the stream, and what does not
    fill a part waits for more.
    """

    def __init__(self, seed: int, largest: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._largest = largest
        self._held = b""
        self._want = self._next()

    def _next(self) -> int:
        # Half of the parts are short: borders inside tokens and characters are what hurts.
        return self._draw.randint(1, 4) if self._draw.random() < 0.5 else self._draw.randint(1, self._largest)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        held, at = self._held + chunk, 0
        while len(held) - at >= self._want:
            part = held[at : at + self._want]
            at += self._want
            self._want = self._next()
            yield part
        self._held = held[at:]

    def flush(self) -> list[bytes]:
        held, self._held = self._held, b""
        return [held] if held else []


def _whole(chunk: bytes) -> Iterator[bytes]:
    yield chunk


def _with_empty(chunk: bytes) -> Iterator[bytes]:
    """An empty part before and after each chunk's."""
    yield b""
    yield chunk
    yield b""


def _inside_json(chunk: bytes) -> Iterator[bytes]:
    """Borders after each `{`, inside each quoted word and inside each number: a part is never a whole JSON text."""
    start = 0
    for i in range(1, len(chunk)):
        before, after = chunk[i - 1 : i], chunk[i : i + 1]
        if before in b'{"\\' or (before.isdigit() and after.isdigit()):
            yield chunk[start:i]
            start = i
    yield chunk[start:]


def _inside_lines(chunk: bytes) -> Iterator[bytes]:
    """Borders inside the field name (`da|ta:`), after the colon, and between the newlines that end an event."""
    start = 0
    for i in range(1, len(chunk)):
        before, after = chunk[i - 1 : i], chunk[i : i + 1]
        inside_name = chunk[max(0, i - 2) : i + 2] == b"data"
        if inside_name or before == b":" or (before in b"\r\n" and after in b"\r\n"):
            yield chunk[start:i]
            start = i
    yield chunk[start:]


def _inside_characters(chunk: bytes) -> Iterator[bytes]:
    """A border before each continuation byte: no character of more than one byte arrives whole. ASCII is left alone."""
    start = 0
    for i in range(1, len(chunk)):
        if chunk[i] & 0xC0 == 0x80:
            yield chunk[start:i]
            start = i
    yield chunk[start:]
