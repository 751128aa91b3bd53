"""Formatters of a user's own, seen from the server: one process that reads requests and writes tokens for all of them.

Owns that process, one exchange at a time, and starting it anew when it is lost. It must never run the user's code itself.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.servers.lmi.formatters import EVENTS, Asked, Formatter, Step, number
from penstock.servers.lmi.parameters import Stated
from penstock.servers.lmi.process import HandlerFailed, Worker, WorkerLost
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.worker.frames import Frame

log = logging.getLogger(__name__)


class FormatterFailed(Exception):
    """A formatter raised, hung or died; the message is for the client."""


class FormatterHost:
    """The process. Made by `start`."""

    def __init__(self, spawn: Callable[[], Awaitable[Worker]], timeout_s: float) -> None:
        self._spawn = spawn
        self._timeout_s = timeout_s
        self._worker: Worker | None = None
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._exchanges: set[asyncio.Task[Frame]] = set()
        self._closed = False
        self.reads = self.writes = ""
        """`document`, `object` or `legacy`: what each formatter is called with; empty where there is none."""

    @classmethod
    async def start(cls, spawn: Callable[[], Awaitable[Worker]], timeout_s: float) -> FormatterHost:
        """Raises HandlerFailed."""
        host = cls(spawn, timeout_s)
        host._worker = worker = await spawn()
        host.reads, host.writes = str(worker.greeting.get("input", "")), str(worker.greeting.get("output", ""))
        return host

    async def close(self) -> None:
        self._closed = True
        for task in self._exchanges:
            task.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        if self._worker is not None:
            await self._worker.kill()

    def writer(self) -> Writer:
        """For one request."""
        return Writer(self, next(self._numbers))

    async def ask(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
        """One exchange, which goes on to its end even if nobody waits for it any more. Raises FormatterFailed."""
        task = asyncio.create_task(self._exchange(header, list(blobs)))
        self._exchanges.add(task)
        task.add_done_callback(self._done)
        reply = await asyncio.shield(task)
        if reply.header.get("code") != 200:
            raise FormatterFailed(f"Custom formatter failed: {reply.header.get('message')}")
        return reply.blobs[0] if reply.blobs else b""

    def tell(self, header: dict[str, Any]) -> None:
        """The same, where the answer does not matter."""
        if not self._closed:
            task = asyncio.create_task(self._exchange(header, []))
            self._exchanges.add(task)
            task.add_done_callback(self._done)

    async def _exchange(self, header: dict[str, Any], blobs: list[bytes]) -> Frame:
        async with self._lock:
            try:
                if self._worker is None:
                    self._worker = await self._spawn()
                return await self._worker.ask(header, blobs, self._timeout_s)
            except WorkerLost as error:
                self._worker = None
                log.error("the formatters: %s", error)
                raise FormatterFailed(f"Custom formatter failed: {error}") from error
            except HandlerFailed as error:
                raise FormatterFailed(f"Custom formatter failed: {error}") from error

    def _done(self, task: asyncio.Task[Frame]) -> None:
        self._exchanges.discard(task)
        if not task.cancelled():
            task.exception()  # It is told to whoever waits; with nobody there it is nobody's.


@dataclass(slots=True)
class Writer:
    """One request's formatters."""

    _host: FormatterHost
    _number: int
    _asked: Asked = field(default_factory=Asked)
    _parameters: dict[str, Any] | None = None
    _begun: bool = False

    @property
    def writes(self) -> str:
        return self._host.writes

    async def read(self, request: Invocation) -> Invocation:
        """The request as the input formatter makes it: a body of `inputs` and `parameters`, as any client's. Raises Stated."""
        if not self._host.reads:
            return request
        header = {
            "kind": "input",
            "id": self._number,
            "properties": dict(request.properties),
            "keys": [key for key, _ in request.content],
        }
        try:
            body = await self._host.ask(header, [value for _, value in request.content])
        except FormatterFailed as error:
            raise Stated(str(error)) from error
        kept = tuple((key, value) for key, value in request.properties if key.lower() != "content-type")
        return replace(request, properties=(*kept, ("content-type", "application/json")), content=(("data", body),))

    def begin(self, asked: Asked, request: Invocation) -> None:
        """What the output formatter is told of its request."""
        self._asked = asked
        try:
            body = request.document()
            parameters = {**(body.get("parameters") or {}), "stream": body.get("stream") is True}
        except (ValueError, AttributeError, TypeError, RecursionError):
            parameters = {}
        self._parameters = parameters

    async def write(self, formatter: Formatter, step: Step) -> bytes:
        """One step's bytes. Raises FormatterFailed."""
        if self._host.writes == "document":
            return await self._document(formatter, formatter.step(step))
        header: dict[str, Any] = {
            "kind": "step",
            "id": self._number,
            "first": not self._begun,
            "token": step.id,
            "text": step.text,
            "logprob": number(step.logprob),
            "special": step.special,
            "finish": step.finish,
            "parameters": self._parameters or {},
        }
        if not self._begun:
            prompt = [(token, text, number(logprob)) for token, text, logprob in self._asked.prefill]
            header |= {"inputs": self._asked.inputs, "prompt": prompt}
        self._begun = True
        return await self._host.ask(header)

    async def _document(self, formatter: Formatter, data: bytes) -> bytes:
        """The default formatter's documents, each of them through the user's, in the same frame."""
        found = b""
        for line in data.splitlines():
            payload = line.removeprefix(b"data: ") if formatter.content_type == EVENTS else line
            if not payload.strip() or payload == b"[DONE]":
                found += line + b"\n\n" if payload == b"[DONE]" else b""
                continue
            made = (await self._host.ask({"kind": "document", "id": self._number}, [payload])).rstrip(b"\n")
            found += b"data: " + made + b"\n\n" if formatter.content_type == EVENTS else made + b"\n"
        return found

    def close(self) -> None:
        """The request is over, or its client has left."""
        self._host.tell({"kind": "forget", "id": self._number})
