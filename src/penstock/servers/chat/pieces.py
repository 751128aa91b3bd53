"""What an answer is taken apart into: text, thoughts and calls.

Owns those pieces, what a reader of them is, and the looking for marks in text that comes in pieces. It must never know a dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A piece of a call: its name comes with the first one of its `index`, its arguments, JSON text, in any number."""

    index: int
    arguments: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what a model thinks before it answers."""

    text: str


Piece = Said | Called | Thought


class Reader(Protocol):
    """One answer. `marks` are the special tokens that it has to be shown; it is shown no other."""

    marks: tuple[str, ...]

    def push(self, text: str) -> list[Piece]: ...

    def end(self) -> list[Piece]:
        """What was held back."""
        ...


def mark_at(text: str, marks: tuple[str, ...]) -> tuple[int, str]:
    """Where the first mark stands, and which; without one, how far the text can't be a mark's beginning, and nothing."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    return (min(found)[0], min(found)[2]) if found else (len(text) - beginning(text, marks), "")


def beginning(text: str, marks: tuple[str, ...]) -> int:
    """How many of the last characters may be a mark's first ones."""
    longest = max((len(mark) - 1 for mark in marks), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


def said(text: str) -> list[Piece]:
    return [Said(text)] if text else []
