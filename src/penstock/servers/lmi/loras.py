"""A model's LoRA adapters, as its management API shows and changes them.

Owns what may be registered, updated and unregistered, and the original's words for what may not. It must never know HTTP's routes, nor load
an adapter: the engine does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from penstock.engines.base import EngineError, EngineGone, EngineInfo
from penstock.servers import adapters
from penstock.servers.lmi.errors import BadRequest, LmiError, Unavailable
from penstock.servers.unavailable import ModelUnavailable

_NO_ROOM = ("No free lora slots", "greater than the number of GPU LoRA slots")


class IllegalArgument(LmiError):
    """What the original refuses by an exception of Java's."""

    status = 409
    type = "IllegalArgumentException"


@dataclass(frozen=True, slots=True)
class Registered:
    """One adapter. `alias` is what messages call it."""

    name: str
    src: str
    alias: str = ""
    preload: bool = True
    pin: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    """All parameters of its registration."""

    def __str__(self) -> str:
        return self.alias or self.name


class Engine(Protocol):
    """As much of an engine as this needs."""

    @property
    def info(self) -> EngineInfo: ...

    async def add_adapter(self, name: str, path: str, *, preload: bool = True, pin: bool = False) -> None: ...

    async def remove_adapter(self, name: str) -> None: ...


class Changeable(Protocol):
    """A model's adapters, whoever has them. The texts are for the answer, and every method raises LmiError."""

    def names(self) -> list[str]: ...

    def find(self, name: str, alias: str = "") -> Registered: ...

    async def register(self, wanted: Registered) -> str: ...

    async def update(self, name: str, alias: str, given: Mapping[str, str]) -> str: ...

    async def unregister(self, name: str, alias: str) -> str: ...


class Adapters:
    """Of one model. Changes come one after the other."""

    def __init__(self, engine: Engine, startup: Iterable[adapters.Adapter], environ: Mapping[str, str]) -> None:
        self._engine = engine
        self._environ = environ
        self._named = {each.name: Registered(each.name, each.source) for each in startup}
        self._changing = asyncio.Lock()

    def names(self) -> list[str]:
        """In order. One that a restarted engine could not take again is none of them."""
        return sorted(set(self._named) & set(self._engine.info.adapters))

    def find(self, name: str, alias: str = "") -> Registered:
        """Raises BadRequest with 404."""
        if name not in self.names():
            raise refused(404, f"The adapter {alias or name} was not found")
        return self._named[name]

    async def register(self, wanted: Registered) -> str:
        """What is to be said of it. Raises LmiError."""
        self._check_engine()
        _check_terms(wanted)
        check_source(wanted)
        async with self._changing:
            if wanted.name in self.names():
                raise IllegalArgument(
                    f"The adapter {wanted} already exists. If you want to replace it, please unregistering before "
                    "registering a new adapter with the same name."
                )
            await self._add(wanted)
            return f"Adapter {wanted} registered"

    async def update(self, name: str, alias: str, given: Mapping[str, str]) -> str:
        """What is to be said of it; `given` may have `preload` and `pin`. Raises LmiError."""
        async with self._changing:
            before = self.find(name, alias)
            if given.get("src", before.src) != before.src:
                raise refused(424, "Updating adapter path is not supported.")
            wanted = replace(before, alias=alias or before.alias, **_flags(given))
            if wanted.pin and not wanted.preload:
                raise refused(424, "Can not set load to false and pin to true")
            if before.pin and not wanted.pin:
                raise refused(
                    424,
                    f"Unpinning adapter is not supported. To unpin adapter '{wanted}', please delete the adapter and "
                    "re-register it without pinning.",
                )
            self._check_engine()
            await self._add(wanted)
            return f"Adapter {wanted} updated"

    async def unregister(self, name: str, alias: str) -> str:
        """What is to be said of it. Raises LmiError."""
        async with self._changing:
            found = self.find(name, alias)
            self._check_engine()
            try:
                await self._engine.remove_adapter(name)
            except EngineError as error:
                raise _failure(error) from error
            del self._named[name]
            return f"Adapter {alias or found} unregistered"

    def _check_engine(self) -> None:
        info = self._engine.info
        if "adapters" not in info.features:
            raise IllegalArgument(
                f"Adapters are only supported by the vllm engine, and the {info.name} engine serves this model: "
                "see its line in the log for the reason"
            )

    async def _add(self, wanted: Registered) -> None:
        path = await asyncio.to_thread(self._located, wanted)
        try:
            await self._engine.add_adapter(wanted.name, path, preload=wanted.preload, pin=wanted.pin)
        except EngineError as error:
            raise _failure(error) from error
        self._named[wanted.name] = wanted

    def _located(self, wanted: Registered) -> str:
        """The adapter's directory on this machine. Blocking. Raises BadRequest with 424."""
        source = wanted.src.removeprefix("file:")
        source = "/" + source.lstrip("/") if source != wanted.src else source
        if not source.startswith("/"):
            source = str(Path(source).absolute())
        try:
            found = adapters.locate([adapters.Adapter(wanted.name, source)], self._environ)[wanted.name]
        except ModelUnavailable as error:
            if "is not a directory" in str(error):
                raise refused(424, f"Only local LoRA models are supported. {wanted.src} is not a valid path") from error
            raise refused(424, str(error)) from error
        if (Path(found) / "model.py").exists():
            raise refused(424, f"adapter {wanted} has a model.py, and an adapter's own code is not supported")
        return found


def registered(given: Mapping[str, str], alias: str) -> Registered:
    """From a request's parameters. Raises BadRequest."""
    for name in ("name", "src"):
        if not given.get(name):
            raise BadRequest(f"The parameter {name} is required")
    return Registered(given["name"], given["src"], alias, options=dict(given), **_flags(given))


def check_source(wanted: Registered) -> None:
    """Raises IllegalArgument on a URL."""
    if wanted.src.partition(":")[0].isalnum() and ":" in wanted.src and not wanted.src.startswith("file:"):
        raise IllegalArgument("URL adapters are not currently supported")


def refused(status: int, message: str) -> BadRequest:
    """The original's exception for all of these, with a status of its own."""
    error = BadRequest(message)
    error.status = status
    return error


def _flags(given: Mapping[str, str]) -> dict[str, Any]:
    return {name: given[name].lower() == "true" for name in ("preload", "pin") if name in given}


def _check_terms(wanted: Registered) -> None:
    if wanted.pin and not wanted.preload:
        raise refused(424, "Can not set preload to false and pin to true")
    if not wanted.name.isprintable() or len(wanted.name) > 256:
        raise BadRequest("name must be at most 256 printable characters.")


def _failure(error: EngineError) -> LmiError:
    if isinstance(error, EngineGone):
        return Unavailable(str(error))
    return refused(507 if any(words in str(error) for words in _NO_ROOM) else 424, str(error))
