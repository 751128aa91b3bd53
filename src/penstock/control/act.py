"""The reconciler at work: look, tell the gateways, write, start and stop; again whenever something changes.

Owns the order of these steps and what happens when one of them fails. It must never decide: `reconcile.look` does.
The routing table goes out before a status is written, so that who reads InService can invoke; and a replica is out of the table before
it gets its SIGTERM. When the database can't be written nothing is decided anew, but what died still leaves the table at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace

from penstock.control.fleet import Endpoint, Replica, spec, whole_instances
from penstock.control.reconcile import Decision, Memory, Outcome, Rules, Serving, look
from penstock.control.store import Changed, Store, StoredPlan, StoreUnavailable, Transaction, World
from penstock.placement.base import Placement, ReplicaStatus

log = logging.getLogger(__name__)
RETRY_S = 1.0
START_DEADLINE_S = 60.0
STOP_GRACE_S = 30.0
TOLD_DEADLINE_S = 5.0

Publish = Callable[[tuple[Serving, ...], Mapping[str, Mapping[str, str]], Mapping[str, StoredPlan]], None]
"""Takes who serves, and the tags and the fault plans by endpoint ARN."""


class Reconciler:
    """Keeps a placement in step with the store. `publish` is told who serves after every look; clocks are seconds."""

    def __init__(
        self,
        store: Store,
        placement: Placement,
        publish: Publish,
        *,
        drain_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._store, self._placement, self._publish = store, placement, publish
        self._clock, self._wall_clock = clock, wall_clock
        self._rules = Rules(boot=new_id(), new_id=new_id, drain_s=drain_s)
        self._memory = Memory()
        self._world = World((), (), {})
        self._poked = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, ReplicaStatus] = {}
        self._gone: set[str] = set()
        self._unstopped: set[str] = set()
        self._serving: tuple[Serving, ...] = ()
        self._curious: list[asyncio.Event] = []

    def poke(self) -> None:
        """Something changed: look at once. To be called on the event loop."""
        self._poked.set()

    async def told(self) -> None:
        """Have it look, and return when the gateways have been told what it saw. Raises TimeoutError."""
        seen = asyncio.Event()
        self._curious.append(seen)
        self.poke()
        async with asyncio.timeout(TOLD_DEADLINE_S):
            await seen.wait()

    def serving(self, endpoint_id: str) -> Mapping[str, int]:
        """How many instances of each variant serve now, with all their containers."""
        for serving in self._serving:
            if serving.endpoint.id == endpoint_id:
                return whole_instances(serving.endpoint.fleet, (replica.slot for replica, _ in serving.replicas))
        return {}

    async def run(self) -> None:
        """Until cancelled. Replicas are left running: who started the placement closes it."""
        try:
            self._spawn(self._watch())
            await self._stop_strays()
            while True:
                self._poked.clear()
                try:
                    wait_s = await self.step()
                except Exception:
                    log.exception("the reconciler stumbled")
                    wait_s = RETRY_S
                try:
                    async with asyncio.timeout(wait_s):
                        await self._poked.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def step(self) -> float | None:
        """One look and its doings. Returns the seconds until the next is due at the latest, None for never."""
        curious, self._curious = self._curious, []
        try:
            self._world = await self._store.run(lambda t: t.world())
        except StoreUnavailable:
            self._curious += curious
            self._show(self._look())
            return RETRY_S
        self._memory = replace(self._memory, stopping=self._memory.stopping - self._unstopped)
        self._unstopped.clear()
        outcome, gone = self._look(), frozenset(self._gone)
        self._show(outcome)
        for event in curious:
            event.set()
        if outcome.decisions or gone:
            try:
                await self._store.run(lambda t: self._write(t, outcome.decisions, gone))
            except Changed:
                self.poke()
                return None
            except StoreUnavailable:
                return RETRY_S
            self._gone -= gone
        self._memory = outcome.memory
        for decision in outcome.decisions:
            self._do(decision)
        return None if outcome.wake_at is None else max(0.0, outcome.wake_at - self._clock())

    def _look(self) -> Outcome:
        known = {replica.id for replica in self._world.replicas}
        self._refused = {i: status for i, status in self._refused.items() if i in known}
        observed = {status.id: status for status in self._placement.observe()} | self._refused
        replicas = [replica for replica in self._world.replicas if replica.id not in self._gone]
        return look(self._world.endpoints, replicas, observed, self._memory, self._clock(), self._rules)

    def _show(self, outcome: Outcome) -> None:
        self._serving = outcome.serving
        self._publish(outcome.serving, self._world.tags, self._world.plans)

    def _write(self, t: Transaction, decisions: tuple[Decision, ...], gone: frozenset[str]) -> None:
        for replica_id in gone:
            t.remove_replica(replica_id)
        for decision in decisions:
            before, after = decision.endpoint, decision.write
            if decision.forget:
                t.remove_endpoint(before)
                continue
            if after is not None:
                moved = after.status is not before.status
                t.write_endpoint(replace(after, modified_at=round(self._wall_clock(), 3)) if moved else after)
            for replica in decision.drop:
                t.remove_replica(replica.id)
            for replica in decision.add:
                t.add_replica(replica)

    def _do(self, decision: Decision) -> None:
        """What follows from a decision that is written."""
        before, after = decision.endpoint, decision.write or decision.endpoint
        if decision.forget:
            log.info("%s: gone", before.arn)
        elif after.status is not before.status:
            why = f": {after.failure_reason}" if after.failure_reason else ""
            log.info("%s: %s -> %s%s", before.arn, before.status, after.status, why)
        for replica in (*decision.add, *decision.start):
            if replica.id not in self._starting:
                self._starting[replica.id] = self._spawn(self._start(before, replica))
        for replica in decision.stop:
            self._spawn(self._stop(before, replica))
        if decision.drop or decision.forget or after.status is not before.status:
            self.poke()

    async def _start(self, endpoint: Endpoint, replica: Replica) -> None:
        variant = endpoint.plan(replica.slot)
        assert variant is not None, "a replica is added for a slot of one of the endpoint's fleets"
        try:
            log.info("%s: start %s of %s, epoch %d", endpoint.arn, replica.id, replica.slot, replica.epoch)
            async with asyncio.timeout(START_DEADLINE_S):
                await self._placement.start(spec(endpoint, replica, variant))
        except Exception as error:
            log.exception("%s: replica %s can't be started", endpoint.arn, replica.id)
            text = str(error) or type(error).__name__
            reason = f"Unable to provision requested ML compute capacity: {text}"
            self._refused[replica.id] = ReplicaStatus(replica.id, replica.epoch, "failed", reason=reason)
        finally:
            self._starting.pop(replica.id, None)
        self.poke()

    async def _stop(self, endpoint: Endpoint, replica: Replica) -> None:
        try:
            if starting := self._starting.get(replica.id):
                await asyncio.wait(
                    [starting]
                )  # stopping what is not yet there would be nothing, and then it would come
            log.info("%s: stop %s of %s", endpoint.arn, replica.id, replica.slot)
            async with asyncio.timeout(STOP_GRACE_S * 2):
                await self._placement.stop(replica.id, grace_s=STOP_GRACE_S)
        except Exception:
            log.exception("%s: replica %s can't be stopped", endpoint.arn, replica.id)
            await asyncio.sleep(RETRY_S)
            self._unstopped.add(replica.id)
        else:
            self._gone.add(replica.id)
        self.poke()

    async def _watch(self) -> None:
        while True:
            try:
                await self._placement.changed()
            except Exception:
                log.exception("the placement can't be watched")
                await asyncio.sleep(RETRY_S)
            self.poke()

    async def _stop_strays(self) -> None:
        """Replicas of an earlier life that run, and that the store does not know."""
        while True:
            try:
                known = {replica.id for replica in (await self._store.run(lambda t: t.world())).replicas}
                break
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
        for status in self._placement.observe():
            if status.id not in known:
                self._spawn(self._placement.stop(status.id))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
