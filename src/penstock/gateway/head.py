"""A request's head as a value, and the rules of RFC 9112 that the parser leaves to us.

Owns what makes a head acceptable. It must never touch a socket or know a service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+;=%\[\]:-]*\Z")
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?\Z")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"))
_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


class BadRequest(Exception):
    """A request that is not HTTP as RFC 9110 and 9112 have it. Its connection cannot be trusted any further."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head(msgspec.Struct, gc=False):
    """One request's head. `headers` has lower-case names, repeated ones joined by commas."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    as_sent: Sequence[tuple[bytes, bytes]] | bytes
    """The headers as they came: names and values, or all their lines but for the last one's end."""
    http11: bool
    keep_alive: bool

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Names and values as they came. Few ask."""
        sent = self.as_sent
        return [_split(line) for line in sent.split(b"\r\n")] if isinstance(sent, bytes) else list(sent)

    def forget(self) -> None:
        """Frees the headers, which nobody needs any more: a stream may live for minutes."""
        self.as_sent = ()
        self.headers = {}

    @property
    def length(self) -> int | None:
        """Bytes of body announced; None when it comes in chunks."""
        return None if "transfer-encoding" in self.headers else int(self.headers.get("content-length", "0"))

    @property
    def expects(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return "expect" in self.headers and self.http11

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


_known = lru_cache(maxsize=1024)(_lower)
"""The same few names come with every request."""


def joined(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their lower-case names, the values of a repeated one joined by commas in the order sent."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key = _known(name) if len(name) < 64 else _lower(name)
        text = str(value, "latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def read_head(method: str, target: bytes, raw: list[tuple[bytes, bytes]], version: str, keep_alive: bool) -> Head:
    """A head that keeps the rules. Raises BadRequest with the status that RFC 9110 asks for."""
    if version not in ("1.1", "1.0"):
        raise BadRequest(505, "Penstock speaks HTTP/1.1.")
    if method not in _METHODS:  # the parser knows those of RTSP and WebDAV too
        raise BadRequest(501, f"Nothing here understands the method {method}.")
    headers = joined(raw)
    path, query, authority = _read_target(method, target.decode("latin-1"))
    if authority:
        headers["host"] = authority
    _check_host(headers, version)
    _check_framing(headers, version)
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise BadRequest(417, "Only the expectation 100-continue can be met.")
    return Head(method, path, query, headers, raw, version == "1.1", keep_alive)


def _read_target(method: str, target: str) -> tuple[str, str, str]:
    """Path, query, and the authority where the target is in absolute form (RFC 9112 §3.2)."""
    authority = ""
    if not target.startswith("/") and (match := _AUTHORITY.match(target)):
        authority, target = match[1], target[match.end() :]
        target = target if target.startswith("/") else "/" + target
    if not target.startswith("/"):
        raise BadRequest(400, f"A request target starts with a slash ({method} {target[:40]!r}).")
    path, _, query = target.partition("?")
    if "#" in target:
        raise BadRequest(400, "A request target has no fragment.")
    return path, query, authority


@lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Whether a Host header may say so."""
    return _HOST.match(text) is not None


def _check_host(headers: dict[str, str], version: str) -> None:
    host = headers.get("host")
    if host is None:
        if version == "1.1":
            raise BadRequest(400, "An HTTP/1.1 request has a Host header.")
        headers["host"] = ""
        return
    if not is_host(host):  # a second Host header would have brought a comma
        raise BadRequest(400, "A request has one Host header, a host and a port.")


def _check_framing(headers: dict[str, str], version: str) -> None:
    """Whatever two readers could frame differently is refused (RFC 9112 §6.3)."""
    encoding = headers.get("transfer-encoding")
    if encoding is not None:
        if "content-length" in headers or version == "1.0":
            raise BadRequest(400, "Transfer-Encoding excludes Content-Length and HTTP/1.0.")
        if encoding.strip().lower() != "chunked":
            raise BadRequest(501, "The only transfer coding understood is chunked.")
    length = headers.get("content-length")
    if length is not None:
        text = length.strip()
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequest(400, "Content-Length is a number.")
        headers["content-length"] = text


def without_upgrade(method: bytes, target: bytes, version: str, raw: list[tuple[bytes, bytes]]) -> bytes:
    """The same head as bytes, but for the offer to change protocols."""
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode())]
    for name, value in raw:
        if name.lower() == b"connection":
            kept = [item for item in value.split(b",") if item.strip().lower() != b"upgrade"]
            value = b",".join(kept)
        if (value or name.lower() != b"connection") and name.lower() != b"upgrade":
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def split_authority(text: str) -> tuple[str, int] | None:
    """Host and port of `host:port`, `[v6]:port` or `host` (port 0); None where it is none of these."""
    match = _HOST_PORT.match(text)
    if match is None:
        return None
    port = int(match[3] or 0)
    return (match[1] or match[2], port) if port < 65536 else None
