"""The scripted model server: `/ping`, `/invocations` and `/v1/chat/completions` as a script says.

Owns the carrying out of steps, the pings, the sessions and the ways of dying. It must never parse a script (`script.py`)
nor HTTP (`http.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

from penstock.servers.scripted.http import Answer, Request, serve_connection
from penstock.servers.scripted.script import (
    At,
    Echo,
    End,
    Script,
    Sessions,
    Status,
    Step,
    Wait,
    chunk_of,
    flat,
    parse_steps,
)

DRAIN_S = 25.0
_WEBSOCKETS = find_spec("wsproto") is not None

SESSION = "x-amzn-sagemaker-session-id"
_NEW_SESSION = {"documentation": "X-Amzn-SageMaker-Session-Id", "library": "X-Amzn-SageMaker-New-Session-Id"}
_CLOSED_SESSION = "X-Amzn-SageMaker-Closed-Session-Id"

_log = logging.getLogger("scripted")
_JSON = {"content-type": "application/json"}


class Refused(Exception):
    """A request that the script does not allow; the text is the answer's message, its status 400."""


class SessionStore:
    """The sessions that are open. `clock` is in seconds, monotonic; `wall` tells the time of day that headers show."""

    def __init__(
        self,
        rules: Sessions,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._wall = wall
        self._ends: dict[str, float] = {}

    def headers(self, request: Request) -> dict[str, str]:
        """What the session dialect adds to the answer. Raises Refused on a session that is not open."""
        kind = _member(request.body, "requestType")
        if kind == "NEW_SESSION":
            name = str(uuid.uuid4())
            self._ends[name] = self._clock() + self._rules.ttl_s
            expires = (self._wall() + timedelta(seconds=self._rules.ttl_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
            return {_NEW_SESSION[self._rules.dialect]: f"{name}; Expires={expires}"}
        given = request.headers.get(SESSION, "")
        if given and self._ends.get(given, 0.0) <= self._clock():
            self._ends.pop(given, None)
            raise Refused(f"Bad request: session not found: {given}")
        if kind == "CLOSE":
            if not given:
                raise Refused("Bad request: no session to close")
            del self._ends[given]
            return {_CLOSED_SESSION: given}
        return {}


_INVOCATIONS = ("/invocations", "/v1/chat/completions")


class Server:
    """One scripted server. `leave` ends the process with a status; it is passed in so that tests can watch it."""

    def __init__(self, script: Script, *, leave: Callable[[int], None] = os._exit) -> None:
        self._script = script
        self._leave = leave
        self._sessions = SessionStore(script.sessions) if script.sessions else None
        self._began = time.monotonic()
        self._pings = 0
        self._requests = 0
        self._busy: set[asyncio.Task[Any]] = set()

    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request."""
        if request.path == "/ping" and request.method == "GET":
            await self._ping(answer)
        elif request.path in _INVOCATIONS and request.method == "POST":
            await self._invoke(request, answer)
        else:
            await answer.whole(404, _JSON, b'{"message":"Not Found"}')

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, rest: bytes
    ) -> None:
        """Answer each message of a WebSocket."""
        from penstock.servers.scripted.websocket import serve_websocket

        await serve_websocket(reader, writer, request, rest, self._invoke)

    async def _ping(self, answer: Answer) -> None:
        ping, die = self._script.ping, self._script.die
        self._pings += 1
        number = self._pings
        await asyncio.sleep(ping.wait_ms / 1000)
        ready = (time.monotonic() - self._began) * 1000 >= ping.ready_after_ms
        failing = ping.fail_after is not None and number > ping.fail_after
        recovered = ping.recover_after is not None and number > ping.recover_after
        await answer.whole(ping.status if ready and (not failing or recovered) else 503, _JSON, b"{}")
        if die.after_pings is not None and number >= die.after_pings:
            self._die(f"after {number} pings", die.code)

    async def _invoke(self, request: Request, answer: Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            self._requests += 1
            headers = self._sessions.headers(request) if self._sessions else {}
            steps = self._chosen(request)
            await self._play(steps, request, answer, headers)
        except Refused as error:
            await answer.whole(400, _JSON, json.dumps({"message": str(error)}).encode())
        finally:
            self._busy.discard(task)
        die = self._script.die
        if die.after_requests is not None and self._requests >= die.after_requests:
            self._die(f"after {self._requests} requests", die.code)

    def _chosen(self, request: Request) -> tuple[Step, ...]:
        if not self._script.choose:
            return self._script.steps
        choice = _member(request.body, self._script.choose)
        if choice is None:
            return self._script.steps
        if isinstance(choice, str):
            if choice not in self._script.scripts:
                raise Refused(f"no script is named {choice!r}")
            return self._script.scripts[choice]
        try:
            return parse_steps(choice, self._script.choose)
        except ValueError as error:
            raise Refused(str(error)) from None

    async def _play(self, steps: tuple[Step, ...], request: Request, answer: Answer, extra: dict[str, str]) -> None:
        began = time.monotonic()
        kind = {"content-type": request.headers.get("content-type", "application/octet-stream")}
        for step in flat(steps):
            if isinstance(step, Status):
                if answer.begun:
                    _log.error("a status after the answer has begun is passed over")
                    continue
                await answer.begin(step.status, {**_with_type(step.headers, kind), **extra})
                continue
            if isinstance(step, At):
                await asyncio.sleep(max(0.0, began + step.at_ms / 1000 - time.monotonic()))
                continue
            if isinstance(step, Wait):
                await asyncio.sleep(step.wait_ms / 1000)
                continue
            if not answer.begun:
                await answer.begin(200, {**kind, **extra})
            if isinstance(step, End):
                await self._end(step, answer)
                return
            if isinstance(step, Echo):
                for piece in _echoed(step, request):
                    await answer.chunk(piece)
                continue
            data = chunk_of(step)
            for index in range(step.times):
                if index and step.every_ms:
                    await asyncio.sleep(step.every_ms / 1000)
                await answer.chunk(data)
                # A client that reads as fast as we write must not keep others waiting.
                await asyncio.sleep(0)
        if not answer.begun:
            await answer.begin(200, {**kind, **extra})
        await answer.end()

    async def _end(self, step: End, answer: Answer) -> None:
        match step.end:
            case "close":
                answer.close()
            case "reset":
                answer.reset()
            case "exit":
                self._die("as its script says", step.code)
            case "stall":
                await asyncio.Event().wait()

    def _die(self, why: str, code: int) -> None:
        _log.info("exits with %s %s", code, why)
        logging.shutdown()
        self._leave(code)

    def left(self, request: Request, answer: Answer) -> None:
        """The client went before its answer was whole."""
        if request.path in _INVOCATIONS:
            _log.info("client left after %s chunks", answer.chunks)

    async def run(self, sock: socket.socket) -> None:
        """Serve on a bound socket until SIGTERM or SIGINT; answers in flight then have 25 s to end."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop.set)
        if self._script.ignore_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            loop.add_signal_handler(signal.SIGTERM, stop.set)
        if self._script.die.after_ms is not None:
            loop.call_later(self._script.die.after_ms / 1000, self._die, "in time", self._script.die.code)
        self._began = time.monotonic()
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            converse = self.converse if _WEBSOCKETS else None
            task = loop.create_task(serve_connection(reader, writer, self.handle, self.left, converse))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, sock=sock, backlog=1024)
        _log.info("listens on port %s", sock.getsockname()[1])
        await stop.wait()
        server.close()
        if self._busy:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await asyncio.wait(set(self._busy))
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        _log.info("stopped")


def _member(body: bytes, name: str) -> Any:
    """A member of a JSON object; None where the body is none, or lacks it."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get(name) if isinstance(value, dict) else None


def _with_type(headers: dict[str, str], kind: dict[str, str]) -> dict[str, str]:
    return headers if any(name.lower() == "content-type" for name in headers) else {**kind, **headers}


def _echoed(step: Echo, request: Request) -> list[bytes]:
    if step.echo == "headers":
        return [json.dumps(dict(request.headers)).encode()]
    body, pieces = request.body, max(1, step.pieces)
    cuts = [len(body) * i // pieces for i in range(pieces + 1)]
    return [body[a:b] for a, b in pairwise(cuts) if b > a]
