"""A placement in memory: replicas that only say they live.

Owns nothing but statuses. For tests of what stands above a placement: `healthy`, `unhealthy`, `exit` and `fail` make a replica do
what a real one does by itself. It must never start anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from penstock.placement.base import ModelData, ReplicaSpec, ReplicaState, ReplicaStatus


@dataclass(frozen=True, slots=True)
class Plan:
    """What a new replica does by itself: `state` at once, told `reason` with it; a stop takes `stop_s` seconds."""

    state: ReplicaState = "healthy"
    reason: str = ""
    stop_s: float = 0.0


class NullPlacement:
    """Keeps every promise of `Placement` without a process. `plan` decides, for each spec, what becomes of it."""

    def __init__(self, plan: Callable[[ReplicaSpec], Plan] = lambda spec: Plan()) -> None:
        self._plan = plan
        self._statuses: dict[str, ReplicaStatus] = {}
        self._plans: dict[str, Plan] = {}
        self._change = asyncio.Event()
        self._ports = iter(range(20_000, 60_000))
        self._closed = False
        self.started: list[ReplicaSpec] = []
        """Every spec that was begun, in order."""
        self.stopped: list[tuple[str, float]] = []
        """Every stop of a replica that there was: its id and the grace it was given."""
        self.models: set[tuple[str, str]] = set()
        """Replica and name of every further model that is there."""

    async def start(self, spec: ReplicaSpec) -> None:
        if self._closed:
            raise RuntimeError("the placement is closed")
        if spec.id in self._statuses:
            return
        self.started.append(spec)
        plan = self._plans[spec.id] = self._plan(spec)
        self._statuses[spec.id] = ReplicaStatus(spec.id, spec.epoch, "preparing")
        self.become(spec.id, plan.state, plan.reason)

    async def stop(self, replica_id: str, *, grace_s: float = 30.0) -> None:
        if replica_id not in self._statuses:
            return
        self.stopped.append((replica_id, grace_s))
        await asyncio.sleep(min(self._plans[replica_id].stop_s, grace_s))
        self._statuses.pop(replica_id, None)
        self.models = {(replica, name) for replica, name in self.models if replica != replica_id}
        self._change.set()

    def observe(self) -> tuple[ReplicaStatus, ...]:
        return tuple(self._statuses.values())

    async def changed(self) -> None:
        await self._change.wait()
        self._change.clear()

    async def add_model(self, replica_id: str, name: str, data: ModelData) -> str:
        if replica_id not in self._statuses:
            raise KeyError(replica_id)
        self.models.add((replica_id, name))
        return f"/opt/ml/models/{name}/model"

    async def remove_model(self, replica_id: str, name: str) -> None:
        self.models.discard((replica_id, name))

    async def close(self, *, grace_s: float = 30.0) -> None:
        self._closed = True
        await asyncio.gather(*(self.stop(replica_id, grace_s=grace_s) for replica_id in list(self._statuses)))

    def healthy(self, replica_id: str) -> None:
        self.become(replica_id, "healthy")

    def unhealthy(self, replica_id: str) -> None:
        self.become(replica_id, "unhealthy")

    def exit(self, replica_id: str, reason: str = "The container was killed by SIGKILL.") -> None:
        self.become(replica_id, "exited", reason)

    def fail(self, replica_id: str, reason: str) -> None:
        self.become(replica_id, "failed", reason)

    def become(self, replica_id: str, state: ReplicaState, reason: str = "") -> None:
        """Put a replica into a state. Raises KeyError on an id that does not run."""
        status = replace(self._statuses[replica_id], state=state, reason=reason)
        if state in ("starting", "healthy") and not status.port:
            status = replace(status, host="127.0.0.1", port=next(self._ports), pid=1_000_000 + len(self.started))
        self._statuses[replica_id] = status
        self._change.set()
