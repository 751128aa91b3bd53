"""The properties parser against a naive one that walks character by character."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.servers.lmi import properties


class Naive:
    """Java's description of the format, one character at a time, with no cleverness."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.at = 0

    def next(self) -> str:
        """The next character; a backslash brings the one after it along. A joined line comes without the join. Empty at the line's end."""
        while True:
            if self.at >= len(self.text) or self.text[self.at] == "\n":
                return ""
            char = self.text[self.at]
            self.at += 1
            if char != "\\":
                return char
            if self.at >= len(self.text):
                return ""
            following = self.text[self.at]
            self.at += 1
            if following != "\n":
                return "\\" + following
            while self.at < len(self.text) and self.text[self.at] in " \t\f":
                self.at += 1

    def line(self) -> list[str]:
        """One logical line as a list of characters, each escaped one with its backslash."""
        characters = []
        while char := self.next():
            characters.append(char)
        self.at += 1
        return characters

    def lines(self) -> list[list[str]]:
        found = []
        while self.at < len(self.text):
            while self.at < len(self.text) and self.text[self.at] in " \t\f":
                self.at += 1
            if self.text[self.at : self.at + 1] in ("#", "!"):
                while self.at < len(self.text) and self.text[self.at] != "\n":
                    self.at += 1
                self.at += 1
            elif characters := self.line():
                found.append(characters)
        return found


def unescape(characters: list[str]) -> str:
    out, rest = "", list(characters)
    while rest:
        char = rest.pop(0)
        if char == "\\u":
            digits = "".join(rest[:4])
            if len(digits) != 4 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise ValueError(digits)
            del rest[:4]
            out += chr(int(digits, 16))
        elif char.startswith("\\"):
            out += {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(char[1], char[1])
        else:
            out += char
    return out.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def naive(text: str) -> dict[str, str]:
    pairs = {}
    for characters in Naive(text).lines():
        cut = 0
        while cut < len(characters) and characters[cut] not in ("=", ":", " ", "\t", "\f"):
            cut += 1
        value = cut
        while value < len(characters) and characters[value] in (" ", "\t", "\f"):
            value += 1
        if value < len(characters) and characters[value] in ("=", ":"):
            value += 1
            while value < len(characters) and characters[value] in (" ", "\t", "\f"):
                value += 1
        pairs[unescape(characters[:cut])] = unescape(characters[value:])
    return pairs


PIECES = st.sampled_from(
    [
        "key",
        "option.x",
        "a",
        "é",
        "=",
        ":",
        " ",
        "\t",
        "\f",
        "\n",
        "\r",
        "\r\n",
        "#",
        "!",
        "\\",
        "\\\\",
        "\\\n",
        "\\u0041",
        "\\uD83D\\uDE00",
        "\\u00",
        "\\n",
        "1",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_equals_the_naive_parser(text: str) -> None:
    try:
        expected: dict[str, str] | None = naive(text)
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(ValueError, match="hexadecimal"):
            properties.parse(text)
    else:
        assert properties.parse(text) == expected


def test_the_blogs_file() -> None:
    text = """
engine=MPI
option.model_id=tiiuae/falcon-7b-instruct
option.rolling_batch=lmi-dist
option.output_formatter=jsonlines
option.dtype = fp16
# a comment = not a key
! nor this
option.enable_streaming : true
"""
    assert properties.parse(text) == {
        "engine": "MPI",
        "option.model_id": "tiiuae/falcon-7b-instruct",
        "option.rolling_batch": "lmi-dist",
        "option.output_formatter": "jsonlines",
        "option.dtype": "fp16",
        "option.enable_streaming": "true",
    }


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a\\\n   b = c\\\\\n", {"ab": "c\\"}),
        ("a = b\\\n  # no comment here", {"a": "b# no comment here"}),
        ("a\\ b\\=c = d", {"a b=c": "d"}),
        ("key", {"key": ""}),
        ("a = x = y : z ", {"a": "x = y : z "}),
        ("a=1\na=2", {"a": "2"}),
        ("a=b\\", {"a": "b"}),
        ("a=\\u00e9\\uD83D\\uDE00", {"a": "é😀"}),
        ("=v", {"": "v"}),
    ],
)
def test_the_corners(text: str, pairs: dict[str, str]) -> None:
    assert properties.parse(text) == pairs


@pytest.mark.parametrize(("data", "text"), [(b"a=\xc3\xa9", "a=é"), (b"a=\xe9", "a=é"), (b"\xef\xbb\xbfa=1", "a=1")])
def test_utf8_else_latin1(data: bytes, text: str) -> None:
    assert properties.decode(data) == text
