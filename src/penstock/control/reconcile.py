"""What to do next, as a pure function: the endpoints that should be and the replicas that are seen, to decisions.

Owns the rules by which replicas are started, replaced and stopped, and by which an endpoint's status moves. It must never act, nor ask
a clock: `act.py` does. Told the same twice, it says the same twice; told of any disorder, a few looks later all is as it should be.

- A slot without a living replica gets one. A replica that died while its endpoint serves is replaced at once, then after 1, 2, 4 … 60 s.
- A replica of another boot that the placement does not know was lost with the control process before us. It is nobody's failure.
- A replica that is no longer wanted leaves the routing table first and is stopped `drain_s` later, so that its streams can end; at once
  where it never served, or where the endpoint itself goes.
- Creating fails with the first replica that can't start, or the third death in one slot. An update fails likewise and rolls back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from penstock.control.fleet import Endpoint, Replica, Slot
from penstock.control.lifecycle import SERVING, Status, Trigger, after
from penstock.placement.base import ReplicaStatus

BACKOFF_CAP_S = 60.0
FORGET_FAILURES_S = 300.0
UNHEALTHY_GRACE_S = 30.0
DEATHS_WHILE_CREATING = 3

NO_PING = (
    "The {container} container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


@dataclass(frozen=True, slots=True)
class Failures:
    """How often in a row a slot lost its replica, when last (seconds, monotonic), and why."""

    count: int
    last: float
    reason: str = ""

    def due(self) -> float:
        """When the slot may be filled again."""
        return self.last + (0.0 if self.count < 2 else min(BACKOFF_CAP_S, 2.0 ** (self.count - 2)))


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two looks. Losing it (a restart) does no harm.

    `stopping`: replicas being stopped. `since`: when a replica was first seen unhealthy or unwanted.
    """

    failures: Mapping[tuple[str, Slot], Failures] = field(default_factory=dict)
    stopping: frozenset[str] = frozenset()
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one endpoint: all of it or, when someone else wrote the endpoint meanwhile, nothing.

    `write` is the endpoint as it should be stored (None: as it is); `forget` removes it. `add` are new replicas to store, then start;
    `start` those to start again; `stop` those to stop and, once gone, to remove; `drop` those to remove at once.
    """

    endpoint: Endpoint
    write: Endpoint | None = None
    forget: bool = False
    add: tuple[Replica, ...] = ()
    start: tuple[Replica, ...] = ()
    stop: tuple[Replica, ...] = ()
    drop: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """An endpoint that can be invoked once the decisions are written, and the replicas that may get its traffic.

    A component is told of in every status, so that who names it hears that it has no copies yet, not that it does not exist.
    """

    endpoint: Endpoint
    replicas: tuple[tuple[Replica, ReplicaStatus], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Decisions, what to remember, when to look again at the latest (None: when something changes), and who serves now."""

    decisions: tuple[Decision, ...]
    memory: Memory
    wake_at: float | None
    serving: tuple[Serving, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a look needs besides what is seen. `new_id` makes 32 hex digits that never were; `boot` is this process's own."""

    boot: str
    new_id: Callable[[], str]
    drain_s: float = 30.0


def look(
    endpoints: Iterable[Endpoint],
    replicas: Iterable[Replica],
    observed: Mapping[str, ReplicaStatus],
    memory: Memory,
    now: float,
    rules: Rules,
) -> Outcome:
    """One look at everything. `now` in seconds, monotonic."""
    of_endpoint: dict[str, list[Replica]] = {}
    for replica in replicas:
        of_endpoint.setdefault(replica.endpoint_id, []).append(replica)
    decisions: list[Decision] = []
    serving: list[Serving] = []
    wanted: set[tuple[str, Slot]] = set()
    remembered = _Notes(memory, now)
    for endpoint in endpoints:
        mine = of_endpoint.get(endpoint.id, [])
        view = _View(endpoint, mine, observed, remembered, rules)
        view.sort_replicas()
        view.fill_slots()
        decision = view.decide()
        if (then := decision.write or endpoint).status in SERVING or (then.host and not decision.forget):
            serving.append(Serving(then, view.serving(then)))
        if decision != Decision(endpoint):
            decisions.append(decision)
        wanted.update((endpoint.id, slot) for slot in view.wanted)
    known = {r.id for rs in of_endpoint.values() for r in rs}
    return Outcome(tuple(decisions), remembered.memory(known, wanted), remembered.wake_at, tuple(serving))


class _Notes:
    """The memory while a look goes on."""

    def __init__(self, memory: Memory, now: float) -> None:
        self.now = now
        self.failures = dict(memory.failures)
        self.stopping = set(memory.stopping)
        self.old_since = memory.since
        self.since: dict[str, float] = {}
        self.wake_at: float | None = None

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(at, self.wake_at)

    def waited(self, replica: Replica, seconds: float) -> bool:
        """True when `replica` has been in a bad way for `seconds`; else a wake-up is noted."""
        began = self.since[replica.id] = self.old_since.get(replica.id, self.now)
        if self.now >= began + seconds:
            return True
        self.wake(began + seconds)
        return False

    def fail(self, endpoint: Endpoint, replica: Replica, reason: str) -> None:
        key = endpoint.id, replica.slot
        old = self.failures.get(key)
        count = old.count + 1 if old and self.now - old.last < FORGET_FAILURES_S else 1
        self.failures[key] = Failures(count, self.now, reason)

    def memory(self, replicas: Collection[str], slots: Collection[tuple[str, Slot]]) -> Memory:
        return Memory(
            {key: failures for key, failures in self.failures.items() if key in slots},
            frozenset(self.stopping.intersection(replicas)),
            self.since,
        )


class _View:
    """One endpoint during a look."""

    def __init__(
        self,
        endpoint: Endpoint,
        replicas: list[Replica],
        observed: Mapping[str, ReplicaStatus],
        notes: _Notes,
        rules: Rules,
    ) -> None:
        self.endpoint, self.replicas, self.observed, self.notes, self.rules = endpoint, replicas, observed, notes, rules
        self.wanted = endpoint.wanted()
        self.live: dict[Slot, Replica] = {}
        self.add: list[Replica] = []
        self.start: list[Replica] = []
        self.stop: list[Replica] = []
        self.drop: list[Replica] = []
        self.fatal = ""

    def sort_replicas(self) -> None:
        """Each replica is one of: leaving already, lost, dead, unwanted, to be started, or alive."""
        for replica in sorted(self.replicas, key=lambda r: -r.epoch):
            status = self.observed.get(replica.id)
            if replica.id in self.notes.stopping:
                continue
            if status is None and replica.boot != self.rules.boot:
                self.drop.append(replica)
            elif replica.slot not in self.wanted or replica.slot in self.live:
                self.retire(replica, status)
            elif status is None:
                self.start.append(replica)
                self.live[replica.slot] = replica
            elif self.is_dead(replica, status):
                self.bury(replica, status)
            else:
                self.live[replica.slot] = replica

    def is_dead(self, replica: Replica, status: ReplicaStatus) -> bool:
        if status.state == "unhealthy":
            return self.notes.waited(replica, UNHEALTHY_GRACE_S)
        return status.state in ("exited", "failed")

    def retire(self, replica: Replica, status: ReplicaStatus | None) -> None:
        served = status is not None and status.state == "healthy" and self.has_served(replica)
        if not served or self.notes.waited(replica, self.rules.drain_s):
            self.let_go(replica)

    def bury(self, replica: Replica, status: ReplicaStatus) -> None:
        variant = self.endpoint.plan(replica.slot)
        name = replica.slot.container or (variant.container if variant else "primary")
        words = NO_PING.format(container=name, variant=replica.slot.variant)
        self.notes.fail(self.endpoint, replica, status.reason or words)
        failures = self.notes.failures[self.endpoint.id, replica.slot]
        hopeless = status.state == "failed" or failures.count >= DEATHS_WHILE_CREATING
        if hopeless and self.is_new(replica.slot):
            self.fatal = self.fatal or failures.reason
        self.let_go(replica)

    def has_served(self, replica: Replica) -> bool:
        match self.endpoint.status:
            case Status.IN_SERVICE | Status.UPDATING:
                return True
            case Status.ROLLING_BACK:
                return replica.slot.generation < self.endpoint.fleet.generation
        return False

    def let_go(self, replica: Replica) -> None:
        self.stop.append(replica)
        self.notes.stopping.add(replica.id)

    def is_new(self, slot: Slot) -> bool:
        """Whether the endpoint's next status hangs on this slot."""
        if self.endpoint.status is Status.CREATING:
            return True
        return self.endpoint.status is Status.UPDATING and slot not in frozenset(self.endpoint.fleet.slots())

    def fill_slots(self) -> None:
        epoch = self.endpoint.epoch
        instances = {slot.instance: replica.instance_id for slot, replica in self.live.items()}
        if self.fatal:
            return
        for slot in sorted(self.wanted - self.live.keys()):
            failures = self.notes.failures.get((self.endpoint.id, slot))
            if failures and self.notes.now < failures.due():
                self.notes.wake(failures.due())
                continue
            epoch += 1
            new = self.rules.new_id()
            instance_id = instances.setdefault(
                slot.instance, f"i-0{new[:16]}"
            )  # the one of its other containers, if any
            self.add.append(Replica(new, self.endpoint.id, slot, epoch, instance_id, self.rules.boot))

    def healthy(self, slots: Iterable[Slot]) -> bool:
        for slot in slots:
            replica = self.live.get(slot)
            status = self.observed.get(replica.id) if replica else None
            if status is None or status.state != "healthy":
                return False
        return True

    def trigger(self) -> Trigger | None:
        endpoint = self.endpoint
        match endpoint.status:
            case Status.CREATING | Status.UPDATING if self.fatal:
                return Trigger.FAILED
            case Status.CREATING if self.healthy(endpoint.fleet.slots()):
                return Trigger.HEALTHY
            case Status.UPDATING if endpoint.target and self.healthy(endpoint.target.slots()):
                return Trigger.HEALTHY
            case Status.ROLLING_BACK if all(r.slot in self.wanted or self.has_served(r) for r in self.replicas):
                return Trigger.WITHDRAWN
            case Status.DELETING if not set(self.replicas) - set(self.drop):
                return Trigger.GONE
        return None

    def decide(self) -> Decision:
        endpoint, trigger = self.endpoint, self.trigger()
        write: Endpoint | None = None
        if trigger is Trigger.GONE:
            return Decision(endpoint, forget=True)
        if trigger is not None:
            write = move(endpoint, trigger, self.fatal)
        if self.add:
            write = replace(write or endpoint, epoch=self.add[-1].epoch)
        return Decision(endpoint, write, False, tuple(self.add), tuple(self.start), tuple(self.stop), tuple(self.drop))

    def serving(self, endpoint: Endpoint) -> tuple[tuple[Replica, ReplicaStatus], ...]:
        fleet = frozenset(endpoint.fleet.slots()) if endpoint.status in SERVING else frozenset[Slot]()
        return tuple(
            (replica, status)
            for slot, replica in sorted(self.live.items())
            if slot in fleet and (status := self.observed.get(replica.id)) and status.state == "healthy"
        )


def move(endpoint: Endpoint, trigger: Trigger, reason: str = "") -> Endpoint:
    """The endpoint after something that was seen. Raises lifecycle.IllegalTransition."""
    status = after(endpoint.status, trigger)
    assert status is not None, "an endpoint that is gone is removed, not written"
    if trigger is Trigger.HEALTHY:
        return replace(endpoint, status=status, fleet=endpoint.target or endpoint.fleet, target=None, failure_reason="")
    if trigger is Trigger.FAILED:
        return replace(endpoint, status=status, target=None, failure_reason=reason)
    return replace(endpoint, status=status)
