"""Java properties: the syntax of `serving.properties`.

Owns the grammar only ("java.util.Properties.load"). It must never know what a key means.
"""

from __future__ import annotations

import re

_BLANK = " \t\f"
_LINE_END = re.compile(r"\r\n|\r|\n")
_PAIR = re.compile(r"(?P<key>(?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(?P<value>.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|u|.)", re.DOTALL)
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def decode(data: bytes) -> str:
    """The text of a properties file: UTF-8 where it is that, else Latin-1, which is what Java reads."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse(text: str) -> dict[str, str]:
    """Keys and values, both unescaped; the last of several equal keys wins. Raises ValueError on a broken unicode escape."""
    pairs: dict[str, str] = {}
    for line in _logical_lines(text):
        match = _PAIR.match(line)
        assert match is not None, "the pattern matches any line"
        pairs[_unescape(match["key"])] = _unescape(match["value"])
    return pairs


def _logical_lines(text: str) -> list[str]:
    """Lines joined where one ends in an odd number of backslashes; comments and blank ones left out."""
    lines: list[str] = []
    pending: str | None = None
    for natural in _LINE_END.split(text):
        line = natural.lstrip(_BLANK)
        if pending is None and (not line or line[0] in "#!"):
            continue
        whole = (pending or "") + line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pending = whole[:-1]
        else:
            lines.append(whole)
            pending = None
    if pending is not None:
        lines.append(pending)
    return [line for line in lines if line]


def _unescape(text: str) -> str:
    return _combine(_ESCAPE.sub(_replace, text)) if "\\" in text else text


def _replace(match: re.Match[str]) -> str:
    escape = match[1]
    if escape == "u":
        raise ValueError("a \\u escape needs four hexadecimal digits")
    if len(escape) == 5:
        return chr(int(escape[1:], 16))
    return _LETTERS.get(escape, escape)


def _combine(text: str) -> str:
    """Java's strings are UTF-16: two escapes that are a surrogate pair are one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
