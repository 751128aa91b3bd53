"""TGI's routes, as one ASGI application.

Owns paths, methods, headers and which body goes where; a client that leaves cancels what it asked for. It must never know how text
is generated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from penstock.servers.apart import Apart, NotRead, heavy
from penstock.servers.tgi import bodies, metrics, openapi, tokenize, vertex
from penstock.servers.tgi.bodies import VertexRequest
from penstock.servers.tgi.chat_schema import ChatRequest, CompletionRequest
from penstock.servers.tgi.errors import BadBody, BodyTooLong, TgiError
from penstock.servers.tgi.exchange import ClientLeft, Reply, read_body, while_connected
from penstock.servers.tgi.info import info_json, models_json
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.openai import OpenAi, Stream
from penstock.servers.tgi.schema import Request
from penstock.servers.tgi.serde import check_content_type
from penstock.servers.tgi.service import Answer, Service
from penstock.servers.tgi.shapes import error_json, keep_alive

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
SHORT_BODY = 64 * 1024
"""Bytes. A body up to here is read on the event loop, whatever is in it."""
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_HEALTH = ("/", "/health", "/ping")
_DOCS = ("/docs", "/docs/")
_OPENAPI = "/api-doc/openapi.json"
_UNHEALTHY = TgiError(503, "unhealthy", "healthcheck")


class App:
    """Serves `service`, once the lifespan's start has made one. `failure` says why it did not."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Service]],
        *,
        keep_alive_s: float = KEEP_ALIVE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`start` loads the model; it raises StartFailed. `now` is the time in seconds since 1970."""
        self._start = start
        self._keep_alive_s = keep_alive_s
        self._now = now
        self._service: Service | None = None
        self._apart = Apart()
        self._get_paths: frozenset[str] = frozenset()
        self._post_paths: frozenset[str] = frozenset()
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
            await self._serve(scope, receive, Reply(send, head=scope["method"] == "HEAD"))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            self._service = await self._start()
        except Exception as error:
            # Whatever it is, the endpoint must say why it has failed.
            if not isinstance(error, StartFailed):
                log.exception("the model could not be loaded")
            self.failure = str(error) or type(error).__name__
            await send({"type": "lifespan.startup.failed", "message": self.failure})
            return
        self._get_paths, self._post_paths = (
            get_paths(self.service.settings.level),
            post_paths(self.service.settings.level),
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._service.generation.engine.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        method, path = scope["method"], scope["path"]
        gets, posts = path in self._get_paths, path in self._post_paths
        try:
            match method:
                case "GET" | "HEAD" if gets:
                    await self._get(path, reply)
                case "POST" if posts:
                    await self._post(path, Headers(scope=scope), receive, reply)
                case _ if gets or posts:
                    allowed = [m for m, has in (("GET,HEAD", gets), ("POST", posts)) if has]
                    await reply.whole(405, b"", {"allow": ",".join(allowed)})
                case _:
                    await reply.whole(404, b"", {})
        except BadBody as error:
            await reply.whole(error.status, error.text.encode(), {"content-type": _TEXT})
        except TgiError as error:
            await reply.whole(error.status, error_json(error).encode(), {"content-type": _JSON})

    async def _get(self, path: str, reply: Reply) -> None:
        if path in _HEALTH:
            if not self.service.generation.engine.ready:
                raise _UNHEALTHY
            await reply.whole(200, b"", {})
        elif path == "/info":
            await reply.whole(200, info_json(self.service).encode(), {"content-type": _JSON})
        elif path in _DOCS:
            await reply.whole(200, openapi.page(self._get_paths, self._post_paths).encode(), {"content-type": _HTML})
        elif path == _OPENAPI:
            document = openapi.document(self.service.settings.level, self._get_paths, self._post_paths)
            await reply.whole(200, document.encode(), {"content-type": _JSON})
        elif path == "/v1/models":
            await reply.whole(200, models_json(self.service).encode(), {"content-type": _JSON})
        else:
            await reply.whole(200, self.service.metrics.render(), {"content-type": metrics.CONTENT_TYPE})

    async def _post(self, path: str, headers: Headers, receive: Receive, reply: Reply) -> None:
        settings = self.service.settings
        # The original counts /chat_tokenize among the routes that tell of the server, and asks no key for those.
        if (
            settings.api_key
            and path != "/chat_tokenize"
            and headers.get("authorization") != f"Bearer {settings.api_key}"
        ):
            await reply.whole(401, b"", {})
            return
        check_content_type(headers.get("content-type"))
        body = await read_body(receive, settings.payload_limit)
        openai = OpenAi(self.service, self._now)
        match asked := await self._asked(path, body):
            case VertexRequest():
                await while_connected(receive, self._answer(vertex.answer(asked, self.service, openai), reply))
            case ChatRequest() if path == "/chat_tokenize":
                await self._tokens(tokenize.chat_tokens_json, openai.turn(asked).request, reply)
            case Request() if path == "/tokenize":
                await self._tokens(tokenize.tokens_json, asked, reply)
            case Request():
                await self._native(path, asked, receive, reply)
            case _:
                await self._openai(openai, asked, receive, reply)

    async def _asked(self, path: str, body: bytes) -> bodies.Asked:
        """What a body asks for. However long it takes to see, other requests do not wait for it. Raises BadBody."""
        level, messages_api = self.service.settings.level, self.service.settings.messages_api
        if len(body) <= SHORT_BODY:
            return bodies.read(path, body, level, messages_api=messages_api)
        if not heavy(body):
            return await asyncio.to_thread(bodies.read, path, body, level, messages_api=messages_api)
        try:
            asked: bodies.Asked | bodies.Refusal = await self._apart.read(bodies.APART, path, body, level, messages_api)
        except NotRead as error:
            log.error("a body of %d bytes is refused: %s", len(body), error)
            raise BodyTooLong from error
        if isinstance(asked, bodies.Refusal):
            raise BadBody(asked.status, asked.text)
        return asked

    async def _native(self, path: str, request: Request, receive: Receive, reply: Reply) -> None:
        settings = self.service.settings
        compatible = path in ("/", "/invocations")
        if compatible and request.parameters.return_full_text is None:
            full = settings.level.full_text_without_tag or settings.pipeline_tag == "text-generation"
            request = replace(request, parameters=replace(request.parameters, return_full_text=full))
        if path == "/generate_stream" or request.stream:
            stream = Stream(len(request.inputs), self.service.events(request))
            await while_connected(receive, self._stream(stream, reply))
        else:
            await while_connected(receive, self._answer(self.service.answer(request), reply, as_list=compatible))

    async def _openai(
        self, openai: OpenAi, request: ChatRequest | CompletionRequest, receive: Receive, reply: Reply
    ) -> None:
        if isinstance(request, ChatRequest):
            if request.stream:
                await while_connected(receive, self._stream(openai.chat_stream(request), reply))
            else:
                await while_connected(receive, self._answer(openai.chat(request), reply))
        elif request.stream:
            await while_connected(receive, self._stream(openai.complete_stream(request), reply))
        else:
            await while_connected(receive, self._answer(openai.complete(request), reply))

    async def _answer(self, working: Awaitable[Answer], reply: Reply, *, as_list: bool = False) -> None:
        answer = await working
        json = f"[{answer.json}]" if as_list else answer.json
        await reply.whole(200, json.encode(), {"content-type": _JSON, **answer.headers})

    async def _stream(self, stream: Stream, reply: Reply) -> None:
        headers = {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-compute-type": self.service.settings.compute_type,
            "x-compute-characters": str(stream.characters),
            "x-accel-buffering": "no",
        }
        comment = keep_alive(self.service.settings.level)
        await reply.stream(headers, stream.events, comment, self._keep_alive_s)

    async def _tokens(self, write: Callable[[Any, Request], str], request: Request, reply: Reply) -> None:
        json = await asyncio.to_thread(write, self.service.generation.tokenizer, request)
        await reply.whole(200, json.encode(), {"content-type": _JSON})


def get_paths(level: Level) -> frozenset[str]:
    """What can be read at a level."""
    later = ("/v1/models",) if level.chat_tokenize else ()
    return frozenset({*_HEALTH, "/info", "/metrics", *_DOCS, _OPENAPI, *later})


def post_paths(level: Level) -> frozenset[str]:
    """What can be asked at a level."""
    later = {
        "/v1/chat/completions": level.chat,
        "/tokenize": level.chat,
        "/v1/completions": level.completions,
        "/chat_tokenize": level.chat_tokenize,
        "/vertex": level.vertex,
    }
    return frozenset({"/", "/invocations", "/generate", "/generate_stream", *(path for path in later if later[path])})


class StartFailed(Exception):
    """The model can't be served; the message is the endpoint's FailureReason."""
