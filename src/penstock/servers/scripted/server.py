"""The scripted model server: `/ping`, `/invocations` and `/v1/chat/completions` by a script, or `/models` where models come one by one.

Owns the paths, the pings, and the ways of dying. It must never parse a script (`script.py`) nor HTTP (`http.py`), nor carry out a step
(`player.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

from penstock.servers.scripted.http import Answer, Request, serve_connection
from penstock.servers.scripted.models import LoadedModels
from penstock.servers.scripted.player import JSON, Player
from penstock.servers.scripted.script import Script

DRAIN_S = 25.0
_WEBSOCKETS = find_spec("wsproto") is not None

_log = logging.getLogger("scripted")
_INVOCATIONS = ("/invocations", "/v1/chat/completions")


class Server:
    """One scripted server, `multi_model` or of one script. `leave` ends the process with a status; tests pass one in and watch it."""

    def __init__(self, script: Script, *, multi_model: bool = False, leave: Callable[[int], None] = os._exit) -> None:
        self._script = script
        self._leave = leave
        self._player = Player(script, self._die)
        self._models = LoadedModels(script, self._die) if multi_model else None
        self._began = time.monotonic()
        self._pings = 0
        self._requests = 0
        self._busy: set[asyncio.Task[Any]] = set()

    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request."""
        if request.path == "/ping" and request.method == "GET":
            await self._ping(answer)
        elif request.path in _INVOCATIONS and request.method == "POST" and self._models is None:
            await self._invoke(self._player, request, answer)
        elif self._models is not None and (player := self._models.player(request)) is not None:
            await self._invoke(player, request, answer)
        elif self._models is not None and request.path.startswith("/models"):
            await self._models.manage(request, answer)
        else:
            await answer.whole(404, JSON, b'{"message":"Not Found"}')

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request, rest: bytes
    ) -> None:
        """Answer each message of a WebSocket."""
        from penstock.servers.scripted.websocket import serve_websocket

        await serve_websocket(reader, writer, request, rest, partial(self._invoke, self._player))

    async def _ping(self, answer: Answer) -> None:
        ping, die = self._script.ping, self._script.die
        self._pings += 1
        number = self._pings
        await asyncio.sleep(ping.wait_ms / 1000)
        ready = (time.monotonic() - self._began) * 1000 >= ping.ready_after_ms
        failing = ping.fail_after is not None and number > ping.fail_after
        recovered = ping.recover_after is not None and number > ping.recover_after
        await answer.whole(ping.status if ready and (not failing or recovered) else 503, JSON, b"{}")
        if die.after_pings is not None and number >= die.after_pings:
            self._die(f"after {number} pings", die.code)

    async def _invoke(self, player: Player, request: Request, answer: Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            self._requests += 1
            await player.answer(request, answer)
        finally:
            self._busy.discard(task)
        die = self._script.die
        if die.after_requests is not None and self._requests >= die.after_requests:
            self._die(f"after {self._requests} requests", die.code)

    def _die(self, why: str, code: int) -> None:
        _log.info("exits with %s %s", code, why)
        logging.shutdown()
        self._leave(code)

    def left(self, request: Request, answer: Answer) -> None:
        """The client went before its answer was whole."""
        if request.path in _INVOCATIONS or request.path.endswith("/invoke"):
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
            converse = self.converse if _WEBSOCKETS and self._models is None else None
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
