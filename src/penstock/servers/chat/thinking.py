"""What a reasoning model thinks before it answers, told apart from the answer.

Owns the marks of each parser, and what a text without them is. It must never know how thoughts are worded for a client.
"""

from __future__ import annotations

from penstock.servers.chat.pieces import Piece, Reader, Said, Thought, beginning

PARSERS = ("deepseek_r1", "qwen3")
_BEGIN, _END = "<think>", "</think>"


class ThinkingReader:
    """One answer: thoughts first, up to their end; the rest goes through `rest`, or is text.

    deepseek_r1 thinks from the start, since its template may have written the mark; qwen3 only after its mark.
    """

    def __init__(self, parser: str, rest: Reader | None = None) -> None:
        self._rest = rest
        self.marks: tuple[str, ...] = (_BEGIN, _END, *(rest.marks if rest else ()))
        self._held = ""
        self._begun = False
        self._thinking = True
        self._needs_mark = parser == "qwen3"

    def push(self, text: str) -> list[Piece]:
        if not self._thinking:
            return self._said(text)
        self._held += text
        if not self._begun and not self._begin():
            return [] if self._thinking else self._said(self._take())
        thought, end, rest = self._held.partition(_END)
        if end:
            self._thinking, self._held = False, ""
            return [*_thought(thought), *(self._said(rest) if rest else [])]
        upto = len(self._held) - beginning(self._held, (_END,))
        thought, self._held = self._held[:upto], self._held[upto:]
        return _thought(thought)

    def end(self) -> list[Piece]:
        left = self._take()
        if self._thinking and (self._begun or not self._needs_mark):
            return [*_thought(left), *(self._rest.end() if self._rest else [])]
        found = self._said(left) if left else []
        return [*found, *(self._rest.end() if self._rest else [])]

    def _begin(self) -> bool:
        """Whether thoughts have begun; what may yet become the mark is held back."""
        stripped = self._held.lstrip()
        if stripped.startswith(_BEGIN):
            self._held, self._begun = stripped.removeprefix(_BEGIN), True
        elif _BEGIN.startswith(stripped):
            return False
        elif self._needs_mark:
            self._thinking = False
        else:
            self._begun = True
        return self._begun

    def _said(self, text: str) -> list[Piece]:
        if self._rest is not None:
            return self._rest.push(text)
        return [Said(text)]

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held


def _thought(text: str) -> list[Piece]:
    return [Thought(text)] if text else []
