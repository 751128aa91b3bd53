"""The routes of DJL Serving, as one ASGI application.

Owns which path does what, and the rendering of whatever is raised. It must never know how a model answers.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from penstock.engines import conversion
from penstock.servers.lmi.errors import BadRequest, LmiError, ResourceNotFound, StreamBroken
from penstock.servers.lmi.management import Management
from penstock.servers.lmi.registry import Entry, LoadError, Models
from penstock.servers.lmi.replies import (
    MAX_BODY,
    Reply,
    error_reply,
    json_reply,
    read_body,
    send_reply,
    while_connected,
)
from penstock.servers.lmi.requests import invocation

log = logging.getLogger(__name__)

TARGET_MODEL = "x-amzn-sagemaker-target-model"


class App:
    """One server. `start` loads the models; until it has returned nothing listens. `failure` then says why it did not."""

    def __init__(
        self,
        models: Models,
        management: Management,
        start: Callable[[], Awaitable[None]],
        max_body: int = MAX_BODY,
    ) -> None:
        self._models = models
        self._management = management
        self._start = start
        self._max_body = max_body
        self.failure = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        started = False

        async def watched(message: object) -> None:
            nonlocal started
            started = True
            await send(message)  # type: ignore[arg-type]

        try:
            await self._serve(scope, receive, watched)
        except StreamBroken as broken:
            # Returning before the end of the body makes the server cut the connection, which is the truth.
            log.error("a stream was cut: %s", broken)
        except LmiError as error:
            if started:
                raise
            await send_reply(error_reply(error), send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            with _sigterm_ends_at_once():
                await self._start()
        except Exception as error:
            # Whatever it is, a server without its models must not begin to serve.
            if not isinstance(error, LoadError):
                log.exception("the models could not be loaded")
            self.failure = str(error) or type(error).__name__
            await self._models.close()
            await send({"type": "lifespan.startup.failed", "message": "the model could not be loaded"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._models.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        segments = scope["path"].split("/")[1:]
        method: str = scope["method"]
        match segments:
            case ["ping", *_]:
                await send_reply(self._ping(), send)
            case ["invocations", *_]:
                await self._invoke(scope, receive, send, "")
            case ["predictions", name, *_] if name:
                await self._invoke(scope, receive, send, name)
            case ["models", name, "invoke"] if method == "POST":
                await self._invoke(scope, receive, send, name)
            case ["v1", "chat", "completions"]:
                await self._invoke(scope, receive, send, "", openai=True)
            case ["models", *rest]:
                body = await read_body(receive, Headers(scope=scope), self._max_body)
                query = QueryParams(scope["query_string"])
                await send_reply(await self._management.handle(method, rest, query, Headers(scope=scope), body), send)
            case [""] if method == "OPTIONS":
                await send_reply(json_reply({}), send)
            case _:
                raise ResourceNotFound

    def _ping(self) -> Reply:
        states = {entry.settings.name: entry.ping for entry in self._models.entries()}
        return json_reply(
            {name: {"status": state} for name, state in states.items()}, 500 if "FAILED" in states.values() else 200
        )

    async def _invoke(self, scope: Scope, receive: Receive, send: Send, name: str, *, openai: bool = False) -> None:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, self._max_body)
        query = scope["query_string"].decode("latin-1")
        request = invocation(headers.items(), query, body, openai=openai)
        name = name or request.text("model_name") or request.attribute("model_name") or headers.get(TARGET_MODEL, "")
        entry = self._models.entry(name) if name else self._default()
        if openai and entry.settings.version < (0, 28):
            raise ResourceNotFound
        if scope["method"] == "OPTIONS":
            await send_reply(json_reply({}), send)
            return
        problem: LmiError | StreamBroken | None = None
        async with self._models.place(entry) as handler, while_connected(receive):
            # A task group wraps what its block raises, so errors are carried out of it by hand.
            try:
                await send_reply(await handler.predict(request), send)
            except (LmiError, StreamBroken) as error:
                problem = error
        if problem is not None:
            raise problem

    def _default(self) -> Entry:
        if (entry := self._models.only_one()) is None:
            raise BadRequest("Parameter model_name is required.")
        return entry


@contextmanager
def _sigterm_ends_at_once() -> Iterator[None]:
    """While models load nothing is served that could be drained, and a download or a conversion can take minutes.

    A conversion is told, and leaves nothing behind. What a download leaves half written it knows again by its name; the processes that
    they started die with this one.
    """

    def end(*_: object) -> None:
        conversion.stop_all()
        os._exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
