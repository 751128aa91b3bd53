"""JSON as the original's deserialiser reads it: strict types, and its wording of what is wrong, with line and column.

Owns the plain-text answers to bodies that are not JSON or not of the right shape. It must never know a request's fields.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from json import JSONDecodeError
from typing import Any, NoReturn, TypeVar

from penstock.servers.tgi.errors import BadBody

T = TypeVar("T")
_value_at = json.JSONDecoder().raw_decode
Path = tuple[str | int, ...]

_CONSTANTS = re.compile(r'"(?:[^"\\]|\\.)*"|NaN|-?Infinity')

_SYNTAX = {
    "Expecting value": ("expected value", "EOF while parsing a value"),
    "Extra data": ("trailing characters", "trailing characters"),
    "Expecting property name enclosed in double quotes": ("key must be a string", "EOF while parsing an object"),
    "Illegal trailing comma before end of object": ("trailing comma", "trailing comma"),
    "Illegal trailing comma before end of array": ("trailing comma", "trailing comma"),
    "Expecting ':' delimiter": ("expected `:`", "EOF while parsing an object"),
    "Expecting ',' delimiter": ("expected `,` or `}`", "EOF while parsing an object"),
    "Unterminated string starting at": ("EOF while parsing a string", "EOF while parsing a string"),
    "Invalid control character at": (
        "control character (\\u0000-\\u001F) found while parsing a string",
        "EOF while parsing a string",
    ),
}


class Mismatch(Exception):
    """A value of the wrong type, and where it is."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path = path
        self.text = text


def check_content_type(value: str | None) -> None:
    """Raises BadBody (415) unless it is `application/json` or `application/…+json`."""
    kind = (value or "").split(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise BadBody(415, "Expected request with `Content-Type: application/json`")


def load(body: bytes) -> Any:
    """The JSON document. Raises BadBody (400)."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _syntax(body.decode("latin-1"), error.start, "invalid unicode code point") from None
    try:
        value = json.loads(text, parse_constant=_constant)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except JSONDecodeError as error:
        words = next((texts for start, texts in _SYNTAX.items() if error.msg.startswith(start)), None)
        inside, at_end = words or ("invalid escape", "EOF while parsing a string")
        ended = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        raise _syntax(text, len(text) if ended else error.pos + 1, at_end if ended else inside) from None
    except UnicodeEncodeError:
        raise _syntax(text, len(text), "lone leading surrogate in hex escape") from None
    except _Constant:
        raise _constant_error(text) from None
    except RecursionError:
        raise _syntax(text, 128, "recursion limit exceeded") from None
    return value


def read_as(body: bytes, read: Callable[[Any], T]) -> T:
    """The JSON document as what `read` makes of it; a Mismatch that it raises becomes a BadBody (422). Raises BadBody."""
    document = load(body)
    try:
        return read(document)
    except Mismatch as mismatch:
        raise shape_error(body, mismatch) from None


def shape_error(body: bytes, mismatch: Mismatch) -> BadBody:
    """422 for JSON of the wrong shape."""
    text = body.decode("utf-8")
    line, column = position(text, _end_of(text, mismatch.path))
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in mismatch.path).lstrip(".")
    prefix = "Failed to deserialize the JSON body into the target type: "
    return BadBody(422, f"{prefix}{where + ': ' if where else ''}{mismatch.text} at line {line} column {column}")


def describe(value: Any) -> str:
    """How the original names a value of the wrong type."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f"string {json.dumps(value, ensure_ascii=False)}"
        case list():
            return "sequence"
    return "map"


def integer(kind: str, least: int, most: int) -> Callable[[Any], int]:
    """A reader of whole numbers of one of Rust's types. It raises Mismatch."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Mismatch((), f"invalid type: {describe(value)}, expected {kind}")
        if not least <= value <= most:
            raise Mismatch((), f"invalid value: {describe(value)}, expected {kind}")
        return value

    return read


def f32(value: Any) -> float:
    """A number in single precision. Raises Mismatch."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Mismatch((), f"invalid type: {describe(value)}, expected f32")
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        single = float("inf") if value > 0 else float("-inf")
    return single


def position(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1, of the last character before `at`; columns count bytes."""
    before = text[:at]
    line = before.count("\n") + 1
    return line, len(before[before.rfind("\n") + 1 :].encode("utf-8"))


class _Constant(Exception):
    pass


def _constant(name: str) -> NoReturn:
    raise _Constant(name)


def _constant_error(text: str) -> BadBody:
    """For the first of Python's own constants that stands outside of strings."""
    found = next(match for match in _CONSTANTS.finditer(text) if not match[0].startswith('"'))
    if found[0].startswith("-"):
        return _syntax(text, found.start() + 2, "invalid number")
    return _syntax(text, found.start() + 1, "expected value")


def _syntax(text: str, at: int, problem: str) -> BadBody:
    line, column = position(text, at)
    return BadBody(400, f"Failed to parse the request body as JSON: {problem} at line {line} column {column}")


def _end_of(text: str, path: Sequence[str | int]) -> int:
    """The index behind the value at `path` of a JSON document."""
    at = _skip(text, 0)
    for part in path:
        at = _enter(text, at, part)
    return int(_value_at(text, at)[1])


def _enter(text: str, at: int, part: str | int) -> int:
    """The index of the member `part` of the object or array that begins at `at`; of a key given twice, the last."""
    found, index, end = at, 0, at + 1
    while text[end := _skip(text, end)] not in "}]":
        key: str | int = index
        if isinstance(part, str):
            key, end = _value_at(text, end)
            end = _skip(text, _skip(text, end) + 1)
        if key == part:
            found = end
        end = _skip(text, _value_at(text, end)[1])
        end += text[end] == ","
        index += 1
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
