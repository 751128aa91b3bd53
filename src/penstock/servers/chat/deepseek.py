"""DeepSeek V3's calls: between marks of their own, a name, and arguments in a fence.

Owns the reading of that dialect, in pieces. What looks like a call and is none stays text. It must never know how a call is worded for a
client.
"""

from __future__ import annotations

import re
from typing import Literal

from penstock.servers.chat.pieces import Called, Piece, mark_at, said
from penstock.servers.chat.scan import Braces

_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_HEAD = re.compile(rf"[^<]*{_SEPARATOR}([^\n<]+)\n```json\s*(?=\{{)")
LONGEST_HEAD = 512
_BEGINS = (_CALLS, _CALL)


class DeepSeekReader:
    """One answer."""

    marks: tuple[str, ...] = (_CALLS, _CALLS_END, _CALL, _CALL_END, _SEPARATOR)

    def __init__(self) -> None:
        self._held = ""
        self._skipped = ""
        """What was read since the last call, for when it turns out that there is none."""
        self._state: Literal["talk", "between", "head", "arguments"] = "talk"
        self._braces = Braces()
        self._name: str | None = None
        self._count = 0

    def push(self, text: str) -> list[Piece]:
        self._held += text
        found: list[Piece] = []
        while self._held:
            before = (self._held, self._state)
            match self._state:
                case "talk":
                    self._talk(found)
                case "between":
                    self._between(found)
                case "head":
                    self._head(found)
                case "arguments":
                    self._arguments(found)
            if (self._held, self._state) == before:
                break
        return found

    def end(self) -> list[Piece]:
        """Where calls were told, what is left of their fences and marks is no text."""
        left = self._held if self._state == "talk" else ""
        if self._state == "head" or (self._state == "between" and not self._count):
            left = self._skipped + self._held
        self._held = self._skipped = ""
        return said(left)

    def _talk(self, found: list[Piece]) -> None:
        at, mark = mark_at(self._held, _BEGINS)
        found += said(self._held[:at])
        self._held = self._held[at:]
        if mark:
            self._state = "between"

    def _between(self, found: list[Piece]) -> None:
        """Marks, and what is left of a fence; then a call, or text again."""
        stripped = self._held.lstrip(" \t\r\n`")
        self._skip(len(self._held) - len(stripped))
        if any(mark.startswith(stripped) and mark != stripped for mark in self.marks):
            return
        for mark in self.marks[:4]:
            if stripped.startswith(mark):
                self._skip(len(mark))
                if mark == _CALL:
                    self._state = "head"
                if mark == _CALLS_END:
                    self._state = "talk"
                if mark in (_CALL_END, _CALLS_END):
                    self._skipped = ""
                return
        self._give_up(found)

    def _head(self, found: list[Piece]) -> None:
        if match := _HEAD.match(self._held):
            self._name = match[1].strip()
            self._held, self._skipped = self._held[match.end() :], ""
            self._braces, self._state = Braces(), "arguments"
        elif len(self._held) > LONGEST_HEAD or self._held.lstrip().startswith((_CALLS, _CALL, _CALL_END)):
            self._give_up(found)

    def _arguments(self, found: list[Piece]) -> None:
        for at, character in enumerate(self._held):
            self._braces.push(character)
            if self._braces.depth == 0:
                found.append(Called(self._count, self._held[: at + 1], self._name))
                self._held, self._name = self._held[at + 1 :], None
                self._count += 1
                self._state = "between"
                return
        found.append(Called(self._count, self._held, self._name))
        self._held, self._name = "", None

    def _give_up(self, found: list[Piece]) -> None:
        """It was no call after all."""
        mark = next((mark for mark in self.marks if self._held.startswith(mark)), "")
        upto = len(mark) or 1
        found += said(self._skipped + self._held[:upto])
        self._held, self._skipped, self._state = self._held[upto:], "", "talk"

    def _skip(self, length: int) -> None:
        self._skipped += self._held[:length]
        self._held = self._held[length:]
