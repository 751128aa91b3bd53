"""The front's side of an engine process.

Owns starting it, talking to it, and starting it again when it dies. It must never import an engine library: that is what the
process is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from penstock.engines.adapting import Adapting
from penstock.engines.base import (
    AdapterChanged,
    AddAdapter,
    Cancel,
    EngineError,
    EngineFull,
    EngineGone,
    EngineInfo,
    Finish,
    PromptLogprobs,
    RemoveAdapter,
    Sampling,
    Submit,
    Token,
)
from penstock.engines.messages import HEADER_BYTES, BrokenFrame, Failed, Message, body_length, decode, encode
from penstock.engines.options import EngineOptions
from penstock.engines.steps import Observer, Steps

STALL_S = 120.0
"""A busy engine that says nothing for so long is taken for hung, and killed."""
ADAPTER_S = 240.0
"""An engine that has not taken an adapter after so long is not waited for any more."""
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses before restarts that follow each other."""

Event = PromptLogprobs | Token | Finish
_EVENTS = (Token, Finish, PromptLogprobs)  # a union costs `isinstance` more


class LoadFailed(EngineError):
    """The engine process could not load the model; the message is its reason, in one line."""


@dataclass(slots=True)
class _Open:
    """A request on its way, and the one task that reads it: what `asyncio.Queue` does, without its cost for each token.

    What waits is bounded by the request's own length: the engine stops at `max_new_tokens`.
    """

    events: deque[Event | EngineGone] = field(default_factory=deque)
    running: bool = False
    _reader: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Whether its end is here, if not read yet."""
        return bool(self.events) and isinstance(self.events[-1], Finish | EngineGone)

    def put(self, event: Event | EngineGone) -> None:
        self.events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def arrival(self) -> asyncio.Future[None]:
        """Done when there is an event. To be awaited at once, where there is none."""
        self._reader = asyncio.get_running_loop().create_future()
        return self._reader


@dataclass(slots=True)
class _Process:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class EngineProcess:
    """An `Engine` in a process of its own. Made by `start`."""

    def __init__(self, options: EngineOptions, command: Sequence[str], stall_s: float) -> None:
        self._options = options
        self._command = tuple(command)
        self._stall_s = stall_s
        self._ids = itertools.count(1)
        self._requests: dict[int, _Open] = {}
        self._adapting = Adapting()
        self._steps: Steps | None = None
        self._process: _Process | None = None
        self._info: EngineInfo | None = None
        self._why = "the engine is not started yet"
        self._supervisor: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        options: EngineOptions,
        *,
        timeout_s: float = 1200.0,
        command: Sequence[str] = (sys.executable, "-P", "-m", "penstock.engines"),
        stall_s: float = STALL_S,
    ) -> EngineProcess:
        """Start the process and wait until its model is loaded. Raises LoadFailed, with the process gone."""
        engine = cls(options, command, stall_s)
        process = await engine._spawn(timeout_s)
        engine._supervisor = asyncio.create_task(engine._supervise(process, timeout_s), name="engine supervisor")
        return engine

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise EngineGone(self._why)
        return self._adapting.applied(self._info)

    @property
    def ready(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The engine's process id; None while it is being restarted."""
        return self._process.process.pid if self._process else None

    @property
    def load(self) -> tuple[int, int]:
        running = sum(request.running for request in self._requests.values())
        return running, len(self._requests) - running

    def observe(self, observer: Observer) -> None:
        """Tell it of each step from now on."""
        self._steps = Steps(observer)

    async def generate(self, prompt: tuple[int, ...], sampling: Sampling) -> AsyncGenerator[Event, None]:
        if len(self._requests) >= self._options.max_queue:
            raise EngineFull(f"the engine has {len(self._requests)} requests, and takes no more")
        if self._process is None:
            raise EngineGone(self._why)
        process = self._process
        if self._steps and all(other.over for other in self._requests.values()):
            self._steps.woken()
        request_id, request = next(self._ids), _Open()
        self._requests[request_id] = request
        events, finished = request.events, False
        process.writer.write(encode([Submit(request_id, prompt, sampling)]))
        try:
            # No deadline here: the supervisor fails every request when the engine dies or stalls.
            while not finished:
                while not events:
                    await request.arrival()
                event = events.popleft()
                if isinstance(event, Finish):
                    finished = True
                    self._requests.pop(request_id, None)
                elif isinstance(event, EngineGone):
                    finished = True
                    raise event
                yield event
        finally:
            self._requests.pop(request_id, None)
            if not finished and process is self._process:
                process.writer.write(encode([Cancel(request_id)]))

    async def add_adapter(self, name: str, path: str, *, preload: bool = True, pin: bool = False) -> None:
        """Take a LoRA adapter from its directory, also after a restart, or change one. Raises EngineError with the reason, EngineGone."""
        await self._change(AddAdapter(next(self._ids), name, path, preload, pin))

    async def remove_adapter(self, name: str) -> None:
        """Give one up; requests that use it go on. Raises EngineError with the reason, EngineGone."""
        await self._change(RemoveAdapter(next(self._ids), name))

    async def _change(self, change: AddAdapter | RemoveAdapter) -> None:
        if self._process is None:
            raise EngineGone(self._why)
        answer = self._adapting.ask(change)
        self._process.writer.write(encode([change]))
        try:
            async with asyncio.timeout(ADAPTER_S):
                await answer
        except TimeoutError:
            raise EngineError(f"the engine did not take the adapter within {ADAPTER_S:g} s") from None
        finally:
            self._adapting.forget(change)

    async def close(self) -> None:
        """End the process. Requests that still run fail."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        if self._process is not None:  # the supervisor was cancelled before it began
            process, self._process = self._process, None
            await _end(process)
        self._why = "the engine was closed"
        self._fail_all(self._why)

    async def _spawn(self, timeout_s: float) -> _Process:
        """Start a process and read its first message. Raises LoadFailed."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(writer.close)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    f"--fd={theirs.fileno()}",
                    f"--parent={os.getpid()}",
                    *self._options.arguments(),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                )
            except OSError as error:  # an environment that was taken away, or whose Python is none
                raise LoadFailed(
                    f"the engine's process can't be started: {self._command[0]}: {error.strerror}"
                ) from error
            undo.pop_all()
        started = _Process(process, reader, writer)
        try:
            async with asyncio.timeout(timeout_s):
                first = (await _read(reader))[0]
        except (asyncio.IncompleteReadError, ConnectionError, BrokenFrame, IndexError) as error:
            raise LoadFailed(f"the engine process died while loading{await _end(started)}") from error
        except TimeoutError as error:
            await _end(started)
            raise LoadFailed(f"the model was not loaded within {timeout_s:g} s") from error
        except asyncio.CancelledError:
            await _end(started)
            raise
        if not isinstance(first, EngineInfo):
            await _end(started)
            raise LoadFailed(first.reason if isinstance(first, Failed) else f"the engine process began with {first!r}")
        # Written before any request can be.
        writer.write(encode(self._adapting.again()))
        self._info, self._process, self._why = first, started, ""
        return started

    async def _supervise(self, process: _Process, timeout_s: float) -> None:
        """Read from the process for as long as it lives; then fail its requests and start another."""
        failures = 0
        while True:
            since = time.monotonic()
            try:
                why = await self._listen(process)
                self._step_failed()
            finally:
                self._process = None
                self._why = "the engine is being restarted"
                how = await asyncio.shield(_end(process))
            self._fail_all(f"the engine process {why}{how}")
            print(f"the engine process {why}{how}; starting another", file=sys.stderr, flush=True)
            failures = 0 if time.monotonic() - since > 60 else failures
            while self._process is None:
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                try:
                    process = await self._spawn(timeout_s)
                except (LoadFailed, OSError) as error:  # no descriptor is left for the socket, perhaps
                    self._why = f"the engine can't be restarted: {error}"
                    print(self._why, file=sys.stderr, flush=True)

    async def _listen(self, process: _Process) -> str:
        """Hand out messages until the process can't go on; returns why, as the end of a sentence."""
        while True:
            try:
                async with asyncio.timeout(self._stall_s):
                    messages = await _read(process.reader)
            except TimeoutError:
                if self._requests:
                    return f"said nothing for {self._stall_s:g} s"
                continue
            except (asyncio.IncompleteReadError, ConnectionError):
                return "died"
            except BrokenFrame as error:
                return f"sent something else than messages ({error})"
            self._hand_out(messages)

    def _hand_out(self, messages: list[Message]) -> None:
        came = self._steps.now() if self._steps else 0.0
        first: list[int] = []
        for message in messages:
            if isinstance(message, _EVENTS):
                if request := self._requests.get(message.id):
                    if not request.running:
                        request.running = True
                        first.append(message.id)
                    request.put(message)
            elif isinstance(message, AdapterChanged):
                self._adapting.answered(message)
            elif isinstance(message, Failed):
                self._step_failed()
        if self._steps:
            self._steps.frame(messages, first, came)

    def _step_failed(self) -> None:
        """Count a step of those requests that have no end yet."""
        left = [request for request in self._requests.values() if not request.over]
        if self._steps and left:
            self._steps.failed(prefill=not all(request.running for request in left))

    def _fail_all(self, why: str) -> None:
        for request in self._requests.values():
            request.put(EngineGone(why))
        self._requests.clear()
        self._adapting.fail(EngineGone(why))


async def _read(reader: asyncio.StreamReader) -> list[Message]:
    header = await reader.readexactly(HEADER_BYTES)
    return decode(await reader.readexactly(body_length(header)))


async def _end(started: _Process) -> str:
    """Make sure that the process is gone. Returns how it went, as the end of a sentence."""
    started.writer.close()
    process = started.process
    try:
        # It ends by itself when its socket closes, unless it sits in a long step.
        async with asyncio.timeout(1.0):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        code = await process.wait()
    if code < 0:
        return f" ({signal.Signals(-code).name})"
    return f" (status {code})" if code else ""
