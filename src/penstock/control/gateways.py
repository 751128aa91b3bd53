"""The gateway's worker processes: started, watched, started again when they die, relieved one by one, stopped.

Owns their lives and what they say on stderr, which goes into control's journal. It must never know what they do: they hold the listening
sockets that they inherit, and say `ready` on the table's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.control.start import CannotStart
from penstock.routes import GatewayEvent

log = logging.getLogger(__name__)
BACKOFF_CAP_S = 30.0
FORGET_DEATHS_S = 60.0
DEATHS_BEFORE_READY = 3
LINE_BYTES = 64 * 1024
READY_S = 30.0
"""How long a worker that is to relieve another may take until it serves."""


class NotRelieved(Exception):
    """A new worker did not come to serve; the one that it was to relieve goes on. The text is one plain line."""


class GatewayDoesNotStart(CannotStart):
    """The workers die before any of them was ready."""


def command(home: Path, worker: int, sockets: dict[str, int]) -> list[str]:
    """The command line of a worker. `sockets`: "https", "proxy", "http" to the listening descriptor that it inherits."""
    fds = [argument for name, fd in sockets.items() for argument in (f"--{name}-fd", str(fd))]
    return [sys.executable, "-m", "penstock.gateway", "--home", str(home), "--worker", str(worker), *fds]


@dataclass(slots=True, eq=False)
class _Worker:
    """One process. Numbers are never used twice: two workers of a place live beside each other while one relieves the other."""

    number: int
    process: asyncio.subprocess.Process
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Future[int | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Its exit status once it has ended; None from the moment on in which another has taken its place."""

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Gateways:
    """`workers` places, each held by a process, started by the command line that `command_of` gives for its number.

    The processes inherit the descriptors `fds`; `on_end` hears the number of each that has ended.
    """

    def __init__(
        self,
        workers: int,
        command_of: Callable[[int], Sequence[str]],
        fds: Sequence[int],
        on_end: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._command_of, self._fds, self._on_end = command_of, tuple(fds), on_end
        self._places: list[_Worker | None] = [None] * workers
        self._alive: dict[int, _Worker] = {}
        self._numbers = itertools.count()
        self._last_words = ""
        self._draining = False
        self._tasks: asyncio.TaskGroup
        self.ready: asyncio.Future[GatewayEvent] = asyncio.get_running_loop().create_future()

    def has(self, pid: int) -> bool:
        """Whether that process is a worker that we started."""
        return any(worker.process.pid == pid for worker in self._alive.values())

    def heard(self, event: GatewayEvent) -> None:
        """A worker's event."""
        if event.kind != "ready":
            return
        if event.worker in self._alive:
            self._alive[event.worker].ready.set()
        if not self.ready.done():
            self.ready.set_result(event)

    async def run(self) -> None:
        """Until cancelled, or drained. Raises GatewayDoesNotStart."""
        async with asyncio.TaskGroup() as self._tasks:
            for place in range(len(self._places)):
                self._tasks.create_task(self._keep(place))

    async def _keep(self, place: int) -> None:
        deaths, worker = 0, await self._begin()
        while True:
            self._places[place] = worker
            began = time.monotonic()
            code = await worker.over
            if self._draining:
                return
            if code is None and (successor := self._places[place]):
                worker = successor
                continue
            deaths = 1 if time.monotonic() - began > FORGET_DEATHS_S else deaths + 1
            if deaths >= DEATHS_BEFORE_READY and not self.ready.done():
                said = f": {self._last_words}" if self._last_words else ""
                raise GatewayDoesNotStart(f"the gateway does not start{said} (status {code})")
            log.warning("gateway worker %d ended with %d; another takes its place", worker.number, code)
            if deaths > 1:
                await asyncio.sleep(min(BACKOFF_CAP_S, 0.25 * 2.0 ** (deaths - 2)))
            worker = await self._begin()

    async def _begin(self) -> _Worker:
        number = next(self._numbers)
        process = await asyncio.create_subprocess_exec(
            *self._command_of(number),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            pass_fds=self._fds,
        )
        worker = self._alive[number] = _Worker(number, process)
        if self._draining:
            worker.signal(signal.SIGTERM)
        self._tasks.create_task(self._live(worker))
        return worker

    async def _live(self, worker: _Worker) -> None:
        assert worker.process.stderr is not None, "it is a pipe"
        await self._journal(worker.number, worker.process.stderr)
        code = await worker.process.wait()
        del self._alive[worker.number]
        self._on_end(worker.number)
        if not worker.over.done():
            worker.over.set_result(code)

    async def _journal(self, worker: int, lines: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await lines.readline()
            except ValueError:  # longer than LINE_BYTES: what was read of it is dropped
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._last_words = text
                log.info("%s", text, extra={"fields": {"worker": worker}})

    async def relieve(self) -> None:
        """Puts a new worker in each place, one place after the other: the old one goes when the new one serves.

        The old one takes no more connections, and ends with its last one. Raises NotRelieved.
        """
        for place, old in enumerate(self._places):
            if old is None or old.over.done():
                continue  # a new one is on its way already
            new = await self._begin()
            if not await self._serves(new):
                new.signal(signal.SIGKILL)
                said = f": {self._last_words}" if self._last_words else ""
                raise NotRelieved(f"the new gateway worker does not start{said}; the old ones go on")
            if old.over.done():
                new.signal(signal.SIGUSR2)  # the old one died meanwhile, and has been replaced
                continue
            self._places[place] = new
            old.over.set_result(None)
            old.signal(signal.SIGUSR2)
            log.info("gateway worker %d relieves worker %d", new.number, old.number)

    async def _serves(self, worker: _Worker) -> bool:
        """Waits until it serves; False where it ends, or takes too long."""
        ready = asyncio.ensure_future(worker.ready.wait())
        try:
            await asyncio.wait((ready, worker.over), timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        return worker.ready.is_set() and not worker.over.done()

    async def drain(self, grace_s: float) -> None:
        """SIGTERM to all; SIGKILL to those that are still there after `grace_s`."""
        self._draining = True
        alive = list(self._alive.values())
        for worker in alive:
            worker.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(worker.process.wait() for worker in alive))
        except TimeoutError:
            log.error("gateway processes did not end within %g s", grace_s)
            self.kill()
            await asyncio.gather(*(worker.process.wait() for worker in alive))

    def kill(self) -> None:
        """SIGKILL to all that are still there."""
        self._draining = True
        for worker in self._alive.values():
            worker.signal(signal.SIGKILL)
