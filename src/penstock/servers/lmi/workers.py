"""A user's handler as a model: its processes, its queue, its batches.

Owns which request goes to which process, what a dead or hung process means for its requests, and when a model has failed for good. It
must never run the user's code in this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.servers.lmi.errors import LmiError, OutOfMemory, StreamBroken, Unavailable, Untranslatable, WorkerFailure
from penstock.servers.lmi.loras import Changeable
from penstock.servers.lmi.process import HandlerFailed, Worker, WorkerLost
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.worker.frames import Frame

log = logging.getLogger(__name__)

PIECES = 16
"""Pieces of a stream that wait for a slow client; the handler then waits too."""
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_RESERVED = frozenset({"batch_size", "model_dir", "device_id", "tensor_parallel_degree"})
_BATCH_KEY = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)


@dataclass(eq=False, slots=True)
class _Job:
    """One request on its way."""

    request: Invocation
    reply: asyncio.Future[Reply]
    stream: WorkerPieces | None = None
    function: str = ""
    """Which of the script's functions to call, where it is not the handler; alone, and not in a batch."""
    arrived: float = field(default_factory=time.monotonic)
    queued_s: float = 0.0


class WorkerPieces:
    """A stream's body, handed from the worker's task to the client's. `leave` is called once if the client goes before the end."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._items: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._error: StreamBroken | None = None
        self.closed = False

    def __aiter__(self) -> WorkerPieces:
        return self

    async def __anext__(self) -> bytes:
        """Raises StreamBroken when the handler's process was lost."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            # No deadline here: the worker's task has one for every piece, and ends the stream when it passes.
            await self._changed.wait()
        self._room.set()
        return self._items.popleft()

    async def aclose(self) -> None:
        """The client has left, or has all."""
        if not self.closed:
            self.closed = True
            self._room.set()
            if not self._ended:
                self._leave()

    async def put(self, item: bytes) -> None:
        """Wait for room; after the client has left this is nothing."""
        while len(self._items) >= PIECES and not self.closed:
            self._room.clear()
            await self._room.wait()
        if not self.closed:
            self._items.append(item)
            self._changed.set()

    def end(self, error: StreamBroken | None = None) -> None:
        """No more will come; with an error the connection is cut once all pieces are out."""
        self._ended, self._error = True, error
        self._changed.set()


@dataclass(eq=False, slots=True)
class _Seat:
    """A place for a process, with the task that keeps it filled."""

    task: asyncio.Task[None] | None = None
    worker: Worker | None = None
    failures: int = 0
    over: bool = False
    busy: bool = False


@dataclass(eq=False)
class HandlerPool:
    """A `Handler` over processes. Made by `start`."""

    settings: ModelSettings
    spawn: Callable[[], Awaitable[Worker]]
    _waiting: deque[_Job] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _seats: list[_Seat] = field(default_factory=list)
    _scaling: asyncio.Lock = field(default_factory=asyncio.Lock)
    _growing: asyncio.Task[None] | None = None
    _closed: bool = False
    _least: int = 1
    _most: int = 1
    adapters: Changeable | None = None
    """Those that the handler's own functions take; a handler without them does with adapters what it likes."""

    @classmethod
    async def start(cls, settings: ModelSettings, spawn: Callable[[], Awaitable[Worker]]) -> HandlerPool:
        """Start the least number of processes. Raises HandlerFailed."""
        pool = cls(settings, spawn, _least=settings.min_workers, _most=settings.max_workers)
        try:
            await pool._fill(settings.min_workers)
        except BaseException:
            await pool.close()
            raise
        return pool

    @property
    def parallel(self) -> int:
        return max(1, len(self._seats)) * self.settings.batch_size

    @property
    def state(self) -> Literal["Healthy", "Unhealthy", "FAILED"]:
        if all(seat.over for seat in self._seats):
            return "FAILED"
        return "Healthy" if all(seat.worker is not None for seat in self._seats) else "Unhealthy"

    async def predict(self, request: Invocation) -> Reply:
        return await self._ask(_Job(request, asyncio.get_running_loop().create_future()))

    async def call(self, function: str, request: Invocation) -> Reply:
        """Call another of the script's functions, in its turn. The body is what it says, in words. Raises LmiError."""
        return await self._ask(_Job(request, asyncio.get_running_loop().create_future(), function=function))

    async def _ask(self, job: _Job) -> Reply:
        self._waiting.append(job)
        self._arrived.set()
        self._grow()
        try:
            return await job.reply
        except asyncio.CancelledError:
            # Nobody reads the answer: not the one that waits for a process, nor the stream that has just begun.
            if job in self._waiting:
                self._waiting.remove(job)
            if job.stream is not None:
                await job.stream.aclose()
            raise

    async def scale(self, least: int, most: int) -> None:
        """At least, and at most, so many processes, where a number is above 0. Raises WorkerFailure when one can't be started."""
        async with self._scaling:
            self._least = least if least > 0 else self._least
            self._most = max(self._least, most)
            if self.adapters is not None:  # of which each process would know others
                self._least = self._most = 1
            while len(self._seats) > self._most:
                await _clear(self._seats.pop())
        try:
            await self._fill(self._least)
        except HandlerFailed as error:
            raise WorkerFailure(str(error)) from error

    async def close(self) -> None:
        self._closed = True
        if self._growing is not None:
            self._growing.cancel()
            await asyncio.gather(self._growing, return_exceptions=True)
        while self._seats:
            await _clear(self._seats.pop())
        self._fail_waiting("the model was unregistered")

    async def _fill(self, count: int) -> None:
        """Start processes until there are `count`. Raises HandlerFailed."""
        async with self._scaling:
            while len(self._seats) < count and not self._closed:
                await self._sit(await self.spawn())

    def _grow(self) -> None:
        """One more process, in the background, where requests wait and all are busy."""
        if len(self._seats) >= self._most or not all(seat.busy for seat in self._seats):
            return
        if self._growing is None or self._growing.done():
            self._growing = asyncio.create_task(self._grow_quietly(), name=f"one more worker of {self.settings.name}")

    async def _grow_quietly(self) -> None:
        try:
            await self._fill(len(self._seats) + 1)
        except HandlerFailed as error:
            log.error("model %s: %s", self.settings.name, error)

    async def _sit(self, worker: Worker) -> None:
        if self._closed:  # while the process was started
            await worker.kill()
            return
        seat = _Seat(worker=worker)
        self._seats.append(seat)
        seat.task = asyncio.create_task(self._serve(seat), name=f"worker of {self.settings.name}")

    async def _serve(self, seat: _Seat) -> None:
        """Take jobs and answer them, with a new process whenever the old one is lost."""
        while await self._refill(seat):
            assert seat.worker is not None, "refill has filled it"
            seat.busy = False
            jobs = await self._take()
            if not jobs:
                self._seats.remove(seat)
                await seat.worker.kill()
                return
            seat.busy = True
            if self._waiting:
                self._grow()
            try:
                await self._answer(seat.worker, jobs)
                seat.failures = 0
            except WorkerLost as error:
                log.error("model %s: %s", self.settings.name, error)
                seat.worker = None
                seat.failures += 1
                _lose(jobs, str(error))
            except BaseException:
                _lose(jobs, "the model was unregistered")
                raise

    async def _refill(self, seat: _Seat) -> bool:
        """A new process; False when there were too many failures, and the seat is over."""
        while seat.worker is None:
            if seat.failures > self.settings.retry_threshold:
                seat.over = True
                if self.state == "FAILED":
                    self._fail_waiting(f"All model workers has been shutdown: {self.settings.name} (FAILED)")
                return False
            await asyncio.sleep(BACKOFF_S[min(seat.failures, len(BACKOFF_S)) - 1] if seat.failures else 0)
            try:
                seat.worker = await self.spawn()
            except HandlerFailed as error:
                log.error("model %s: %s", self.settings.name, error)
                seat.failures += 1
        return True

    async def _take(self) -> list[_Job]:
        """Up to a batch of jobs: the first one as soon as it is there, more within the delay that is allowed.

        No job when nothing came for long, and there are more processes than there have to be.
        """
        jobs: list[_Job] = []
        clock = asyncio.get_running_loop().time
        deadline: float | None = None
        while deadline is None or (len(jobs) < self.settings.batch_size and clock() < deadline):
            if self._waiting:
                if jobs and self._waiting[0].function:
                    break
                job = self._waiting.popleft()
                job.queued_s = time.monotonic() - job.arrived
                jobs.append(job)
                if job.function:
                    break
                deadline = deadline or clock() + self.settings.max_batch_delay_ms / 1000
                continue
            self._arrived.clear()
            idle_end = clock() + self.settings.max_idle_s if len(self._seats) > self._least else None
            try:
                async with asyncio.timeout_at(deadline or idle_end):
                    await self._arrived.wait()
            except TimeoutError:
                if not jobs and len(self._seats) > self._least:
                    break
        return jobs

    async def _answer(self, worker: Worker, jobs: list[_Job]) -> None:
        header, blobs = request_frame([job.request for job in jobs], self.settings)
        if function := jobs[0].function:
            said = await worker.ask({**header, "function": function}, blobs, self.settings.predict_timeout_s)
            if not jobs[0].reply.done():
                jobs[0].reply.set_result(Reply(int(said.header["code"]), {}, told(said).encode()))
            return
        reply = await worker.ask(header, blobs, self.settings.predict_timeout_s)
        if reply.header.get("stream"):
            await self._stream(worker, jobs, reply)
            return
        for job, answer in zip(jobs, replies(reply, len(jobs)), strict=True):
            if job.reply.done():
                continue
            if isinstance(answer, LmiError):
                job.reply.set_exception(answer)
            else:
                job.reply.set_result(replace(answer, queued_s=job.queued_s, batch=len(jobs)))

    async def _stream(self, worker: Worker, jobs: list[_Job], head: Frame) -> None:
        """Hand piece after piece on. A client that leaves stops the handler's iterator; its end is waited for all the same."""
        pieces = WorkerPieces(worker.stop)
        if len(jobs) > 1:
            _fail(jobs, WorkerFailure("a handler that streams can't be batched: set batch_size to 1"))
        if jobs[0].reply.done():
            await pieces.aclose()
        else:
            jobs[0].stream = pieces
            head_reply = Reply(int(head.header["code"]), dict(head.header["properties"]), pieces)
            jobs[0].reply.set_result(replace(head_reply, queued_s=jobs[0].queued_s))
        kind = ""
        while kind != "end":
            frame = await worker.next(self.settings.chunk_timeout_s)
            kind = frame.kind
            for blob in frame.blobs:
                await pieces.put(blob)
        pieces.end()

    def _fail_waiting(self, why: str) -> None:
        _fail(list(self._waiting), Unavailable(why))
        self._waiting.clear()


def request_frame(requests: list[Invocation], settings: ModelSettings) -> tuple[dict[str, object], list[bytes]]:
    """What a handler's Input is made of: one request as it is, several with the prefix `batch_N.` on every name."""
    own = {
        "model_dir": str(settings.directory),
        "device_id": "-1",
        "tensor_parallel_degree": str(settings.tensor_parallel_degree or 1),
    }
    properties: dict[str, str] = {}
    keys: list[str] = []
    blobs: list[bytes] = []
    for index, request in enumerate(requests):
        prefix = f"batch_{index}." if len(requests) > 1 else ""
        # What the server says of the model and the batch is not for a client's header to say.
        given = [(key, value) for key, value in request.properties if key.lower() not in _RESERVED]
        properties |= {prefix + key: value for key, value in given}
        keys += [prefix + key for key, _ in request.content]
        blobs += [value for _, value in request.content]
    properties = {**own, **properties}
    if len(requests) > 1:
        properties["batch_size"] = str(len(requests))
    return {"properties": properties, "keys": keys}, blobs


def replies(reply: Frame, count: int) -> list[Reply | LmiError]:
    """The answer of each of `count` requests."""
    code, properties = int(reply.header["code"]), dict(reply.header["properties"])
    if code == 507:
        return [OutOfMemory(str(reply.header["message"]))] * count
    contents = list(zip(reply.header["keys"], reply.blobs, strict=True))
    if count == 1 or code >= 300:
        return [Reply(code, properties, _data(contents))] * count
    if len(contents) != count:
        problem = Untranslatable(f"Batch output size mismatch, expected: {count}, actual: {len(contents)}")
        return [problem] * count
    found: list[list[tuple[str, bytes]]] = [[] for _ in range(count)]
    for key, blob in contents:
        match = _BATCH_KEY.fullmatch(str(key))
        if match is None or int(match[1]) >= count:
            return [Untranslatable(f"Unexpected batch output key: {key}")] * count
        found[int(match[1])].append((match[2], blob))
    return [Reply(code, properties, _data(item)) for item in found]


def told(reply: Frame) -> str:
    """What a function's Output says: its message, or what went wrong."""
    try:
        return str(json.loads(b"".join(reply.blobs))["error"])
    except (ValueError, KeyError, TypeError):
        return str(reply.header["message"])


def _data(contents: list[tuple[str, bytes]]) -> bytes:
    """What is sent of several contents: `data`, else the first."""
    return dict(reversed(contents)).get("data", contents[0][1] if contents else b"")


def _lose(jobs: list[_Job], why: str) -> None:
    for job in jobs:
        if job.stream is not None:
            job.stream.end(StreamBroken(why))
    _fail(jobs, WorkerFailure(why))


def _fail(jobs: list[_Job], error: LmiError) -> None:
    for job in jobs:
        if not job.reply.done():
            job.reply.set_exception(error)


async def _clear(seat: _Seat) -> None:
    """End a seat's task, then its process."""
    if seat.task is not None:
        seat.task.cancel()
        await asyncio.gather(seat.task, return_exceptions=True)
    if seat.worker is not None:
        await seat.worker.kill()
