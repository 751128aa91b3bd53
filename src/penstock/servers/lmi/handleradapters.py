"""Adapters of a model whose own code answers: its `register_adapter`, `update_adapter` and `unregister_adapter` are called.

Owns what is registered, and that a new process of the handler is told of it again. It must never know HTTP's routes, nor what an adapter
is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from penstock.servers.lmi.loras import IllegalArgument, Registered, check_source, refused
from penstock.servers.lmi.process import HandlerFailed, Worker, WorkerLost
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.workers import HandlerPool, request_frame, told


class HandlerAdapters:
    """Of one model. Changes come one after the other, between its requests."""

    def __init__(self, settings: ModelSettings) -> None:
        """Every folder in the model's folder of adapters is one from the start."""
        self._settings = settings
        folder = settings.directory.absolute() / settings.adapters
        found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        self._named = {path.name: Registered(path.name, str(path)) for path in found if not path.name.startswith(".")}
        self._changing = asyncio.Lock()
        self._adapts = False
        self.pool: HandlerPool | None = None
        """Whose processes are told; there once the first of them has been started."""

    def spawning(self, spawn: Callable[[], Awaitable[Worker]]) -> Callable[[], Awaitable[Worker]]:
        """`spawn`, whose process then knows what is registered. Raises HandlerFailed."""

        async def spawned() -> Worker:
            worker = await spawn()
            self._adapts = worker.adapts
            for each in self._named.values() if worker.adapts else ():
                header, blobs = request_frame([_input(each)], self._settings)
                try:
                    reply = await worker.ask(
                        {**header, "function": "register_adapter"}, blobs, self._settings.predict_timeout_s
                    )
                except WorkerLost as error:
                    raise HandlerFailed(f"adapter {each} can't be registered: {error}") from error
                if reply.header["code"] >= 300:
                    await worker.kill()
                    raise HandlerFailed(f"adapter {each} can't be registered: {told(reply)}")
            return worker

        return spawned

    async def kept_by(self, pool: HandlerPool) -> HandlerPool:
        """The pool, with these for its adapters if its handler has functions for them. It then has one process: each would know others."""
        if self._adapts:
            self.pool, pool.adapters = pool, self
            await pool.scale(1, 1)
        return pool

    def names(self) -> list[str]:
        return sorted(self._named)

    def find(self, name: str, alias: str = "") -> Registered:
        """Raises BadRequest with 404."""
        if name not in self._named:
            raise refused(404, f"The adapter {alias or name} was not found")
        return self._named[name]

    async def register(self, wanted: Registered) -> str:
        """The handler's own words. Raises LmiError."""
        check_source(wanted)
        async with self._changing:
            if wanted.name in self._named:
                raise IllegalArgument(
                    f"The adapter {wanted} already exists. If you want to replace it, please unregistering before "
                    "registering a new adapter with the same name."
                )
            return await self._change("register_adapter", wanted)

    async def update(self, name: str, alias: str, given: Mapping[str, str]) -> str:
        """The handler's own words. Raises LmiError."""
        async with self._changing:
            before = self.find(name, alias)
            options = {**before.options, **given}
            source, alias = options.get("src", before.src), alias or before.alias
            return await self._change("update_adapter", replace(before, src=source, alias=alias, options=options))

    async def unregister(self, name: str, alias: str) -> str:
        """The handler's own words. Raises LmiError."""
        async with self._changing:
            found = self.find(name, alias)
            said = await self._call("unregister_adapter", replace(found, options={}))
            del self._named[name]
            return said

    async def _change(self, function: str, wanted: Registered) -> str:
        said = await self._call(function, wanted)
        self._named[wanted.name] = wanted
        return said

    async def _call(self, function: str, adapter: Registered) -> str:
        assert self.pool is not None, "it is there before anybody can ask"
        reply = await self.pool.call(function, _input(adapter))
        text = bytes(reply.body).decode() if isinstance(reply.body, bytes) else ""
        if reply.status >= 300:
            raise refused(reply.status, text)
        return text


def _input(adapter: Registered) -> Invocation:
    """What such a function is called with: the adapter as properties, the parameters of its registration as content."""
    properties = (("name", adapter.name), ("alias", adapter.alias), ("src", adapter.src))
    return Invocation(properties, tuple((name, value.encode()) for name, value in adapter.options.items()))
