"""What goes back over HTTP: DJL Serving's headers, its JSON, its chunks.

Owns the bytes of a response, and the watch over the client while one is made: a client that leaves cancels the work for it. It must
never know what the work is.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Message, Receive, Send

from penstock.servers.deadline import within
from penstock.servers.lmi.errors import BadRequest, LmiError, TooLarge

MAX_BODY = 64 * 1024 * 1024
BODY_PIECE_TIMEOUT_S = 60.0
SEND_TIMEOUT_S = 600.0
"""How long a client may stop reading before its stream is cut."""


_BODILESS = (204, 304)


class Pieces(Protocol):
    """A body in pieces. Closing it, begun or not, ends the work behind it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A response. An iterator as `body` is sent one HTTP chunk a piece."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Pieces = b""
    queued_s: float = 0.0
    """How long the request waited for a worker."""
    batch: int = 1
    """How many requests were answered together."""


def pretty(value: object) -> bytes:
    """JSON as the server itself writes it: two spaces, a space after the colon, a line end."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def json_reply(value: object, status: int = 200) -> Reply:
    """A JSON body of the server's own."""
    return Reply(status, {"Content-Type": "application/json"}, pretty(value))


def error_reply(error: LmiError) -> Reply:
    """The one place where an error becomes bytes."""
    return json_reply({"code": error.status, "type": error.type, "message": error.message}, error.status)


async def read_body(receive: Receive, headers: Mapping[str, str], most: int = MAX_BODY) -> bytes:
    """The request's body. Raises TooLarge over `most` bytes, before it is all read; BadRequest when it does not come."""
    if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", "0")) > most:
        raise TooLarge(f"The body has more than {most} bytes.")
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout(BODY_PIECE_TIMEOUT_S):
                message = await receive()
        except TimeoutError:
            raise BadRequest("The body did not arrive in time.") from None
        if message["type"] == "http.disconnect":
            raise BadRequest("The client left before its body had come.")
        body += message.get("body", b"")
        if len(body) > most:
            raise TooLarge(f"The body has more than {most} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


class _ClientLeft(Exception):
    """Ends the task group of a request whose client has gone."""


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block unless the client leaves: then the block is cancelled, and the context ends quietly."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_left(receive))
            yield
            watch.cancel()
    except* _ClientLeft:
        pass


async def _left(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientLeft


async def send_reply(reply: Reply, send: Send) -> None:
    """Send it whole; an iterator is closed whatever happens. What it raises after its first piece cuts the connection."""
    if isinstance(reply.body, bytes) or reply.status in _BODILESS:
        body = reply.body if isinstance(reply.body, bytes) and reply.status not in _BODILESS else b""
        if not isinstance(reply.body, bytes):
            await reply.body.aclose()
        await _send(send, _start(reply, len(body)))
        await _send(send, {"type": "http.response.body", "body": body})
        return
    async with aclosing(reply.body) as pieces:
        await _send(send, _start(reply, None))
        async for piece in pieces:
            if piece:
                await _send(send, {"type": "http.response.body", "body": piece, "more_body": True})
        await _send(send, {"type": "http.response.body", "body": b""})


async def _send(send: Send, message: Message) -> None:
    await within(SEND_TIMEOUT_S, send(message))


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
"""What only the server can know; a handler's own would break the response apart."""


def clean_headers(given: Mapping[str, str]) -> dict[str, str]:
    """A model's headers as they may be sent: the last of each name, whatever its case, on one line, and none about the connection."""
    kept: dict[str, tuple[str, str]] = {}
    for name, value in given.items():
        if _TOKEN.fullmatch(name) and name.lower() not in _FRAMING:
            kept[name.lower()] = (name, re.sub(r"[\x00-\x08\x0a-\x1f\x7f]+", " ", value).strip())
    return dict(kept.values())


def _start(reply: Reply, length: int | None) -> Message:
    headers = {
        "x-request-id": str(uuid.uuid4()),
        "Pragma": "no-cache",
        "Cache-Control": "no-cache; no-store, must-revalidate, private",
        "Expires": "Thu, 01 Jan 1970 00:00:00 UTC",
    }
    headers = clean_headers({**reply.headers, **headers})
    if length is not None and reply.status not in _BODILESS:
        headers["content-length"] = str(length)
    # An error inside a stream keeps the connection, as the original does; any other closes it.
    headers["connection"] = "close" if reply.status >= 400 and length is not None else "keep-alive"
    return {
        "type": "http.response.start",
        "status": reply.status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()],
    }
