"""Models that a replica gets while it runs: `/opt/ml/models` of a multi-model container.

Owns that directory of one replica. It must never know who asked for a model, nor whether the container has loaded it. A model is fetched
beside its place and moved there when it is whole (AWS: "Custom Containers Contract for Multi-Model Endpoints").
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from penstock.placement.artifacts import Cancelled, NotStored, NotThere, remove, stage
from penstock.placement.base import ModelData, ObjectReader

_MODEL = "model"


class FurtherModels:
    """Those of one replica, below `directory`, which is made with the first. `staging` runs what takes long, `chores` what does not."""

    def __init__(self, directory: Path, reader: ObjectReader, staging: Executor, chores: Executor) -> None:
        self._directory, self._reader, self._staging, self._chores = directory, reader, staging, chores
        self._closed = threading.Event()
        self._working: set[asyncio.Future[None]] = set()

    async def add(self, name: str, data: ModelData) -> str:
        """The model's directory, once it is there. Raises ArtifactError, KeyError after `close`.

        Cancelled, it leaves nothing behind, and returns when that is so.
        """
        cancelled = threading.Event()
        filling = self._begin(
            self._staging, lambda: self._fill(name, data, lambda: cancelled.is_set() or self._closed.is_set())
        )
        try:
            await asyncio.shield(filling)
        except Cancelled:
            raise KeyError(name) from None
        finally:
            cancelled.set()
            await asyncio.wait({filling})
        return str(self._directory / name / _MODEL)

    async def remove(self, name: str) -> None:
        await asyncio.shield(self._begin(self._chores, lambda: remove(self._directory / name)))

    async def close(self) -> None:
        """No more come, and none is in the making when this returns: the replica's directory is about to go."""
        self._closed.set()
        if self._working:
            await asyncio.wait(self._working)

    def _fill(self, name: str, data: ModelData, cancelled: Callable[[], bool]) -> None:
        own = self._directory / name
        if cancelled():
            raise Cancelled
        if (own / _MODEL).is_dir():
            return
        fresh = own / f"{_MODEL}.part"
        try:
            fresh.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise NotStored(f"No directory can be made for a model: {error.strerror or error}.") from error
        try:
            stage(data, fresh, self._reader, cancelled=cancelled)
            if data.kind == "prefix" and not any(fresh.iterdir()):
                raise NotThere(f"There is no object below {data.url}")
            fresh.rename(own / _MODEL)
        except BaseException:
            remove(own)
            raise

    def _begin(self, executor: Executor, work: Callable[[], None]) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().run_in_executor(executor, work)
        self._working.add(future)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: asyncio.Future[None]) -> None:
        self._working.discard(future)
        if not future.cancelled():
            future.exception()  # seen, also where nobody waits any more
