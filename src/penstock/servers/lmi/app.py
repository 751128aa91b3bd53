"""The routes of DJL Serving, as one ASGI application.

Owns which path does what, and the rendering of whatever is raised. It must never know how a model answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.types import Message, Receive, Scope, Send

from penstock.engines import conversion
from penstock.servers.lmi import jobs, metrics
from penstock.servers.lmi.adapterapi import AdapterApi
from penstock.servers.lmi.errors import BadRequest, LmiError, MethodNotAllowed, ResourceNotFound, StreamBroken
from penstock.servers.lmi.inference import Inference
from penstock.servers.lmi.management import Management
from penstock.servers.lmi.registry import Entry, LoadError, Models
from penstock.servers.lmi.replies import Reply, error_reply, json_reply, read_body, send_reply
from penstock.servers.lmi.requests import Invocation, invocation, takes_long
from penstock.servers.lmi.serverconfig import ServerConfig

log = logging.getLogger(__name__)

TARGET_MODEL = "x-amzn-sagemaker-target-model"


class App:
    """One server. `start` loads the models; until it has returned nothing listens. `failure` then says why it did not."""

    def __init__(
        self,
        models: Models,
        management: Management,
        start: Callable[[], Awaitable[None]],
        config: ServerConfig,
        counted: metrics.Metrics,
    ) -> None:
        self._models = models
        self._management = management
        self._adapter_api = AdapterApi(models)
        self._start = start
        self._config = config
        self._metrics = counted
        self._inference = Inference(models, config, self._metrics)
        self._jobs = jobs.Jobs(config.cache_capacity)
        self.failure = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        started = False
        request_id = Headers(scope=scope).get(self._config.request_id_header, "")

        def watched(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                message = named(message, request_id)
            return send(message)

        try:
            await self._serve(scope, receive, watched)
        except StreamBroken as broken:
            # Returning before the end of the body makes the server cut the connection, which is the truth.
            log.error("a stream was cut: %s", broken)
        except LmiError as error:
            if started:
                raise
            await send_reply(error_reply(error), watched)
        except Exception as error:
            if started:
                raise
            log.exception("a request failed")
            await send_reply(error_reply(LmiError(str(error) or type(error).__name__)), watched)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        begun = time.monotonic()
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
        self._metrics.gauge("StartupLatency", "server", (time.monotonic() - begun) * 1e6)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._jobs.close()
        await self._models.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Split before it is unquoted, so that a model's name may hold anything.
        segments = [unquote(part.decode("latin-1")) for part in scope["raw_path"].split(b"/")[1:]]
        method: str = scope["method"]
        match segments:
            case ["ping", *_]:
                await send_reply(self._ping(), send)
            case ["invocations", *_]:
                await self._invoke(scope, receive, send, "")
            case ["predictions", name, *rest] if name:
                await self._invoke(scope, receive, send, name, version=rest[0] if rest else "")
            case ["models", name, "invoke"] if method == "POST":
                await self._invoke(scope, receive, send, name)
            case ["v1", "chat", "completions"]:
                await self._invoke(scope, receive, send, "", openai=True)
            case ["models", model, "adapters", *rest] if model and self._config.version >= (0, 28):
                await self._adapters(scope, receive, send, model, rest)
            case ["adapters", *rest] if self._config.version >= (0, 28):
                await self._adapters(scope, receive, send, "", rest)
            case ["models" | "workflows" as kind, *rest]:
                headers, query = Headers(scope=scope), QueryParams(scope["query_string"])
                body = await read_body(receive, headers, self._config.max_body)
                handle = self._management.handle if kind == "models" else self._management.handle_workflow
                await send_reply(await handle(method, rest, query, headers, body), send)
            case ["metrics"] | ["server", "metrics"] if self._config.version >= (0, 27):
                await send_reply(self._scraped(method, QueryParams(scope["query_string"])), send)
            case [""] if method == "OPTIONS":
                await send_reply(json_reply({}), send)
            case _:
                raise ResourceNotFound

    async def _adapters(self, scope: Scope, receive: Receive, send: Send, model: str, rest: list[str]) -> None:
        headers, query = Headers(scope=scope), QueryParams(scope["query_string"])
        await read_body(receive, headers, self._config.max_body)
        await send_reply(await self._adapter_api.handle(scope["method"], model, rest, query, headers), send)

    def _ping(self) -> Reply:
        """Every model's state, of several versions the last one's.

        A model that has failed, of whichever version, or errors that came too fast, are what a health check must see.
        """
        entries = self._models.entries()
        states = {entry.settings.name: entry.ping for entry in entries}
        found, status = {entry.ping for entry in entries}, 200
        if self._inference.rates.exceeded:
            status = 503
        elif "FAILED" in found or (self._config.unhealthy_fails and "Unhealthy" in found):
            status = 500
        elif "PENDING" in found and self._config.allow_multi_status:
            status = 207
        return json_reply({name: {"status": state} for name, state in states.items()}, status)

    def _scraped(self, method: str, query: QueryParams) -> Reply:
        if method != "GET":
            raise MethodNotAllowed
        if not self._config.prometheus:
            raise BadRequest(
                "Prometheus is not enabled, set SERVING_PROMETHEUS environment var to true to enable prometheus metrics"
            )
        for entry in self._models.entries():
            if entry.load_s:
                self._metrics.gauge("LoadModel", entry.settings.name, entry.load_s * 1e6)
        page = self._metrics.render(query.getlist("name[]"))
        return Reply(200, {"Content-Type": metrics.CONTENT_TYPE}, page)

    async def _invoke(
        self, scope: Scope, receive: Receive, send: Send, name: str, *, version: str | None = None, openai: bool = False
    ) -> None:
        """`version` is the path's, where the path is one that may name it."""
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, self._config.max_body)
        query = scope["query_string"].decode("latin-1")
        if takes_long(headers.items(), body):
            request = await asyncio.to_thread(invocation, headers.items(), query, body, openai=openai)
        else:
            request = invocation(headers.items(), query, body, openai=openai)
        if scope["method"] != "OPTIONS" and (token := request.attribute(jobs.STARTING_TOKEN)):
            await send_reply(self._jobs.fetch(request, token), send)
            return
        if version is None:
            version = request.text("model_version") or request.attribute("model_version") or ""
        entry = self._entry(request, headers, name, version)
        if openai and entry.settings.version < (0, 28):
            raise ResourceNotFound
        if scope["method"] == "OPTIONS":
            await send_reply(json_reply({}), send)
        elif jobs.wanted(request):
            await send_reply(self._jobs.start(self._inference.later(entry, request)), send)
        else:
            await self._inference.serve(entry, request, receive, send)

    def _entry(self, request: Invocation, headers: Headers, name: str, version: str) -> Entry:
        name = name or request.text("model_name") or request.attribute("model_name") or headers.get(TARGET_MODEL, "")
        if not (name := name or self._models.only_one()):
            raise BadRequest("Parameter model_name is required.")
        return self._models.entry(name, version)


def named(message: Message, request_id: str) -> Message:
    """A response's start with the id that the client gave its request."""
    if not request_id:
        return message
    headers = [(name, value) for name, value in message["headers"] if name.lower() != b"x-request-id"]
    return {**message, "headers": [*headers, (b"x-request-id", request_id.encode("latin-1", "replace"))]}


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
