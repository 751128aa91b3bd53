"""vLLM's LoRA adapters: those of the start, and those that come and go while it runs.

Owns their names, vLLM's numbers for them, and when one may leave its memory: never while a request uses it. It must never know a request's
tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.engines.base import AddAdapter, RemoveAdapter
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError
from penstock.engines.vllm_settings import explain, rank_of, read_adapters

NO_ROOM = "No free lora slots"
"""vLLM's own words, and what it means to whoever asked: too many at once."""


@dataclass(eq=False, slots=True)
class Adapter:
    """One adapter. `request` is vLLM's form of it."""

    request: Any
    path: str
    loaded: bool = False
    pinned: bool = False
    users: int = 0
    leaving: bool = False


class Adapters:
    """All adapters of an engine. `given` are the arguments that the engine was made with."""

    def __init__(self, engine: Any, options: EngineOptions, given: Mapping[str, Any], *, on_cpu: bool) -> None:
        """Load those of the start, so that a broken one is found now. Raises LoadError."""
        self._engine = engine
        self._named: dict[str, Adapter] = {}
        self._leaving = 0
        self._numbers = itertools.count(1)
        self._places: int = given.get("max_loras", 0)
        self._most_rank: int = given.get("max_lora_rank", 0)
        # The last place of a processor is for requests without an adapter; elsewhere vLLM swaps them.
        self._most_loaded = self._places - 1 if on_cpu else None
        for each in read_adapters(options.adapters):
            try:
                self._add(AddAdapter(0, each.name, each.path))
            except Exception as error:
                raise LoadError(f"vLLM can't load the adapter {each.name}: {explain(error)}") from error

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._named)

    def change(self, change: AddAdapter | RemoveAdapter) -> str:
        """Do it, or say in one line why it can't be."""
        try:
            if isinstance(change, AddAdapter):
                self._add(change)
            elif (adapter := self._named.pop(change.name, None)) is None:
                return f"there is no adapter named {change.name}"
            else:
                self._retire(adapter)
        except Exception as error:  # whatever a broken file or vLLM raises: this adapter, not the engine, is at fault
            return explain(error)
        return ""

    def use(self, name: str) -> Adapter:
        """The adapter for a request, until `leave`. Raises KeyError, and whatever vLLM raises on one that is loaded only now."""
        adapter = self._named[name]
        self._load(adapter)
        adapter.users += 1
        return adapter

    def leave(self, adapter: Adapter) -> None:
        """A request is over."""
        adapter.users -= 1
        if adapter.leaving and not adapter.users:
            self._unload(adapter)
            self._leaving -= 1

    def _add(self, change: AddAdapter) -> None:
        """A name that is there already is changed, or has another adapter from now on."""
        rank = rank_of(change.name, Path(change.path))
        if rank > self._most_rank:
            raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank {self._most_rank}.")
        before = self._named.get(change.name)
        adapter = before
        if adapter is None or adapter.path != change.path:
            number = next(self._numbers)
            # vLLM tells cached prompts apart by this name, which may come again with other weights.
            adapter = Adapter(_lora_request(f"{number}:{change.name}", number, change.path), change.path)
        pinned = sum(each.pinned for each in self._named.values())
        if change.pin and not adapter.pinned and pinned + 1 >= self._places:
            raise ValueError(f"{NO_ROOM}: {pinned} adapters are pinned")
        if change.preload:
            self._load(adapter)
        elif not adapter.users:
            self._unload(adapter)
        if change.pin and not adapter.pinned:
            self._engine.pin_lora(adapter.request.lora_int_id)
            adapter.pinned = True
        if before is not None and before is not adapter:
            self._retire(before)
        self._named[change.name] = adapter

    def _load(self, adapter: Adapter) -> None:
        if adapter.loaded:
            return
        loaded = sum(each.loaded for each in self._named.values()) + self._leaving
        if self._most_loaded is not None and loaded >= self._most_loaded:
            raise ValueError(f"{NO_ROOM}: {loaded} adapters are loaded, and max_loras allows no more on a processor")
        self._engine.add_lora(adapter.request)
        adapter.loaded = True

    def _retire(self, adapter: Adapter) -> None:
        if adapter.users:
            adapter.leaving = True
            self._leaving += 1
        else:
            self._unload(adapter)

    def _unload(self, adapter: Adapter) -> None:
        if adapter.loaded:
            self._engine.remove_lora(adapter.request.lora_int_id)
        adapter.loaded = adapter.pinned = False


def _lora_request(name: str, number: int, path: str) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, path)
