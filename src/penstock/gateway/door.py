"""The door: what all connections of one worker share.

Owns the set of open connections, the sweep over their deadlines, and draining; it holds the routes, the clock and the limits. It must
never parse or relay a byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from random import Random
from typing import Protocol

from penstock.config import Settings
from penstock.gateway.accesslog import AccessLog, place
from penstock.gateway.measures import Measures
from penstock.gateway.modelloads import ModelLoads
from penstock.gateway.routing import Routes
from penstock.gateway.sessions import Sessions
from penstock.gateway.trace import Trace, instant
from penstock.gateway.upstream import Target
from penstock.routes import GatewayEvent

SWEEP_S = 0.25
"""How often deadlines are looked at: one timer for all connections instead of several for each."""


TOGETHER = 256
"""Ended requests that are written down at once; fewer where `TELL_S` comes first."""
TELL_S = 1.0
"""How often control hears what was measured."""


_IDS = 0x10000
"""Request ids that begin alike."""


class Swept(Protocol):
    """A connection, as far as the door looks after it. Deadlines are loop time, seconds."""

    deadline: float
    answer_by: float

    def expire(self, now: float) -> None: ...
    def relieve(self) -> None: ...
    def drain(self) -> None: ...
    def shut(self) -> None: ...


class Door:
    """One worker's shared state. `notify` sends an event to control; `clock` is seconds since the epoch."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        *,
        control: Target,
        notify: Callable[[GatewayEvent], None],
        worker: int = 0,
        clock: Callable[[], float] = time.time,
        rng: Random | None = None,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.limits = settings.limits
        self.routes = Routes(settings.workers)
        self.sessions = Sessions(settings.paths.run / "sessions.jsonl")
        self.control = control
        self.notify = notify
        self.worker = worker
        self.clock = clock
        self.rng = rng or Random()  # noqa: S311  # chooses replicas and names requests, guards nothing
        self.access_log = AccessLog(place(settings.access_log, settings.paths.logs))
        self.measures = Measures(worker)
        self.models = ModelLoads(loop, control, notify, worker, settings.workers)
        self._ended: list[tuple[Trace, float, bool]] = []
        """Requests that are over, when, and whether they broke, until `_note_ended`."""
        self._told = 0.0
        self._id_head = ""
        self._ids = _IDS
        self.connections: set[Swept] = set()
        self.draining = False
        """Whether every connection ends with an answer that says so."""
        self.stopping = False
        """Whether new requests are refused."""
        self._emptied = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    def request_id(self) -> str:
        """A fresh id in the form of AWS's. Random but for its end, which counts."""
        number = self._ids
        if number == _IDS:
            h = f"{self.rng.getrandbits(104):026x}"
            self._id_head = f"{h[:8]}-{h[8:12]}-4{h[12:15]}-a{h[15:18]}-{h[18:]}"
            number = 0
        self._ids = number + 1
        return f"{self._id_head}{number:04x}"

    def unreachable(self, target: Target) -> None:
        """Tells control that a replica refused or dropped a connection."""
        self.notify(GatewayEvent("unreachable", self.worker, replica=target.name, epoch=target.epoch))

    def finished(self, trace: Trace, *, broken: bool = False) -> None:
        """A request is over, however it ended. `broken`: a stream that had begun did not end cleanly."""
        self._ended.append((trace, instant(), broken))
        if len(self._ended) >= TOGETHER:
            self._note_ended()

    def _note_ended(self) -> None:
        """Counts and writes down what has ended: many at once cost half of what each of them would between two requests."""
        ended, self._ended = self._ended, []
        lag, log, observe = self.clock() - instant(), self.access_log, self.measures.observe
        for trace, at, broken in ended:
            if log.on:
                log.add(trace.line(at, at + lag))
            if trace.variant:
                observe(trace, at, broken=broken)

    def tell(self) -> None:
        """Sends what was measured to control, and lines of the access log to their file."""
        self._note_ended()
        self.measures.tell(self.notify, self.access_log.dropped)
        self.access_log.flush(self.loop)

    def arrived(self, client: Swept) -> None:
        self.connections.add(client)

    def left(self, client: Swept) -> None:
        self.connections.discard(client)
        if not self.connections:
            self._emptied.set()

    def start(self) -> None:
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        # First, so that no defect in what follows ends every deadline.
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
        now = self.loop.time()
        for client in [one for one in self.connections if one.deadline <= now or one.answer_by <= now]:
            client.expire(now)
        for target in self.routes.targets:
            target.sweep(now)
        self.control.sweep(now)
        if now >= self._told + TELL_S:
            self._told = now
            self.tell()

    async def drain(self) -> None:
        """Lets open exchanges finish for `Limits.drain_s`, then ends the rest so that no client takes them for whole."""
        self.draining = self.stopping = True
        for client in list(self.connections):
            client.drain()
        self._emptied.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), self.limits.drain_s)
        for client in list(self.connections):
            client.shut()
        self.tell()
        await self.access_log.close()
        await asyncio.sleep(0)  # what `shut` wrote goes out at the end of this turn of the loop
        if self._sweeper:
            self._sweeper.cancel()
        for target in (*self.routes.targets, self.control):
            target.retire()
