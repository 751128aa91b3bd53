"""TGI's routes, as one ASGI application.

Owns paths, methods, headers and the reading of bodies; a client that leaves cancels what it asked for. It must never know how text
is generated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from penstock.servers.tgi import metrics
from penstock.servers.tgi.errors import BadBody, TgiError
from penstock.servers.tgi.info import info_json
from penstock.servers.tgi.schema import Request, read_request
from penstock.servers.tgi.serde import check_content_type
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.shapes import error_json, keep_alive

KEEP_ALIVE_S = 15.0
BODY_PIECE_S = 30.0
"""How long each further piece of a body may take."""
SEND_S = 600.0
"""How long a client may stop reading before it is taken for gone. SageMaker ends a stream after 480 s."""
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_HEALTH = ("/", "/health", "/ping")
_POST = ("/", "/invocations", "/generate", "/generate_stream")
_GET = (*_HEALTH, "/info", "/metrics")
_UNHEALTHY = TgiError(503, "unhealthy", "healthcheck")


class App:
    """Serves `service`, once the lifespan's start has made one. `failure` says why it did not."""

    def __init__(self, start: Callable[[], Awaitable[Service]], *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        """`start` loads the model; it raises StartFailed."""
        self._start = start
        self._keep_alive_s = keep_alive_s
        self._service: Service | None = None
        self.failure = ""

    @property
    def service(self) -> Service:
        assert self._service is not None, "the lifespan has not begun"
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        with contextlib.suppress(ClientLeft):
            await self._serve(scope, receive, _Reply(send, head=scope["method"] == "HEAD"))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._service = await self._start()
        except StartFailed as error:
            self.failure = str(error)
            await send({"type": "lifespan.startup.failed", "message": self.failure})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._service.generation.engine.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        method, path = scope["method"], scope["path"]
        try:
            match method:
                case "GET" | "HEAD" if path in _GET:
                    await self._get(path, reply)
                case "POST" if path in _POST:
                    await self._post(path, Headers(scope=scope), receive, reply)
                case _ if path in _GET or path in _POST:
                    allowed = [m for m, paths in (("GET,HEAD", _GET), ("POST", _POST)) if path in paths]
                    await reply.whole(405, b"", {"allow": ",".join(allowed)})
                case _:
                    await reply.whole(404, b"", {})
        except BadBody as error:
            await reply.whole(error.status, error.text.encode(), {"content-type": _TEXT})
        except TgiError as error:
            await reply.whole(error.status, error_json(error).encode(), {"content-type": _JSON})

    async def _get(self, path: str, reply: _Reply) -> None:
        if path in _HEALTH:
            if not self.service.generation.engine.ready:
                raise _UNHEALTHY
            await reply.whole(200, b"", {})
        elif path == "/info":
            await reply.whole(200, info_json(self.service).encode(), {"content-type": _JSON})
        else:
            await reply.whole(200, self.service.metrics.render(), {"content-type": metrics.CONTENT_TYPE})

    async def _post(self, path: str, headers: Headers, receive: Receive, reply: _Reply) -> None:
        settings = self.service.settings
        if settings.api_key and headers.get("authorization") != f"Bearer {settings.api_key}":
            await reply.whole(401, b"", {})
            return
        check_content_type(headers.get("content-type"))
        body = await read_body(receive, settings.payload_limit)
        compatible = path in ("/", "/invocations")
        request = read_request(body, settings.level, with_stream=compatible)
        if compatible and request.parameters.return_full_text is None:
            full = settings.level.full_text_without_tag or settings.pipeline_tag == "text-generation"
            request = replace(request, parameters=replace(request.parameters, return_full_text=full))
        if path == "/generate_stream" or request.stream:
            await while_connected(receive, self._stream(request, reply))
        else:
            await while_connected(receive, self._answer(request, reply, as_list=compatible))

    async def _answer(self, request: Request, reply: _Reply, *, as_list: bool) -> None:
        answer = await self.service.answer(request)
        json = f"[{answer.json}]" if as_list else answer.json
        await reply.whole(200, json.encode(), {"content-type": _JSON, **answer.headers})

    async def _stream(self, request: Request, reply: _Reply) -> None:
        headers = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-compute-type": self.service.settings.compute_type,
            "x-compute-characters": str(len(request.inputs)),
            "x-accel-buffering": "no",
        }
        comment = keep_alive(self.service.settings.level)
        await reply.stream(headers, self.service.events(request), comment, self._keep_alive_s)


class StartFailed(Exception):
    """The model can't be served; the message is the endpoint's FailureReason."""


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
            raise BadBody(413, "Failed to buffer the request body: length limit exceeded")
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


class _Reply:
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
            async with asyncio.timeout(SEND_S):
                await self._asgi_send(message)
        except TimeoutError:
            raise ClientLeft from None

    async def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
