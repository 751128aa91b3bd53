"""Tokens out of bytes, whatever the model server's format: the format is told from the first bytes.

Owns the detection and the one format that is neither lines nor events: LMI's `json`, one JSON text whose string grows.
It must never know where the bytes come from.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Protocol

from penstock.client.errors import StreamError
from penstock.client.jsons import JsonParser
from penstock.client.shapes import Shapes, Token
from penstock.client.source import BomFilter
from penstock.client.sse import ServerSentEvent, SseParser

_SSE = re.compile(rb"(?:data|event|id|retry)?:")
_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_GROWING = re.compile(rb'\s*\{\s*"generated_text"\s*:\s*"')
_GROWING_COMPACT = b'{"generated_text":"'
_UNDECIDED = 4096  # bytes; a stream that opens with more blanks than this is taken for plain text
# Whole characters and whole escapes of a JSON string; a high surrogate waits for its other half.
_UNITS = re.compile(
    r'(?:[^"\\]++'
    r'|\\["\\/bfnrt]'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[0-9a-fA-F]{4}|(?=[^\\])|(?=\\[^u]))"
    r")*+",
    re.DOTALL,
)
_LONGEST_UNIT = 12  # characters: two \uXXXX


class _Format(Protocol):
    def feed(self, data: bytes) -> Iterator[Token]: ...
    def finish(self) -> Iterator[Token]: ...
    @property
    def rest(self) -> bytes: ...


class TokenParser:
    """Bytes in, tokens out.

    Reads LMI `jsonlines` and `json`, LMI since 0.26, TGI's and OpenAI's server-sent events, whole answers of any of them,
    and plain text. `max_line` bounds a line, an event and a JSON value, in bytes. Errors: see `Shapes`, `JsonParser`.
    """

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._bom = BomFilter()
        self._head = b""
        self._format: _Format | None = None

    def feed(self, data: bytes) -> Iterator[Token]:
        """The tokens which `data` completes."""
        if self._format is None:
            self._head += self._bom.feed(data)
            self._format = _detect(self._head, self._max)
            if self._format is None:
                return
            data, self._head = self._head, b""
        yield from self._format.feed(data)

    def finish(self) -> Iterator[Token]:
        """The last token, where no line end followed it."""
        if self._format is None:
            self._head += self._bom.finish()
            self._format = _Objects(self._max) if self._head.lstrip().startswith(b"{") else _PlainText()
            yield from self._format.feed(self._head)
            self._head = b""
        yield from self._format.finish()

    @property
    def rest(self) -> bytes:
        """The bytes that formed no token yet."""
        return self._format.rest if self._format is not None else self._head or self._bom.held


def _detect(head: bytes, max_line: int) -> _Format | None:
    start = head.lstrip()
    match start[:1]:
        case b"":
            return _PlainText() if len(head) > _UNDECIDED else None
        case b"[":
            return _Objects(max_line)
        case b"{":
            compact = b"".join(start[:_UNDECIDED].split())
            if (
                len(compact) < len(_GROWING_COMPACT)
                and _GROWING_COMPACT.startswith(compact)
                and len(head) <= _UNDECIDED
            ):
                return None
            return _GrowingText(max_line) if _GROWING.match(head) else _Objects(max_line)
        case _:
            if _SSE.match(start):
                return _Events(max_line)
            return None if any(field.startswith(start) for field in _FIELDS) else _PlainText()


class _Events:
    """Server-sent events with a JSON object each: TGI, OpenAI, LMI's `sse`."""

    def __init__(self, max_line: int) -> None:
        self._parser = SseParser(max_line)
        self._shapes = Shapes()
        self._done = False

    def feed(self, data: bytes) -> Iterator[Token]:
        for event in self._parser.feed(data):
            yield from self._event(event)

    def finish(self) -> Iterator[Token]:
        for event in self._parser.finish():
            yield from self._event(event)
        self._shapes.finish()

    def _event(self, event: ServerSentEvent) -> Iterator[Token]:
        if self._done or not event.data.strip():
            return
        if event.data.strip() == "[DONE]":
            self._done = True
            self._shapes.end()
            return
        try:
            value: Any = event.json()
        except (ValueError, RecursionError):
            code = "ModelError" if event.event == "error" else "InvalidJson"
            raise StreamError(code, event.data[:500], origin="container") from None
        yield from self._shapes.read(value)

    @property
    def rest(self) -> bytes:
        return self._parser.rest


class _Objects:
    """JSON values one after the other: LMI's `jsonlines`, and whole answers."""

    def __init__(self, max_line: int, shapes: Shapes | None = None) -> None:
        self._parser = JsonParser(max_line)
        self._shapes = shapes or Shapes()

    def feed(self, data: bytes) -> Iterator[Token]:
        for value in self._parser.feed(data):
            yield from self._shapes.read(value)

    def finish(self) -> Iterator[Token]:
        for value in self._parser.finish():
            yield from self._shapes.read(value)
        self._shapes.finish()

    @property
    def rest(self) -> bytes:
        return self._parser.rest


class _PlainText:
    """Text as it is: LMI with `output_formatter=none`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> Iterator[Token]:
        if text := self._decoder.decode(data):
            yield Token(text)

    def finish(self) -> Iterator[Token]:
        if text := self._decoder.decode(b"", final=True):
            yield Token(text)

    @property
    def rest(self) -> bytes:
        return self._decoder.getstate()[0]


class _GrowingText:
    """LMI's `json`: `{"generated_text": "` at the start, then pieces of the string, then its end and perhaps details.

    A step that fails in LMI 0.23 puts a whole `{"code": 500, "error": …}` behind the open string. The string then seems to
    end with a brace, so a last brace is held back until the character behind the quote has shown which it is.
    """

    def __init__(self, max_line: int) -> None:
        self._max = max_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._started = False
        self._pending = ""
        self._brace = ""
        self._tail: str | None = None  # what follows the string's closing quote, while it is only blanks
        self._objects: _Objects | None = None

    def feed(self, data: bytes) -> Iterator[Token]:
        if not self._started:
            header = _GROWING.match(data)
            assert header is not None
            data, self._started = data[header.end() :], True
        if self._objects is not None:
            yield from self._objects.feed(data)
        elif self._tail is not None:
            yield from self._after(self._decoder.decode(data))
        else:
            yield from self._string(self._pending + self._decoder.decode(data))

    def _string(self, text: str) -> Iterator[Token]:
        found = _UNITS.match(text)
        end = found.end() if found else 0
        closed = text[end : end + 1] == '"'
        self._pending = "" if closed else text[end:]
        piece = self._brace + _unescaped(text[:end])
        self._brace = "{" if piece.endswith("{") else ""
        if piece := piece.removesuffix(self._brace):
            yield Token(piece)
        if len(self._pending) >= _LONGEST_UNIT:
            raise StreamError("InvalidJson", f"not an escape of a JSON string: {self._pending[:_LONGEST_UNIT]}")
        if closed:
            self._tail = ""
            yield from self._after(text[end + 1 :])

    def _after(self, text: str) -> Iterator[Token]:
        assert self._tail is not None
        self._tail += text
        following = self._tail.lstrip()
        if not following:
            return
        if following[0] in ",}":
            opening = '{"generated_text": null'
            if self._brace:
                yield Token(self._brace)
        elif self._brace:
            opening = '{"'
        else:
            raise StreamError("InvalidJson", f"behind the generated text comes {following[0]!r}")
        self._brace = ""
        self._objects = _Objects(self._max)
        undecoded = self._decoder.getstate()[0]
        yield from self._objects.feed((opening + self._tail).encode() + undecoded)

    def finish(self) -> Iterator[Token]:
        if self._objects is None:
            raise StreamError("Truncated", "the stream ended inside the generated text")
        yield from self._objects.finish()

    @property
    def rest(self) -> bytes:
        if self._objects is not None:
            return self._objects.rest
        return (self._brace + self._pending).encode() + self._decoder.getstate()[0]


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        plain: str = json.loads(f'"{text}"', strict=False)
    except ValueError:
        raise StreamError("InvalidJson", f"not a JSON string: {text[:500]}") from None
    # Half a surrogate pair can be neither printed nor stored.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
