"""A user's handler as a model: its processes, its queue, its batches.

Owns which request goes to which process, what a dead or hung process means for its requests, and when a model has failed for good. It
must never run the user's code in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from penstock.servers.lmi.errors import LmiError, OutOfMemory, StreamBroken, Unavailable, Untranslatable
from penstock.servers.lmi.process import HandlerFailed, Worker, WorkerLost
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.worker.frames import Frame

log = logging.getLogger(__name__)

PIECES = 16
"""Pieces of a stream that wait for a slow client; the handler then waits too."""
BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_BATCH_KEY = re.compile(r"batch_(\d+)\.(.*)", re.DOTALL)


class WorkerFailure(LmiError):
    """The process of a request died or ran into its time-out."""

    status = 503
    type = "WlmException"


@dataclass(eq=False, slots=True)
class _Job:
    """One request on its way."""

    request: Invocation
    reply: asyncio.Future[Reply]
    stream: WorkerPieces | None = None


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


@dataclass(eq=False)
class HandlerPool:
    """A `Handler` over processes. Made by `start`."""

    settings: ModelSettings
    spawn: Callable[[], Awaitable[Worker]]
    _waiting: deque[_Job] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _seats: list[_Seat] = field(default_factory=list)

    @classmethod
    async def start(cls, settings: ModelSettings, spawn: Callable[[], Awaitable[Worker]]) -> HandlerPool:
        """Start the least number of processes. Raises HandlerFailed."""
        pool = cls(settings, spawn)
        try:
            for _ in range(settings.min_workers):
                pool._sit(await spawn())
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
        job = _Job(request, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
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
        """As many processes as `least` says, where it says something."""
        while 0 < least < len(self._seats):
            await _clear(self._seats.pop())
        while len(self._seats) < least:
            self._sit(await self.spawn())

    async def close(self) -> None:
        while self._seats:
            await _clear(self._seats.pop())
        self._fail_waiting("the model was unregistered")

    def _sit(self, worker: Worker) -> None:
        seat = _Seat(worker=worker)
        self._seats.append(seat)
        seat.task = asyncio.create_task(self._serve(seat), name=f"worker of {self.settings.name}")

    async def _serve(self, seat: _Seat) -> None:
        """Take jobs and answer them, with a new process whenever the old one is lost."""
        while await self._refill(seat):
            jobs = await self._take()
            assert seat.worker is not None, "refill has filled it"
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
        """Up to a batch of jobs: the first one as soon as it is there, more within the delay that is allowed."""
        jobs: list[_Job] = []
        clock = asyncio.get_running_loop().time
        deadline: float | None = None
        while deadline is None or (len(jobs) < self.settings.batch_size and clock() < deadline):
            if self._waiting:
                jobs.append(self._waiting.popleft())
                deadline = deadline or clock() + self.settings.max_batch_delay_ms / 1000
                continue
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._arrived.wait()
        return jobs

    async def _answer(self, worker: Worker, jobs: list[_Job]) -> None:
        header, blobs = request_frame([job.request for job in jobs], self.settings)
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
                job.reply.set_result(answer)

    async def _stream(self, worker: Worker, jobs: list[_Job], head: Frame) -> None:
        """Hand piece after piece on. A client that leaves stops the handler's iterator; its end is waited for all the same."""
        pieces = WorkerPieces(worker.stop)
        if len(jobs) > 1:
            _fail(jobs, WorkerFailure("a handler that streams can't be batched: set batch_size to 1"))
        if jobs[0].reply.done():
            await pieces.aclose()
        else:
            jobs[0].stream = pieces
            jobs[0].reply.set_result(Reply(int(head.header["code"]), dict(head.header["properties"]), pieces))
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
    properties = {
        **({"batch_size": str(len(requests))} if len(requests) > 1 else {}),
        "model_dir": str(settings.directory),
        "device_id": "-1",
        "tensor_parallel_degree": str(settings.tensor_parallel_degree or 1),
    }
    keys: list[str] = []
    blobs: list[bytes] = []
    for index, request in enumerate(requests):
        prefix = f"batch_{index}." if len(requests) > 1 else ""
        properties |= {prefix + key: value for key, value in request.properties}
        keys += [prefix + key for key, _ in request.content]
        blobs += [value for _, value in request.content]
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
