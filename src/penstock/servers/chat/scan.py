"""A JSON value that comes in pieces: where it is now, and where it ends.

Owns the counting of braces outside of strings, each character once. It must never know what the value means.
"""

from __future__ import annotations


class Braces:
    """Fed one character at a time. `depth` is how many objects and lists are open, `in_string` whether a string is."""

    __slots__ = ("_escaped", "depth", "in_string")

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self._escaped = False

    def push(self, character: str) -> None:
        if self.in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self.in_string = False
        elif character == '"':
            self.in_string = True
        elif character in "{[":
            self.depth += 1
        elif character in "}]":
            self.depth -= 1
