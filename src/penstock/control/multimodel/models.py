"""Loading and unloading the models of multi-model variants.

Owns the order: fetch below the replica's directory, tell its container, make room where it has none, clear away what failed. One load for a
model and replica however many ask, and it goes on when nobody waits any more. It must never know HTTP (`contract.py`) or who asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from penstock.control.multimodel import contract
from penstock.control.multimodel.artifact import model_data, not_there
from penstock.control.multimodel.shelves import Model, Shelves
from penstock.modelcalls import ModelAnswer, ModelWanted, model_name
from penstock.placement.artifacts import ArtifactError, NotStored, NotThere
from penstock.placement.base import Placement
from penstock.routes import Endpoint, ModelUse, MultiModel, Replica, RoutingTable, Variant

log = logging.getLogger(__name__)
T = TypeVar("T")

LOAD_S = 360.0
"""How long a model may take to be fetched and loaded (AWS: "Invoke a Multi-Model Endpoint")."""
FULL = 507
LOADED_ALREADY = 409

Observe = Callable[[Endpoint, Variant, str, float], None]
"""Takes a metric's name and a time in seconds."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One model on one replica of a variant."""

    endpoint: Endpoint
    variant: Variant
    shelf: MultiModel
    replica: Replica
    name: str
    target_model: str


class Models:
    """`table` is the routing table of now; `observe` gets times; `clock` is monotonic, seconds."""

    def __init__(
        self,
        placement: Placement,
        table: Callable[[], RoutingTable],
        observe: Observe = lambda endpoint, variant, name, seconds: None,
        clock: Callable[[], float] = time.monotonic,
        load_s: float = LOAD_S,
    ) -> None:
        self._placement, self._table, self._observe, self._clock = placement, table, observe, clock
        self._load_s = load_s
        self._shelves = Shelves()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def want(self, wanted: ModelWanted) -> ModelAnswer:
        """Where the model is loaded, once it is; or why it can't be."""
        self.used(wanted.used)
        self._shelves.keep({status.id for status in self._placement.observe()})
        name, tried = model_name(wanted.target_model), list(wanted.tried)
        if wanted.doubted and await self._is_there(wanted, name):
            return ModelAnswer("there", wanted.doubted)
        while (place := self._choose(wanted, name, tried)) is not None:
            answer = await self._have(place)
            if answer.outcome != "unreachable":
                return answer
            tried.append(place.replica.id)
        return ModelAnswer("unreachable")

    def used(self, uses: Iterable[ModelUse]) -> None:
        """What a gateway worker tells of requests that it has sent."""
        now = self._clock()
        for use in uses:
            model = self._shelves.get(use.replica, use.name)
            if model is None:
                continue
            model.used = max(model.used, now - use.ago_s)
            model.users -= use.ended
            idle = not model.cached and model.users <= 0 and model.state == "loaded"
            if idle and (replica := self._replica(use.replica)) is not None:
                self._unload(*replica, use.name, model)

    def loaded(self) -> Iterable[tuple[Endpoint, Variant, int]]:
        """How many models each multi-model variant has loaded, on all its replicas together."""
        counts = self._shelves.loaded()
        for endpoint in self._table().endpoints:
            for variant in endpoint.variants:
                if variant.multi_model is not None:
                    yield endpoint, variant, sum(counts.get(replica.id, 0) for replica in variant.replicas)

    async def close(self) -> None:
        """Gives up what goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- where

    def _choose(self, wanted: ModelWanted, name: str, tried: list[str]) -> _Place | None:
        key = (wanted.account, wanted.region, wanted.endpoint)
        for endpoint in self._table().endpoints:
            if (endpoint.account, endpoint.region, endpoint.name) != key:
                continue
            for variant in endpoint.variants:
                if variant.name != wanted.variant or variant.multi_model is None:
                    continue
                usable = (one for one in variant.replicas if one.id not in tried and wanted.only in ("", one.id))
                if (replica := self._shelves.choose(usable, name)) is not None:
                    return _Place(endpoint, variant, variant.multi_model, replica, name, wanted.target_model)
        return None

    def _replica(self, replica_id: str) -> tuple[Endpoint, Variant, Replica] | None:
        for endpoint in self._table().endpoints:
            for variant in endpoint.variants:
                for replica in variant.replicas:
                    if replica.id == replica_id:
                        return endpoint, variant, replica
        return None

    async def _is_there(self, wanted: ModelWanted, name: str) -> bool:
        """Whether the container that answered 404 has the model. Where it has not, that is known from now on."""
        model, found = self._shelves.get(wanted.doubted, name), self._replica(wanted.doubted)
        if model is None or found is None or model.state != "loaded":
            return False
        with suppress(OSError):
            if await contract.has(found[2], name):
                return True
        if model.state == "loaded":
            self._shelves.drop(wanted.doubted, name, model)
        return False

    # --- loading

    async def _have(self, place: _Place) -> ModelAnswer:
        """The model there, loaded now or before."""
        model = self._shelves.get(place.replica.id, place.name)
        while model is not None and model.state == "unloading" and model.task is not None:
            await asyncio.wait({model.task})
            model = self._shelves.get(place.replica.id, place.name)
        if model is None:
            model = Model("loading", used=self._clock(), cached=place.shelf.cached)
            self._shelves.put(place.replica.id, place.name, model)
            model.task = self._spawn(self._load(place, model))
        waited = model.state == "loading"
        if waited:
            task = model.task
            assert task is not None
            await asyncio.wait({task})
            if task.cancelled():
                return ModelAnswer("unreachable")
            answer = task.result()
            if answer is None or answer.outcome != "loaded":
                return answer or ModelAnswer("late")
        model.used = self._clock()
        model.users += not model.cached
        return ModelAnswer("loaded", place.replica.id, place.replica.epoch, cached=model.cached, waited=waited)

    async def _load(self, place: _Place, model: Model) -> ModelAnswer:
        try:
            async with asyncio.timeout(self._load_s):
                answer = await self._fetch_and_load(place, model)
        except TimeoutError:
            answer = ModelAnswer("late")
        except Exception:
            log.exception("endpoint %s: model %s can't be loaded", place.endpoint.arn, place.target_model)
            answer = ModelAnswer("dependency", text="The model could not be loaded because of an unknown error.")
        if answer.outcome == "loaded":
            model.state, model.task, model.used = "loaded", None, self._clock()
        else:
            await self._clear(place, model)
        words = f": {answer.status or ''} {answer.text}" if answer.text or answer.status else ""
        log.info(
            "endpoint %s: model %s on %s: %s%s",
            *(place.endpoint.arn, place.target_model, place.replica.id, answer.outcome, words[:400]),
        )
        return answer

    async def _fetch_and_load(self, place: _Place, model: Model) -> ModelAnswer:
        data, began = model_data(place.shelf.url, place.target_model), self._clock()
        try:
            url = await self._placement.add_model(place.replica.id, place.name, data)
        except KeyError:
            return ModelAnswer("unreachable")
        except NotThere:
            return ModelAnswer("refused", text=not_there(data.url))
        except ArtifactError as error:
            return ModelAnswer("dependency" if isinstance(error, NotStored) else "refused", text=str(error))
        self._measure(place, "ModelDownloadingTime", began)
        began = self._clock()
        try:
            said = await self._tell(place, model, url)
        except OSError as error:
            log.warning("replica %s left a load unanswered: %s", place.replica.id, error)
            return ModelAnswer("unreachable")
        if not said.well and said.status != LOADED_ALREADY:
            return ModelAnswer("container", status=said.status, text=said.text)
        self._measure(place, "ModelLoadingTime", began)
        return ModelAnswer("loaded", place.replica.id, place.replica.epoch)

    async def _tell(self, place: _Place, model: Model, url: str) -> contract.Said:
        """Has the container load it, and others go, the longest unused first, for as long as it has no room. Raises OSError."""
        while True:
            said = await contract.load(place.replica, place.name, url, place.target_model)
            if said.status != FULL or not await self._make_room(place, model):
                return said

    async def _make_room(self, place: _Place, model: Model) -> bool:
        """One model less, if there is one. Raises OSError."""
        victim = self._shelves.victim(place.replica.id)
        if victim is not None:
            await asyncio.wait({self._unload(place.endpoint, place.variant, place.replica, *victim)})
            return True
        if others := self._shelves.moving(place.replica.id, model):
            model.stuck = True
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
            model.stuck = False
            return True
        known = self._shelves.of.get(place.replica.id, {})
        for name in await contract.names(place.replica):  # what it has by itself, or from a time that we have forgotten
            if name not in known and (await contract.unload(place.replica, name)).well:
                return True
        return False

    async def _clear(self, place: _Place, model: Model) -> None:
        """Nothing of a load that failed stays, wherever it got to. The model is forgotten when that is done."""
        try:
            with suppress(OSError):
                await contract.unload(place.replica, place.name)
            with suppress(RuntimeError):  # the placement is closed: all is gone
                await self._placement.remove_model(place.replica.id, place.name)
        finally:
            self._shelves.drop(place.replica.id, place.name, model)

    # --- unloading

    def _unload(
        self, endpoint: Endpoint, variant: Variant, replica: Replica, name: str, model: Model
    ) -> asyncio.Task[None]:
        """The model goes; from now on it is not to be had."""
        model.state = "unloading"
        model.task = task = self._spawn(self._take_away(endpoint, variant, replica, name, model))
        return task

    async def _take_away(self, endpoint: Endpoint, variant: Variant, replica: Replica, name: str, model: Model) -> None:
        began = self._clock()
        try:
            with suppress(OSError):  # a container that can't say so has lost the model, or will be replaced
                await contract.unload(replica, name)
            self._observe(endpoint, variant, "ModelUnloadingTime", self._clock() - began)
            with suppress(RuntimeError):  # the placement is closed: all is gone
                await self._placement.remove_model(replica.id, name)
        finally:
            self._shelves.drop(replica.id, name, model)

    def _measure(self, place: _Place, name: str, began: float) -> None:
        self._observe(place.endpoint, place.variant, name, self._clock() - began)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
