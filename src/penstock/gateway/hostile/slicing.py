"""How a stream's bytes are cut into PayloadParts.

Owns the modes and nothing else: bytes in, parts out, no clock and no I/O; randomness comes in as a seed. It must never change,
drop or reorder a byte: joined, the parts are the content, whatever the mode.

AWS promises nothing about the borders of PayloadParts (API reference, `PayloadPart`): a part may hold several of the container's
chunks, or end inside a JSON text, an SSE line or a UTF-8 character. A client that holds under every mode here holds on AWS.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Mode = Literal["as-is", "coalesce", "bytes", "json", "sse", "utf8", "one-byte", "empty", "random"]
MODES: tuple[Mode, ...] = get_args(Mode)

_LARGEST_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Slicing:
    """A mode with its numbers. `size` is chunks for "coalesce", bytes for "bytes", the largest part for "random" (0: 64)."""

    mode: Mode = "as-is"
    size: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError on an unknown mode or a size that the mode can't have."""
        if self.mode not in MODES:
            raise ValueError(f"slicing mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.mode in ("coalesce", "bytes") and not 1 <= self.size <= _LARGEST_SIZE:
            raise ValueError(f"slicing {self.mode!r} needs a size from 1 to {_LARGEST_SIZE}, not {self.size}")
        if not 0 <= self.size <= _LARGEST_SIZE:
            raise ValueError(f"slicing size must be from 0 to {_LARGEST_SIZE}, not {self.size}")


class Slicer(Protocol):
    """Cuts one stream. Holds back at most what its mode says; `flush` gives that up at the end."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The parts to send now that this chunk has come."""
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

    def feed(self, chunk: bytes) -> list[bytes]:
        return list(self._cut(chunk))

    def flush(self) -> list[bytes]:
        return []


class _Coalesce:
    """Several chunks in one part."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        self._held.append(chunk)
        return self.flush() if len(self._held) >= self._count else []

    def flush(self) -> list[bytes]:
        held, self._held = self._held, []
        return [b"".join(held)] if held else []


class _Every:
    """A border every `size` bytes of the stream, and at the end of each chunk, so that nothing is delayed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = size

    def feed(self, chunk: bytes) -> list[bytes]:
        parts, at = [], 0
        while at < len(chunk):
            parts.append(chunk[at : at + self._room])
            at += len(parts[-1])
            self._room = self._room - len(parts[-1]) or self._size
        return parts

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

    def feed(self, chunk: bytes) -> list[bytes]:
        held, at, parts = self._held + chunk, 0, []
        while len(held) - at >= self._want:
            parts.append(held[at : at + self._want])
            at += self._want
            self._want = self._next()
        self._held = held[at:]
        return parts

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
