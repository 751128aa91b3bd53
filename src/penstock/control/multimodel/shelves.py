"""What is known of the models on each replica: loading, loaded, used when, about to go.

Owns that knowledge and the choices made by it: which replica a model goes to, which one makes room. It must never do anything itself, nor
ask a clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from penstock.modelcalls import ModelAnswer
from penstock.routes import Replica


@dataclass(slots=True)
class Model:
    """One model on one replica. `task` is the load while it goes on, then the unloading; `users` counts only where it is not cached."""

    state: Literal["loading", "loaded", "unloading"]
    task: asyncio.Task[ModelAnswer] | asyncio.Task[None] | None = None
    used: float = 0.0
    users: int = 0
    cached: bool = True
    stuck: bool = False
    """Whether its load waits for another to end."""


@dataclass(slots=True)
class Shelves:
    """By replica, by the model's name."""

    of: dict[str, dict[str, Model]] = field(default_factory=dict)

    def get(self, replica: str, name: str) -> Model | None:
        return self.of.get(replica, {}).get(name)

    def put(self, replica: str, name: str, model: Model) -> None:
        self.of.setdefault(replica, {})[name] = model

    def drop(self, replica: str, name: str, model: Model) -> None:
        """Forgets `model`, unless another one has taken its place."""
        shelf = self.of.get(replica, {})
        if shelf.get(name) is model:
            del shelf[name]

    def keep(self, replicas: Collection[str]) -> None:
        """Forgets what was on others: they are gone."""
        for gone in self.of.keys() - replicas:
            del self.of[gone]

    def choose(self, replicas: Iterable[Replica], name: str) -> Replica | None:
        """The replica that has the model, else one that is loading it, else the one with the fewest, which differs from model to model."""

        def rank(replica: Replica) -> tuple[int, int, bytes]:
            model = self.get(replica.id, name)
            state = {"loaded": 0, "loading": 1}.get(model.state, 2) if model else 2
            own = blake2b(name.encode(), key=replica.id.encode()[-64:], digest_size=8).digest()
            return state, len(self.of.get(replica.id, {})), own

        return min(replicas, key=rank, default=None)

    def victim(self, replica: str) -> tuple[str, Model] | None:
        """The loaded model that was not used for the longest time; one that is in use only where all are."""
        loaded = [(name, model) for name, model in self.of.get(replica, {}).items() if model.state == "loaded"]
        return min(loaded, key=lambda one: (one[1].users > 0, one[1].used), default=None)

    def moving(self, replica: str, but: Model) -> list[asyncio.Task[ModelAnswer] | asyncio.Task[None]]:
        """What else on that replica will end by itself, and may then make room: nothing that waits for others."""
        models = [one for one in self.of.get(replica, {}).values() if one is not but and not one.stuck]
        return [one.task for one in models if one.task is not None and one.state != "loaded"]

    def loaded(self) -> Mapping[str, int]:
        """How many models each replica has loaded."""
        return {replica: sum(one.state == "loaded" for one in shelf.values()) for replica, shelf in self.of.items()}
