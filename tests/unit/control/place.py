"""A little world for the reconciler's tests, and what may be done to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from penstock.control.fleet import (
    Endpoint,
    Replica,
)
from penstock.control.lifecycle import Status, Trigger, after
from penstock.control.reconcile import (
    Memory,
    Outcome,
    Rules,
    look,
)
from penstock.placement.base import ReplicaState, ReplicaStatus
from tests.unit.control.worlds import endpoint, fleet

DRAIN_S = 30.0


@dataclass
class Place:
    """A little world: endpoints and replicas as stored, a placement that does what the test says, and a clock."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    seen: dict[str, ReplicaStatus] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    now: float = 1000.0
    boot: str = "first"
    stopping: list[str] = field(default_factory=list)
    history: list[tuple[str, Status | None, Status | None]] = field(default_factory=list)
    last: Outcome | None = None

    def __post_init__(self) -> None:
        ids = itertools.count(1)
        self.new_id: Callable[[], str] = lambda: f"{next(ids):032x}"

    def put(self, made: Endpoint) -> Endpoint:
        self.endpoints[made.id] = made
        return made

    def look(self) -> Outcome:
        """Look, and do what was decided; stops stay under way until `finish_stops`."""
        rules = Rules(self.boot, self.new_id, DRAIN_S)
        outcome = look(self.endpoints.values(), self.replicas.values(), self.seen, self.memory, self.now, rules)
        self.last, self.memory = outcome, outcome.memory
        for decision in outcome.decisions:
            before = self.endpoints[decision.endpoint.id]
            for replica in decision.drop:
                del self.replicas[replica.id]
            if decision.forget:
                del self.endpoints[before.id]
                self.replicas = {i: r for i, r in self.replicas.items() if r.endpoint_id != before.id}
                self.history.append((before.id, before.status, None))
                continue
            if decision.write:
                self.endpoints[before.id] = replace(decision.write, revision=before.revision + 1)
                if decision.write.status is not before.status:
                    self.history.append((before.id, before.status, decision.write.status))
            for replica in decision.add:
                assert replica.id not in self.replicas
                self.replicas[replica.id] = replica
            for replica in (*decision.add, *decision.start):
                self.seen.setdefault(replica.id, ReplicaStatus(replica.id, replica.epoch, "preparing"))
            self.stopping += [replica.id for replica in decision.stop]
        return outcome

    def finish_stops(self) -> None:
        for replica_id in self.stopping:
            self.replicas.pop(replica_id, None)
            self.seen.pop(replica_id, None)
        self.stopping.clear()

    def show(self, state: ReplicaState, reason: str = "", *, of: str | None = None) -> None:
        for replica_id, status in self.seen.items():
            if of in (None, replica_id):
                self.seen[replica_id] = replace(status, state=state, reason=reason, port=8080)

    def settle(self, state: ReplicaState = "healthy") -> None:
        """Everything that was started becomes `state`, again and again, until nothing more is decided."""
        for _ in range(40):
            outcome = self.look()
            self.show(state)
            self.finish_stops()
            if not outcome.decisions and not self.look().decisions:
                return
        raise AssertionError("it never comes to rest")

    def living(self, made: Endpoint) -> list[Replica]:
        return [r for r in self.replicas.values() if r.endpoint_id == made.id and r.id not in self.stopping]

    def serving(self, made: Endpoint) -> list[str]:
        assert self.last is not None
        return [replica.id for s in self.last.serving if s.endpoint.id == made.id for replica, _ in s.replicas]


def in_service(**counts: int) -> tuple[Place, Endpoint]:
    place = Place()
    made = place.put(endpoint(**counts))
    place.settle()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    return place, made


def update(place: Place, made: Endpoint, **counts: int) -> None:
    now = place.endpoints[made.id]
    target = fleet(now.revision + 2, **counts)
    place.put(replace(now, status=after(now.status, Trigger.UPDATE), target=target, revision=now.revision + 1))  # type: ignore[arg-type]


def scale(place: Place, made: Endpoint, count: int) -> None:
    now = place.endpoints[made.id]
    variants = tuple(replace(v, count=count) for v in now.fleet.variants)
    target = replace(now.fleet, variants=variants)
    place.put(replace(now, status=after(now.status, Trigger.SCALE), target=target, revision=now.revision + 1))  # type: ignore[arg-type]


def delete(place: Place, made: Endpoint) -> None:
    now = place.endpoints[made.id]
    place.put(replace(now, status=after(now.status, Trigger.DELETE), target=None, revision=now.revision + 1))  # type: ignore[arg-type]
