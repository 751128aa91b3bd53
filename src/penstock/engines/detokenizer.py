"""Token ids to text, one token at a time, without ever showing half a character.

Owns the two offsets that make it work: a token's text can depend on the tokens before it (a leading space, the other bytes of a
character), so each piece is what a small window of tokens decodes to, less what that window decoded to before. It must never know where
the ids come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
CONTEXT = 5
"""Prompt tokens that give the first pieces their surroundings."""
LONGEST_UNFINISHED = 8
"""Signs for bytes without a character that can still turn into one. A byte-level decoder shows the up to three bytes of a half character as
one sign. One that falls back to bytes for unknown characters shows each byte as a sign, those of the character before too."""

LONGEST_WINDOW = 256
"""Tokens that are decoded at once. A run of tokens that never becomes text would otherwise make each step dearer than the one before."""


class Decoder(Protocol):
    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str: ...


class Detokenizer:
    """Pieces of text for one sequence. Joined, they are what the whole decodes to, less a half character at its end."""

    def __init__(self, decoder: Decoder, prompt: Sequence[int] = ()) -> None:
        self._decoder = decoder
        self._window = list(prompt[-CONTEXT:])
        self._read = len(self._window)
        self._shown = len(decoder.decode(self._window)) if self._window else 0
        """Characters of the window's text that are out already, or belong to the prompt."""

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is unfinished."""
        self._window.append(token)
        text = self._decoder.decode(self._window)
        unfinished = len(text) - len(text.rstrip(UNFINISHED))
        end = len(text) if unfinished == 0 else len(text) - min(unfinished, LONGEST_UNFINISHED)
        piece = text[self._shown : end]
        if unfinished == 0 and len(text) > self._shown:
            del self._window[: self._read]
            self._read = len(self._window)
            self._shown = len(self._decoder.decode(self._window))
        else:
            self._shown += len(piece)
            if len(self._window) > LONGEST_WINDOW:
                self._shorten(text[end:])
        return piece

    def _shorten(self, waiting: str) -> None:
        """Go on from the last tokens alone, if what waits is theirs."""
        rest = self._window[-LONGEST_WINDOW // 2 :]
        text = self._decoder.decode(rest)
        if text.endswith(waiting):
            self._window, self._read, self._shown = rest, 0, len(text) - len(waiting)
