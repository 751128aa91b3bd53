"""Heads that hold nothing unusual, read without the parser: what nearly every request and answer looks like.

Owns a reader that either agrees with llhttp or says that it does not know; then llhttp reads the same bytes. It must never judge: whatever
is odd, damaged, incomplete or about the connection itself is not for it. A head that comes again and again is read from memory, line by
line.
"""

from __future__ import annotations

import re
from functools import lru_cache

from penstock._speed import COMPILED
from penstock.gateway.head import Head, is_host

if COMPILED:
    from penstock._speed import native

_REQUEST = re.compile(rb"(POST|GET|PUT|DELETE|HEAD) (/[!\"$-~]*) HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) [\t -~]*")
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*([!-~](?:[ -~]*[!-~])?)")
_UNUSUAL = frozenset(
    ("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)
"""Headers that say how the connection goes on, or how a body is framed."""
_PASSING = frozenset(
    (
        "amz-sdk-invocation-id",
        "authorization",
        "content-length",
        "date",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
    )
)
"""Headers that are others in each request, or secret: not worth or not fit to be kept."""
_MAX_LINES = 2048
_LONGEST_KEPT = 512

_lines: dict[bytes, tuple[str, str]] = {}
"""Lines of heads read before, as name in lower case and value."""


def _read_line(line: bytes) -> tuple[str, str] | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    name = match[1].decode().lower()
    if name in _UNUSUAL:
        return None
    pair = name, match[2].decode()
    if name not in _PASSING and len(line) <= _LONGEST_KEPT:
        if len(_lines) >= _MAX_LINES:
            _lines.clear()
        _lines[line] = pair
    return pair


def _read_headers(lines: list[bytes]) -> dict[str, str] | None:
    """Of all lines but the first. None where one is not of the usual form, or a name comes twice."""
    headers: dict[str, str] = {}
    known = _lines.get
    for line in lines[1:]:
        pair = known(line) or _read_line(line)
        if pair is None:
            return None
        headers[pair[0]] = pair[1]
    return headers if len(headers) == len(lines) - 1 else None


@lru_cache(maxsize=1024)
def _first_line(line: bytes) -> tuple[str, str, str] | None:
    """Method, path and query."""
    match = _REQUEST.fullmatch(line)
    if match is None:
        return None
    path, _, query = match[2].decode().partition("?")
    return match[1].decode(), path, query


def read_request(data: bytes, longest: int) -> tuple[Head, int, int] | None:
    """The head that `data` begins with, where its body begins and how long it is; None where llhttp should look at it.

    `longest` is how many bytes a head may have. What follows the head in `data` is not looked at.
    """
    if not COMPILED:
        return read_request_here(data, longest)
    read = native.request_head(data, longest)
    if read is None:
        return None
    method, path, query, headers, lines, body, length = read
    return Head(method, path, query, headers, data[lines : body - 4], True, True), body, length


def read_request_here(data: bytes, longest: int) -> tuple[Head, int, int] | None:
    """The same in Python."""
    end = data.find(b"\r\n\r\n")
    if not 0 < end <= longest:
        return None
    lines = data[:end].split(b"\r\n")
    first = _first_line(lines[0]) if len(lines[0]) < _LONGEST_KEPT else None
    headers = _read_headers(lines) if first is not None else None
    if first is None or headers is None or not is_host(headers.get("host", ",")):
        return None
    length = headers.get("content-length", "0")
    if not (length.isdigit() and len(length) < 16):
        return None
    as_sent = data[len(lines[0]) + 2 : end]
    return Head(first[0], first[1], first[2], headers, as_sent, True, True), end + 4, int(length)


@lru_cache(maxsize=64)
def _status(line: bytes) -> int | None:
    match = _STATUS.fullmatch(line)
    return int(match[1]) if match is not None else None


def read_answer(data: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """Status, headers and body of an answer that `data` holds whole; None where llhttp should look at it."""
    return native.whole_answer(data) if COMPILED else read_answer_here(data)


def read_answer_here(data: bytes) -> tuple[int, dict[str, str], bytes] | None:
    """The same in Python."""
    end = data.find(b"\r\n\r\n")
    lines = data[:end].split(b"\r\n") if end > 0 else []
    status = _status(lines[0]) if lines and len(lines[0]) < _LONGEST_KEPT else None
    headers = _read_headers(lines) if status is not None and status not in (204, 304) else None
    if status is None or headers is None:
        return None
    length = headers.get("content-length", "")
    if not (length.isdigit() and len(length) < 16 and len(data) - end - 4 == int(length)):
        return None
    return status, headers, data[end + 4 :]
