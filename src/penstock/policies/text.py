"""The strings of a policy: wildcards and variables.

Owns `*`, `?` and `${…}`. Pure. AWS: "IAM policy elements: Variables and tags".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, tuple[str, ...]]
"""A request's context: by key in lower case."""

_PIECE = re.compile(r"(?P<name>\$\{[^}]*\})|(?P<wild>[*?])|(?P<plain>[^*?$]+|\$)")
_VARIABLE = re.compile(r"\$\{\s*(?P<key>[^,}]+?)\s*(?:,\s*'(?P<default>[^']*)'\s*)?\}")


class Text:
    """A string of a policy. `wild`: `*` and `?` stand for others; `variables`: `${key}` stands for the context's value."""

    __slots__ = ("_fixed", "_pieces", "text")

    def __init__(self, text: str, *, variables: bool, wild: bool = True) -> None:
        self.text = text
        self._pieces = tuple(_pieces(text, variables=variables, wild=wild))
        self._fixed = None if any(kind == "key" for kind, _, _ in self._pieces) else self._join({})

    def pattern(self, values: Values, flags: int = 0) -> re.Pattern[str]:
        """The expression that what matches this text matches. A variable without a value matches nothing."""
        source = self._fixed if self._fixed is not None else self._join(values)
        return _compile(source if source is not None else r"(?!)", flags)

    def matches(self, text: str, values: Values, flags: int = 0) -> bool:
        return self.pattern(values, flags).fullmatch(text) is not None

    def plain(self, values: Values) -> str | None:
        """The text with its variables filled in, of one that has no wildcards; None where a value is missing."""
        found = [_value(text, default, values) if kind == "key" else text for kind, text, default in self._pieces]
        return None if None in found else "".join(part for part in found if part is not None)

    def _join(self, values: Values) -> str | None:
        source = ""
        for kind, text, default in self._pieces:
            if kind == "wild":
                source += ".*" if text == "*" else "."
            elif kind == "plain":
                source += re.escape(text)
            elif (value := _value(text, default, values)) is not None:
                source += re.escape(value)
            else:
                return None
        return source


def _pieces(text: str, *, variables: bool, wild: bool) -> list[tuple[str, str, str | None]]:
    """Kind (plain, wild, key), text and a variable's default."""
    found: list[tuple[str, str, str | None]] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if match["name"] and variables:
            variable = _VARIABLE.fullmatch(piece)
            if piece in ("${*}", "${?}", "${$}"):
                found.append(("plain", piece[2], None))
            elif variable is not None:
                found.append(("key", variable["key"].lower(), variable["default"]))
            else:
                found.append(("plain", piece, None))
        elif match["wild"] and wild:
            found.append(("wild", piece, None))
        else:
            found += [("plain", piece, None)] if not (match["name"] and wild) else _pieces_of_braces(piece)
    return found


def _pieces_of_braces(piece: str) -> list[tuple[str, str, str | None]]:
    """`${…}` where there are no variables: only its wildcards mean something."""
    return [("wild" if c in "*?" else "plain", c, None) for c in piece]


def _value(key: str, default: str | None, values: Values) -> str | None:
    there = values.get(key, ())
    return there[0] if len(there) == 1 else default


@functools.lru_cache(maxsize=4096)
def _compile(source: str, flags: int) -> re.Pattern[str]:
    return re.compile(source, re.DOTALL | flags)


def as_list(value: Any) -> list[Any]:
    """AWS lets a single value stand for a list of one."""
    return value if isinstance(value, list) else [value]
