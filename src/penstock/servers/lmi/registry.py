"""The models of a server: their names, states and queues.

Owns who may enter a model's queue, and what becomes of a model between registration and removal. It must never know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from penstock.servers.lmi.errors import CapacityExceeded, Conflict, ModelNotFound, Unavailable
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings

log = logging.getLogger(__name__)

Status = Literal["PENDING", "READY", "FAILED"]


class LoadError(Exception):
    """A model can't be loaded; the message is fit for a FailureReason."""


class Handler(Protocol):
    """What answers a model's requests."""

    @property
    def parallel(self) -> int:
        """How many requests it works on at once; more wait in the queue."""
        ...

    @property
    def state(self) -> Literal["Healthy", "Unhealthy", "FAILED"]:
        """What /ping says of it."""
        ...

    async def predict(self, request: Invocation) -> Reply:
        """Raises LmiError. Cancelling it, or closing the reply's body, ends the work."""
        ...

    async def scale(self, least: int, most: int) -> None:
        """Another number of workers, where there are such."""
        ...

    async def close(self) -> None: ...


Load = Callable[[ModelSettings], Awaitable[Handler]]


@dataclass(slots=True)
class Entry:
    """One registered model."""

    settings: ModelSettings
    url: str
    at_startup: bool
    status: Status = "PENDING"
    handler: Handler | None = None
    inside: int = 0
    load_s: float = 0.0
    since: datetime | None = None

    @property
    def ping(self) -> str:
        if self.status != "READY" or self.handler is None:
            return self.status
        return self.handler.state

    def __str__(self) -> str:
        return f"{self.settings.name} ({self.status})"


class Models:
    """Every model that this server has. One event loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._entries: dict[str, Entry] = {}
        self._loading: set[asyncio.Task[None]] = set()

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def entry(self, name: str) -> Entry:
        """Raises ModelNotFound."""
        if name not in self._entries:
            raise ModelNotFound(f"Model or workflow not found: {name}")
        return self._entries[name]

    def only_one(self) -> Entry | None:
        """The model of a request that names none: the only one of start-up."""
        found = [entry for entry in self._entries.values() if entry.at_startup]
        return found[0] if len(found) == 1 else None

    async def register(self, settings: ModelSettings, url: str, *, at_startup: bool = False) -> Entry:
        """Load a model and serve it. Raises Conflict, LoadError; a model that fails stays out."""
        entry = self._enter(settings, url, at_startup)
        try:
            await self._fill(entry)
        except BaseException:
            if self._entries.get(settings.name) is entry:  # Another one may have come under its name.
                del self._entries[settings.name]
            raise
        return entry

    def schedule(self, settings: ModelSettings, url: str, *, at_startup: bool = False) -> Entry:
        """Load a model in the background; if that fails it stays registered as FAILED. Raises Conflict."""
        entry = self._enter(settings, url, at_startup)
        task = asyncio.create_task(self._fill_quietly(entry))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        return entry

    async def unregister(self, name: str) -> None:
        """Raises ModelNotFound. Running requests are cut off."""
        entry = self.entry(name)
        del self._entries[name]
        if entry.handler is not None:
            await entry.handler.close()

    @asynccontextmanager
    async def place(self, entry: Entry) -> AsyncIterator[Handler]:
        """A place in a model's queue, for as long as the block runs. Raises Unavailable, CapacityExceeded."""
        if entry.status != "READY" or entry.handler is None:
            raise Unavailable(f"Model is not ready: {entry}")
        if entry.handler.state == "FAILED":
            raise Unavailable(f"All model workers has been shutdown: {entry}")
        if entry.inside >= entry.handler.parallel + entry.settings.job_queue_size:
            raise CapacityExceeded(f"Worker queue capacity exceeded for model: {entry}")
        entry.inside += 1
        try:
            yield entry.handler
        finally:
            entry.inside -= 1

    async def close(self) -> None:
        """Stop loading, and close every model."""
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)
        for entry in self.entries():
            await self.unregister(entry.settings.name)

    def _enter(self, settings: ModelSettings, url: str, at_startup: bool) -> Entry:
        if settings.name in self._entries:
            raise Conflict(f"Model {settings.name} is already registered.")
        entry = self._entries[settings.name] = Entry(settings, url, at_startup)
        return entry

    async def _fill(self, entry: Entry) -> None:
        begun = time.monotonic()
        handler = await self._load(entry.settings)
        if self._entries.get(entry.settings.name) is not entry:  # Unregistered while it loaded.
            await handler.close()
            raise LoadError(f"model {entry.settings.name} was unregistered while it was loaded")
        entry.handler, entry.status, entry.since = handler, "READY", datetime.now(UTC)
        entry.load_s = time.monotonic() - begun

    async def _fill_quietly(self, entry: Entry) -> None:
        try:
            await self._fill(entry)
        except LoadError as error:
            entry.status = "FAILED"
            log.error("model %s could not be loaded: %s", entry.settings.name, error)
        except Exception:
            entry.status = "FAILED"
            log.exception("model %s could not be loaded", entry.settings.name)
