"""One inference request: a place in its model's queue, the answer, and what is counted of it.

Owns the statuses that the server's configuration gives to errors, and the counters. It must never know how a model answers, nor a route.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Send

from penstock.servers.lmi.errors import (
    BadRequest,
    CapacityExceeded,
    LmiError,
    StreamBroken,
    TimedOut,
    Unavailable,
    Untranslatable,
    WorkerFailure,
)
from penstock.servers.lmi.metrics import ErrorRates, Metrics
from penstock.servers.lmi.registry import Entry, Models
from penstock.servers.lmi.replies import Reply, send_reply, while_connected
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.serverconfig import Codes, ServerConfig


class Inference:
    """Serves requests over the models of a server."""

    def __init__(self, models: Models, config: ServerConfig, metrics: Metrics) -> None:
        self._models = models
        self._codes = config.codes
        self._metrics = metrics
        self.rates = ErrorRates(config.error_rates, time.monotonic)

    async def serve(self, entry: Entry, request: Invocation, receive: Receive, send: Send) -> None:
        """Answer, for as long as the client stays. Raises LmiError and StreamBroken."""
        problem: LmiError | StreamBroken | None = None
        try:
            async with self._models.place(entry) as handler, while_connected(receive):
                # A task group wraps what its block raises, so errors are carried out of it by hand.
                try:
                    begun = time.monotonic()
                    reply = await handler.predict(request)
                    self._answered(entry, reply, begun)
                    await send_reply(reply, send)
                except (LmiError, StreamBroken) as error:
                    problem = error
        except LmiError as error:
            problem = error
        if isinstance(problem, LmiError):
            raise self._failed(problem)
        if problem is not None:
            raise problem

    def later(self, entry: Entry, request: Invocation) -> Callable[[], Awaitable[Reply]]:
        """The same without a client: the reply, whose body still has to be read."""

        async def work() -> Reply:
            try:
                async with self._models.place(entry) as handler:
                    begun = time.monotonic()
                    reply = await handler.predict(request)
                    self._answered(entry, reply, begun)
                    return reply
            except LmiError as error:
                raise self._failed(error) from error

        return work

    def _answered(self, entry: Entry, reply: Reply, begun: float) -> None:
        name = entry.settings.name
        self._metrics.count(f"Response_{2 if reply.status < 400 else 4 if reply.status < 500 else 5}XX")
        if reply.status >= 500 or reply.status == 424:
            self.rates.error("server")
        self._metrics.observe("RequestLatency", name, (time.monotonic() - begun) * 1e6)
        self._metrics.observe("QueueTime", name, reply.queued_s * 1e6)
        if reply.batch > 1:
            self._metrics.gauge("DynamicBatchSize", name, reply.batch)

    def _failed(self, error: LmiError) -> LmiError:
        """Count it, and give it the status that the configuration has for its kind."""
        if isinstance(error, BadRequest | Untranslatable):
            self._metrics.count("Response_4XX")
        elif isinstance(error, CapacityExceeded | Unavailable | WorkerFailure) or error.type.startswith("Wlm"):
            self._metrics.count("Response_5XX")
            self._metrics.count("WlmError")
            self.rates.error("wlm")
        else:
            self._metrics.count("Response_5XX")
            self._metrics.count("ServerError")
            self.rates.error("server")
        error.status = code_of(error, self._codes)
        return error


def code_of(error: LmiError, codes: Codes) -> int:
    """What `SERVING_…_HTTP_CODE` says of an error; its own status where that says nothing."""
    match error:
        case TimedOut():
            return codes.timeout
        case BadRequest() | Untranslatable():
            return codes.bad_request
        case CapacityExceeded():
            return codes.throttle
        case Unavailable() | WorkerFailure():
            return codes.wlm
    return codes.server if error.status == 500 else error.status
