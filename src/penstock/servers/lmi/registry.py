"""The models of a server: their names, versions, states and queues.

Owns who may enter a model's queue, whose turn it is where a name has several versions, and what becomes of a model between registration and
removal. It must never know HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from penstock.servers.lmi.errors import CapacityExceeded, Conflict, ModelNotFound, Unavailable
from penstock.servers.lmi.loras import Changeable
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings

log = logging.getLogger(__name__)

Status = Literal["PENDING", "READY", "FAILED"]


DEFAULT_VERSION = "default"
"""What a path calls the model that was registered without a version."""


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

    @property
    def adapters(self) -> Changeable | None:
        """Its LoRA adapters, which may come and go; None where its own code does not say how, or one prompt at a time."""
        ...

    async def predict(self, request: Invocation) -> Reply:
        """Raises LmiError. Cancelling it, or closing the reply's body, ends the work."""
        ...

    async def scale(self, least: int, most: int) -> None:
        """Another number of workers, where there are such."""
        ...

    async def close(self) -> None: ...


Load = Callable[[ModelSettings], Awaitable[Handler]]


@dataclass(eq=False, slots=True)
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

    @property
    def name(self) -> str:
        """The model's name, with its version where it has one."""
        version = self.settings.model_version
        return f"{self.settings.name}:{version}" if version else self.settings.name

    def __str__(self) -> str:
        return f"{self.name} ({self.status})"


@dataclass(slots=True)
class _Versions:
    """All versions of one name, in the order of their registration, and which of them comes next."""

    entries: list[Entry] = field(default_factory=list)
    turn: int = 0


class Models:
    """Every model that this server has. One event loop."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._named: dict[str, _Versions] = {}
        self._loading: set[asyncio.Task[None]] = set()

    def names(self) -> list[str]:
        """All names, in their order."""
        return sorted(self._named)

    def entries(self) -> list[Entry]:
        """All of them, by name."""
        return [entry for name in self.names() for entry in self._named[name].entries]

    def versions(self, name: str, version: str = "") -> list[Entry]:
        """Those of a name, or the one that `version` names; none where there is no such model."""
        found = self._named.get(name, _Versions()).entries
        return [entry for entry in found if not version or _key(entry.settings) == version]

    def entry(self, name: str, version: str = "") -> Entry:
        """The model that a request goes to: without a version each of them in turn. Raises ModelNotFound."""
        if not (found := self.versions(name, version)):
            raise ModelNotFound(f"Model or workflow not found: {name}")
        if len(found) == 1:
            return found[0]
        named = self._named[name]
        turn, named.turn = named.turn % len(found), named.turn + 1
        return found[turn]

    def only_one(self) -> str:
        """The name of the model of a request that names none: the only one of start-up. Empty where there is no such."""
        found = {entry.settings.name for entry in self.entries() if entry.at_startup}
        return found.pop() if len(found) == 1 else ""

    async def register(self, settings: ModelSettings, url: str, *, at_startup: bool = False) -> Entry:
        """Load a model and serve it. Raises Conflict, LoadError; a model that fails stays out."""
        entry = self._enter(settings, url, at_startup)
        try:
            await self._fill(entry)
        except BaseException:
            self._remove(entry)
            raise
        return entry

    def schedule(self, settings: ModelSettings, url: str, *, at_startup: bool = False) -> Entry:
        """Load a model in the background; if that fails it stays registered as FAILED. Raises Conflict."""
        entry = self._enter(settings, url, at_startup)
        task = asyncio.create_task(self._fill_quietly(entry))
        self._loading.add(task)
        task.add_done_callback(self._loading.discard)
        return entry

    async def unregister(self, name: str, version: str = "") -> None:
        """One version, or all of them. Raises ModelNotFound. Running requests are cut off."""
        if not (found := self.versions(name, version)):
            raise ModelNotFound(f"Model or workflow not found: {name}")
        for entry in found:
            self._remove(entry)
        for entry in found:
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
        for name in self.names():
            await self.unregister(name)

    def _enter(self, settings: ModelSettings, url: str, at_startup: bool) -> Entry:
        entry = Entry(settings, url, at_startup)
        named = self._named.setdefault(settings.name, _Versions())
        taken = {_key(each.settings) for each in named.entries}
        # One without a version is the only one of its name, or at least the first.
        if _key(settings) in taken or (taken and not settings.model_version):
            raise Conflict(f"Model {entry.name} is already registered.")
        named.entries.append(entry)
        return entry

    def _remove(self, entry: Entry) -> None:
        """Nothing where it is gone already."""
        named = self._named.get(entry.settings.name, _Versions())
        if entry not in named.entries:
            return
        named.entries.remove(entry)
        if not named.entries:
            del self._named[entry.settings.name]

    async def _fill(self, entry: Entry) -> None:
        begun = time.monotonic()
        handler = await self._load(entry.settings)
        if entry not in self.versions(entry.settings.name):  # Unregistered while it loaded.
            await handler.close()
            raise LoadError(f"model {entry.name} was unregistered while it was loaded")
        entry.handler, entry.status, entry.since = handler, "READY", datetime.now(UTC)
        entry.load_s = time.monotonic() - begun

    async def _fill_quietly(self, entry: Entry) -> None:
        try:
            await self._fill(entry)
        except LoadError as error:
            entry.status = "FAILED"
            log.error("model %s could not be loaded: %s", entry.name, error)
        except Exception:
            entry.status = "FAILED"
            log.exception("model %s could not be loaded", entry.name)


def _key(settings: ModelSettings) -> str:
    """What names a version."""
    return settings.model_version or DEFAULT_VERSION
