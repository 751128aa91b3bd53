"""One HTTP exchange over ASGI: the request's body in, one response out, and a client that may leave in between.

Owns deadlines, limits and the flow of parts. It must never know a route.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Message, Receive, Send

from penstock.servers.deadline import within
from penstock.servers.tgi.errors import BadBody, BodyTooLong

BODY_PIECE_S = 30.0
"""How long each further piece of a body may take."""
SEND_S = 600.0
"""How long a client may stop reading before it is taken for gone. SageMaker ends a stream after 480 s."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` unless the client leaves: then it is cancelled, and there is nobody to tell."""
    task, left = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class ClientLeft(Exception):
    """The client went, or does not read any more: there is nobody to answer."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The request's body, of at most `limit` bytes. Raises BadBody (413, 408), ClientLeft."""
    parts, size = [], 0
    while True:
        try:
            async with asyncio.timeout(BODY_PIECE_S):
                message = await receive()
        except TimeoutError:
            raise BadBody(408, "The request body did not arrive in time") from None
        if message["type"] != "http.request":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLong
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


class Reply:
    """One response."""

    def __init__(self, send: Send, *, head: bool) -> None:
        self._asgi_send = send
        self._head = head

    async def whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        await self._begin(status, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": b"" if self._head else body})

    async def stream(
        self, headers: Mapping[str, str], parts: AsyncGenerator[bytes, None], comment: bytes, every_s: float
    ) -> None:
        """Each part is one chunk, sent at once; `comment` when nothing was sent for `every_s`."""
        await self._begin(200, headers)
        sent = time.monotonic()

        async def keep_alive() -> None:
            nonlocal sent
            while True:
                await asyncio.sleep(sent + every_s - time.monotonic())
                if time.monotonic() - sent >= every_s:
                    sent = time.monotonic()
                    await self._send({"type": "http.response.body", "body": comment, "more_body": True})

        breath = asyncio.create_task(keep_alive())
        try:
            async with aclosing(parts):
                async for part in parts:
                    sent = time.monotonic()
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            breath.cancel()
            await asyncio.gather(breath, return_exceptions=True)
        await self._send({"type": "http.response.body", "body": b""})

    async def _send(self, message: Message) -> None:
        try:
            await within(SEND_S, self._asgi_send(message))
        except TimeoutError:
            raise ClientLeft from None

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
