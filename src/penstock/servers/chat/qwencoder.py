"""Qwen3 Coder's calls: XML whose values are bare text, which only the function's schema makes numbers or lists.

Owns the reading of that dialect. A call comes whole, at its end. What looks like a call and is none stays text. It must never know how a
call is worded for a client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from penstock.servers.chat.pieces import Called, Piece, beginning, mark_at, said

_CALL, _CALL_END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_BEGINS = (_CALL, _FUNCTION)
_WHOLE = re.compile(rf"(?:{_CALL})?\s*{_FUNCTION}([^>\n]+)>(.*)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_NOT_TEXT = {"integer", "int", "number", "float", "boolean", "bool", "object", "array", "null"}


class QwenCoderReader:
    """One answer. `functions` are the schemas of their parameters by name."""

    marks: tuple[str, ...] = (_CALL, _CALL_END)

    def __init__(self, functions: Mapping[str, Any]) -> None:
        self._functions = functions
        self._held = ""
        self._body: list[str] = []
        """A call so far, whose last piece may hold the beginning of its end."""
        self._state: Literal["talk", "begin", "body", "ended", "tail"] = "talk"
        self._count = 0

    def push(self, text: str) -> list[Piece]:
        self._held += text
        found: list[Piece] = []
        while self._held:
            before = (self._held, self._state)
            match self._state:
                case "talk":
                    self._talk(found)
                case "begin":
                    self._begin(found)
                case "body":
                    self._read(found)
                case "ended":
                    self._after()
                case "tail":
                    self._tail()
            if (self._held, self._state) == before:
                break
        return found

    def end(self) -> list[Piece]:
        rest = "".join(self._body) + self._held
        self._held, self._body = "", []
        return [] if self._state == "ended" and _CALL_END.startswith(rest.strip()) else said(rest)

    def _talk(self, found: list[Piece]) -> None:
        at, mark = mark_at(self._held, _BEGINS)
        found += said(self._held[:at])
        self._held = self._held[at:]
        if mark:
            self._state = "begin"

    def _begin(self, found: list[Piece]) -> None:
        """A mark: a function follows, or it is text."""
        inner = self._held.removeprefix(_CALL).lstrip()
        if inner.startswith(_FUNCTION):
            self._state = "body"
        elif not _FUNCTION.startswith(inner):
            found += said(self._held[:1])
            self._held, self._state = self._held[1:], "talk"

    def _read(self, found: list[Piece]) -> None:
        """A call's text is looked at once, however long it is."""
        window = (self._body.pop() if self._body else "") + self._held
        at = window.find(_FUNCTION_END)
        if at < 0:
            keep = beginning(window, (_FUNCTION_END,))
            self._body += [window[: len(window) - keep], window[len(window) - keep :]]
            self._held = ""
            return
        body = "".join(self._body) + window[:at]
        self._body, self._held, self._state = [], window[at + len(_FUNCTION_END) :], "ended"
        match = _WHOLE.fullmatch(body)
        if match is None:
            found += said(body + _FUNCTION_END)
            return
        name = match[1].strip()
        properties = _properties(self._functions.get(name))
        values = {key.strip(): _value(text, properties.get(key.strip())) for key, text in _PARAMETER.findall(match[2])}
        found.append(Called(self._count, json.dumps(values, ensure_ascii=False), name))
        self._count += 1

    def _after(self) -> None:
        """A call's own end, and the line ends round it, are no text."""
        stripped = self._held.lstrip()
        if stripped.startswith(_CALL_END):
            self._held, self._state = stripped.removeprefix(_CALL_END), "tail"
        elif not _CALL_END.startswith(stripped):
            self._held, self._state = stripped, "talk"

    def _tail(self) -> None:
        self._held = self._held.lstrip("\r\n")
        if self._held:
            self._state = "talk"


def _properties(schema: Any) -> Mapping[str, Any]:
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _value(text: str, schema: Any) -> Any:
    """A parameter's value: text, unless its schema says another type and the text is of it."""
    text = text.removeprefix("\n").removesuffix("\n")
    if not isinstance(schema, Mapping):
        return text
    kinds = schema.get("type")
    named = set(kinds) if isinstance(kinds, list) else {kinds} if isinstance(kinds, str) else set()
    if "string" in named and text.strip() != "null":
        return text
    if not named & _NOT_TEXT and not {"anyOf", "oneOf", "allOf", "$ref"} & set(schema):
        return text
    word = text.strip()
    try:
        return json.loads(word.lower() if word in ("True", "False", "None") else word)
    except (ValueError, RecursionError):
        return text
