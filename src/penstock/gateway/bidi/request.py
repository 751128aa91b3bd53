"""A request's header list of HTTP/2, as a head and as the bytes of HTTP/1.1.

Owns what makes it acceptable beyond what the HTTP/2 library checks. It must never touch a connection: whatever is let through here must
mean the same in both versions, so that nothing can be smuggled from one into the other (RFC 9113 §10.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.gateway.head import BadRequest, Head, read_head

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")

Field = tuple[bytes, bytes]


def read_request(fields: Iterable[Field]) -> Head:
    """The head; `raw` begins with the host. Raises BadRequest with the status that RFC 9110 asks for."""
    pseudo: dict[bytes, bytes] = {}
    raw: list[Field] = []
    for name, value in fields:
        if name.startswith(b":"):
            pseudo[name] = value
        elif not _TOKEN.match(name) or not _VALUE.match(value):
            raise BadRequest(400, "A header's name is a token, and its value has no control characters.")
        else:
            raw.append((bytes(name), bytes(value)))
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not _TOKEN.match(method) or not _TARGET.match(target):
        raise BadRequest(400, "A request has a method, and a target that starts with a slash.")
    if method == b"CONNECT":
        raise BadRequest(405, "This port is no proxy.")
    if authority := pseudo.get(b":authority"):
        raw = [field for field in raw if field[0] != b"host"]  # equal to the authority: the library has seen to that
        raw.insert(0, (b"host", bytes(authority)))
    return read_head(method.decode(), bytes(target), raw, "1.1", keep_alive=True)


def as_http1(head: Head, *, body: bool) -> tuple[bytes, bool]:
    """The head for a parser of HTTP/1.1, and whether the body that follows must come in chunks. `body`: whether there is one."""
    chunked = body and "content-length" not in head.headers
    lines = [f"{head.method} {head.target} HTTP/1.1\r\n".encode()]
    lines += [b"%s: %s\r\n" % field for field in head.raw if field[0] != b"te"]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"".join((*lines, b"\r\n")), chunked
