"""A script being played: one answer after the other, as its steps say.

Owns the carrying out of steps, the choice between scripts, and sessions. It must never parse a script (`script.py`) nor HTTP (`http.py`),
nor know under which path it is called.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from penstock.servers.scripted.http import Answer, Request
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

SESSION = "x-amzn-sagemaker-session-id"
_NEW_SESSION = {"documentation": "X-Amzn-SageMaker-Session-Id", "library": "X-Amzn-SageMaker-New-Session-Id"}
_CLOSED_SESSION = "X-Amzn-SageMaker-Closed-Session-Id"

JSON = {"content-type": "application/json"}
_log = logging.getLogger("scripted")


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


class Player:
    """Plays one script. `die` ends the process, told why and with which status."""

    def __init__(self, script: Script, die: Callable[[str, int], None]) -> None:
        self._script, self._die = script, die
        self._sessions = SessionStore(script.sessions) if script.sessions else None

    async def answer(self, request: Request, answer: Answer) -> None:
        """One answer."""
        try:
            headers = self._sessions.headers(request) if self._sessions else {}
            await self._play(self._chosen(request), request, answer, headers)
        except Refused as error:
            await answer.whole(400, JSON, json.dumps({"message": str(error)}).encode())

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
