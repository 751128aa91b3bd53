"""The form of a tape, version 1: one JSON object a line, in UTF-8.

Owns the schema (docs/tapes.md), reading line by line in bounded memory, writing, and naming what is wrong. It must never open a file.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import msgspec

VERSION = 1
LONGEST_LINE = 48 * 1024 * 1024
"""Bytes; more than the largest frame of AWS's event streams takes in base64."""

How = Literal["clean", "reset", "timeout", "damaged", "broken"]
"""How a stream ended without an error of the service's."""


class TapeError(ValueError):
    """A tape that is none. `line` is counted from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked. `body` None was not recorded."""

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line: what was invoked, and how the answer began. Header names are in lower case; `recorded` is ISO 8601."""

    endpoint: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    request: Request = field(default_factory=Request)
    recorded: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A PayloadPart, `t` ms after the request was sent."""

    t: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """The service's error, in place of a stream (status 400 and up) or in its middle. `members` are the error's own, by AWS's names."""

    t: float
    code: str
    message: str
    members: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edge:
    """The end of the stream without an error of the service's. `why` is for people."""

    t: float
    how: How
    why: str = ""


Line = Head | Part | Failure | Edge


class _Bytes(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    text: str | None = None
    base64: str | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    url: str = ""
    headers: dict[str, str] = {}
    body: _Bytes | None = None


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    tape: int
    endpoint: str
    status: int
    headers: dict[str, str] = {}
    request: _Request = msgspec.field(default_factory=_Request)
    recorded: str = ""


class _Error(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    code: str
    message: str
    members: dict[str, str | int] = {}


class _Event(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    t: float
    text: str | None = None
    base64: str | None = None
    error: _Error | None = None
    end: How | None = None
    why: str = ""


_encode = msgspec.json.Encoder().encode
_heads = msgspec.json.Decoder(_Head)
_events = msgspec.json.Decoder(_Event)


def write(line: Line) -> bytes:
    """A line with its line feed."""
    match line:
        case Head():
            body = None if line.request.body is None else _Bytes(*_spelling(line.request.body))
            request = _Request(line.request.url, line.request.headers, body)
            return _encode(_Head(VERSION, line.endpoint, line.status, line.headers, request, line.recorded)) + b"\n"
        case Part():
            return _encode(_Event(line.t, *_spelling(line.content))) + b"\n"
        case Failure():
            return _encode(_Event(line.t, error=_Error(line.code, line.message, line.members))) + b"\n"
        case Edge():
            return _encode(_Event(line.t, end=line.how, why=line.why)) + b"\n"


def _spelling(content: bytes) -> tuple[str | None, str | None]:
    """As text where the bytes are whole UTF-8, else in base64."""
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def read(file: BinaryIO) -> Iterator[Line]:
    """The lines of a tape, its Head first and a Failure or an Edge last. Raises TapeError at the first line that breaks a rule."""
    number, ended, latest = 0, False, 0.0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise TapeError(number, f"a line has at most {LONGEST_LINE} bytes")
        if ended:
            raise TapeError(number, "nothing follows the end")
        if number == 1:
            yield _head(raw)
            continue
        event = _event(number, raw)
        if event.t < latest:
            raise TapeError(number, f"`t` is {event.t:g}, before the line above ({latest:g})")
        latest, ended = event.t, not isinstance(event, Part)
        yield event
    if number == 0:
        raise TapeError(1, "the tape is empty")
    if not ended:
        raise TapeError(number, "the tape stops without an end: an `error` or an `end` comes last")


def _head(raw: bytes) -> Head:
    try:
        found = _heads.decode(raw)
        if found.tape != VERSION:
            raise TapeError(1, f"this is version {found.tape}, and only {VERSION} is known")
        body = None if found.request.body is None else _content(found.request.body.text, found.request.body.base64)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise TapeError(1, f"not the head of a tape: {error}") from None
    except _Wrong as error:
        raise TapeError(1, f"the request's body: {error}") from None
    request = Request(url=found.request.url, headers=found.request.headers, body=body)
    if not 100 <= found.status <= 599:
        raise TapeError(1, f"`status` must be from 100 to 599, not {found.status}")
    return Head(
        endpoint=found.endpoint, status=found.status, headers=found.headers, request=request, recorded=found.recorded
    )


class _Wrong(ValueError):
    """Bytes that are spelt wrong."""


def _content(text: str | None, encoded: str | None) -> bytes:
    if (text is None) == (encoded is None):
        raise _Wrong("exactly one of `text` and `base64` is needed")
    if text is not None:
        return text.encode()
    assert encoded is not None
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise _Wrong(f"`base64`: {error}") from None


def _event(number: int, raw: bytes) -> Part | Failure | Edge:
    try:
        found = _events.decode(raw)
        kinds = [found.text is not None or found.base64 is not None, found.error is not None, found.end is not None]
        if sum(kinds) != 1:
            raise _Wrong("exactly one of `text`, `base64`, `error` and `end` is needed")
        if not 0 <= found.t < float("inf"):
            raise _Wrong(f"`t` must be milliseconds from 0 on, not {found.t:g}")
        if found.error is not None:
            return Failure(found.t, found.error.code, found.error.message, found.error.members)
        if found.end is not None:
            return Edge(found.t, found.end, found.why)
        return Part(found.t, _content(found.text, found.base64))
    except (msgspec.MsgspecError, UnicodeError, _Wrong) as error:
        raise TapeError(number, str(error)) from None


def problems(file: BinaryIO) -> list[str]:
    """What is wrong with a tape, in one line that names the place; empty when nothing is."""
    try:
        for _ in read(file):
            pass
    except TapeError as error:
        return [str(error)]
    return []
