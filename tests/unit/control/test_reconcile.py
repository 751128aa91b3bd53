"""The rules of `reconcile.look`: one look at a time, then any disorder at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.control.fleet import (
    Container,
    Endpoint,
    Fleet,
    Host,
    ProductionVariant,
    Replica,
    Slot,
    whole_instances,
)
from penstock.control.lifecycle import SERVING, TRANSITIONS, IllegalTransition, Status, Trigger, after
from penstock.control.reconcile import (
    BACKOFF_CAP_S,
    UNHEALTHY_GRACE_S,
    Memory,
    Outcome,
    Rules,
    look,
    move,
)
from penstock.placement.base import ReplicaState, ReplicaStatus
from tests.unit.control.worlds import component, endpoint, fleet, hosting

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


def test_creating_starts_every_slot_and_is_in_service_when_all_answer() -> None:
    place = Place()
    made = place.put(endpoint(a=2, b=1))
    place.look()
    assert [r.slot for r in place.living(made)] == [Slot(1, "a", 0), Slot(1, "a", 1), Slot(1, "b", 0)]
    assert [r.epoch for r in place.living(made)] == [1, 2, 3]
    first, *others = place.living(made)
    place.show("healthy", of=first.id)
    place.look()
    assert place.endpoints[made.id].status is Status.CREATING
    assert place.serving(made) == []
    for other in others:
        place.show("healthy", of=other.id)
    place.look()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    assert place.serving(made) == [first.id, *(o.id for o in others)]


def test_an_endpoint_for_components_needs_no_replicas() -> None:
    place = Place()
    made = place.put(replace(hosting(), status=Status.CREATING))
    place.look()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    assert place.living(made) == []


def test_a_component_is_told_of_in_every_status_with_copies_only_where_it_serves() -> None:
    place = Place()
    host = place.put(hosting())
    made = place.put(component(host, copies=2))

    def told() -> list[str] | None:
        assert place.last is not None
        found = [s for s in place.last.serving if s.endpoint.id == made.id]
        return [replica.id for replica, _ in found[0].replicas] if found else None

    place.look()
    first, second = place.living(made)
    place.show("healthy", of=first.id)
    place.look()
    assert (place.endpoints[made.id].status, told()) == (Status.CREATING, [])
    place.show("healthy", of=second.id)
    place.look()
    assert (place.endpoints[made.id].status, told()) == (Status.IN_SERVICE, [first.id, second.id])
    place.endpoints[made.id] = replace(place.endpoints[made.id], status=Status.DELETING)
    place.look()
    assert told() == []
    place.finish_stops()
    place.look()
    assert made.id not in place.endpoints
    assert told() is None
    assert place.endpoints[host.id].status is Status.IN_SERVICE


def test_a_component_without_copies_is_in_service() -> None:
    place = Place()
    made = place.put(component(place.put(hosting()), copies=0))
    place.settle()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    assert place.serving(made) == []


def test_a_components_dead_copy_is_replaced_and_the_others_serve_on() -> None:
    place = Place()
    made = place.put(component(place.put(hosting()), copies=3))
    place.settle()
    first, *others = place.living(made)
    place.show("exited", of=first.id)
    place.look()
    assert place.serving(made) == [other.id for other in others]
    place.settle()
    assert len(place.serving(made)) == 3
    assert place.endpoints[made.id].status is Status.IN_SERVICE


def test_nothing_is_decided_twice() -> None:
    place, _ = in_service()
    assert place.look().decisions == ()


def test_a_replica_that_can_not_start_fails_the_creation_with_its_reason() -> None:
    place = Place()
    made = place.put(endpoint(a=2))
    place.look()
    place.show("failed", "it would not", of=place.living(made)[1].id)
    place.look()
    now = place.endpoints[made.id]
    assert (now.status, now.failure_reason) == (Status.FAILED, "it would not")
    place.look()
    place.finish_stops()
    assert place.living(made) == []
    assert place.look().decisions == ()


def test_a_failure_without_a_reason_gets_awss_words() -> None:
    place = Place()
    made = place.put(endpoint(AllTraffic=1))
    place.look()
    place.show("failed")
    place.look()
    assert place.endpoints[made.id].failure_reason == (
        "The primary container for production variant AllTraffic did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )


def test_creating_gives_up_at_the_third_death_of_a_slot() -> None:
    place = Place()
    made = place.put(endpoint())
    for death in range(1, 4):
        place.look()
        assert place.endpoints[made.id].status is Status.CREATING
        place.show("exited", f"death {death}")
        place.look()
        place.finish_stops()
        place.now += BACKOFF_CAP_S
    assert place.endpoints[made.id].status is Status.FAILED
    assert place.endpoints[made.id].failure_reason == "death 3"


def test_a_dead_replica_is_out_of_the_table_at_once_and_replaced_with_a_higher_epoch() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    place.show("exited")
    place.look()
    assert place.serving(made) == []
    (new,) = place.living(made)
    assert new.id != old.id
    assert new.epoch > old.epoch
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    place.show("healthy", of=new.id)
    place.look()
    assert place.serving(made) == [new.id]


def test_replacing_backs_off_and_forgets_after_a_long_good_time() -> None:
    place, made = in_service()
    waits = []
    for _ in range(10):
        place.show("exited")
        outcome = place.look()
        place.finish_stops()
        began = place.now
        while not place.living(made):
            assert outcome.wake_at is not None
            place.now = outcome.wake_at
            outcome = place.look()
        waits.append(place.now - began)
        place.show("healthy")
        place.look()
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    place.now += 3600
    place.show("exited")
    place.look()
    assert len(place.living(made)) == 1


def test_an_unhealthy_replica_gets_no_traffic_and_is_replaced_after_a_grace() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    place.show("unhealthy")
    outcome = place.look()
    assert place.serving(made) == []
    assert place.living(made) == [old]
    assert outcome.wake_at == place.now + UNHEALTHY_GRACE_S
    place.now = outcome.wake_at
    place.look()
    assert [r.id for r in place.living(made)] != [old.id]


def test_an_unhealthy_replica_that_recovers_stays() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    for _ in range(3):
        place.show("unhealthy")
        place.look()
        place.now += UNHEALTHY_GRACE_S - 1
        place.look()
        place.show("healthy")
        place.look()
        assert place.serving(made) == [old.id]


@pytest.mark.parametrize("status", [Status.CREATING, Status.IN_SERVICE, Status.UPDATING])
def test_after_a_restart_every_lost_replica_is_placed_anew_and_it_is_nobodys_failure(status: Status) -> None:
    place = Place()
    made = place.put(endpoint(a=2))
    place.look()
    if status is not Status.CREATING:
        place.settle()
    if status is Status.UPDATING:
        update(place, made)
        place.look()
    old = place.living(made)
    place.boot, place.seen, place.memory, place.stopping = "second", {}, Memory(), []
    place.look()
    new = place.living(made)
    assert sorted(r.slot for r in new) == sorted(r.slot for r in old)
    assert not {r.id for r in new} & {r.id for r in old}
    assert min(r.epoch for r in new) > max(r.epoch for r in old)
    assert place.endpoints[made.id].status is status
    assert place.memory.failures == {}
    place.settle()
    assert place.endpoints[made.id].status is Status.IN_SERVICE


def test_after_a_restart_a_deletion_is_finished() -> None:
    place, made = in_service()
    delete(place, made)
    place.look()
    place.boot, place.seen, place.memory, place.stopping = "second", {}, Memory(), []
    place.look()
    assert (place.endpoints, place.replicas) == ({}, {})


def test_a_start_that_was_lost_is_repeated_as_it_was() -> None:
    place = Place()
    made = place.put(endpoint())
    place.look()
    (replica,) = place.living(made)
    place.seen.clear()
    (decision,) = place.look().decisions
    assert decision.start == (replica,)
    assert decision.add == ()


def test_deleting_while_creating_stops_and_forgets() -> None:
    place = Place()
    made = place.put(endpoint(a=2))
    place.look()
    delete(place, made)
    place.look()
    assert len(place.stopping) == 2
    assert made.id in place.endpoints
    place.finish_stops()
    place.look()
    assert place.endpoints == {}


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


def test_an_update_starts_the_new_before_it_drops_the_old() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    update(place, made)
    place.look()
    assert place.serving(made) == [old.id]
    (new,) = [r for r in place.living(made) if r.id != old.id]
    place.show("healthy", of=new.id)
    place.look()
    assert place.serving(made) == [new.id], "by the time that the status says InService"
    outcome = place.look()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    assert place.endpoints[made.id].fleet.config != made.fleet.config
    assert place.serving(made) == [new.id]
    assert place.stopping == [], "its streams may end first"
    assert outcome.wake_at == place.now + DRAIN_S
    place.now = outcome.wake_at
    place.look()
    assert place.stopping == [old.id]


def test_an_update_that_fails_rolls_back_and_the_old_never_stops_serving() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    update(place, made)
    place.look()
    (new,) = [r for r in place.living(made) if r.id != old.id]
    place.show("failed", "bad image", of=new.id)
    place.look()
    assert place.endpoints[made.id].status is Status.ROLLING_BACK
    assert place.serving(made) == [old.id]
    place.finish_stops()
    place.look()
    place.look()
    now = place.endpoints[made.id]
    assert (now.status, now.failure_reason) == (Status.IN_SERVICE, "bad image")
    assert (now.fleet, now.target) == (made.fleet, None)
    assert place.serving(made) == [old.id]


def test_an_old_replica_that_dies_during_an_update_is_replaced_too() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    update(place, made)
    place.look()
    place.show("exited", of=old.id)
    place.look()
    assert place.endpoints[made.id].status is Status.UPDATING
    assert sorted(r.slot.generation for r in place.living(made)) == [1, place.endpoints[made.id].target.generation]  # type: ignore[union-attr]


@pytest.mark.parametrize(("before", "then"), [(1, 3), (3, 1), (2, 2)])
def test_scaling_keeps_the_replicas_that_stay(before: int, then: int) -> None:
    place, made = in_service(main=before)
    old = {r.id for r in place.living(made)}
    scale(place, made, then)
    place.settle()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    place.now += DRAIN_S
    place.settle()
    assert len(place.living(made)) == then
    assert len(old & {r.id for r in place.living(made)}) == min(before, then)


def test_streams_that_drain_are_not_cut_by_the_next_update() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    update(place, made)
    place.settle()
    update(place, made)
    place.look()
    assert old.id not in place.stopping


def test_a_rollback_does_not_wait_for_streams_that_drain() -> None:
    place, made = in_service()
    update(place, made)
    place.settle()
    update(place, made)
    place.look()
    new = max(place.living(made), key=lambda r: r.epoch)
    place.show("failed", "bad image", of=new.id)
    place.look()
    place.finish_stops()
    place.look()
    place.look()
    assert place.endpoints[made.id].status is Status.IN_SERVICE


def test_of_two_replicas_in_one_slot_the_newer_stays() -> None:
    place, made = in_service()
    (old,) = place.living(made)
    new = replace(old, id="n" * 32, epoch=old.epoch + 1)
    place.replicas[new.id] = new
    place.seen[new.id] = ReplicaStatus(new.id, new.epoch, "healthy")
    place.look()
    assert place.serving(made) == [new.id]
    place.now += DRAIN_S
    place.look()
    assert place.stopping == [old.id]


def test_move_refuses_what_the_table_lacks() -> None:
    with pytest.raises(IllegalTransition):
        move(endpoint("e", Status.FAILED), Trigger.HEALTHY)


# -- Any order of events ----------------------------------------------------------------------------------------------

EVENTS = (
    "create",
    "delete",
    "update",
    "scale",
    "healthy",
    "exited",
    "failed",
    "unhealthy",
    "vanish",
    "stops",
    "time",
    "restart",
)
events = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 7)), max_size=60)


def happen(place: Place, what: str, which: int) -> None:
    """One event of the storm; one that makes no sense now is left out."""
    made = list(place.endpoints.values())
    target = made[which % len(made)] if made else None
    if what == "create" and len(made) < 3:
        new = endpoint(f"e{place.now}", a=which % 4)
        place.put(replace(new, host=Host("h" * 32, "h", "a")) if which % 2 else new)
    elif what == "restart":
        place.boot, place.seen, place.memory, place.stopping = place.boot + "'", {}, Memory(), []
    elif what == "stops":
        place.finish_stops()
    elif what == "time":
        place.now += (0.5, 1, 5, 31, 61, 301, 0, 1000)[which]
    elif what in ("healthy", "exited", "failed", "unhealthy") and place.seen:
        ids = sorted(place.seen)
        chosen = place.seen[ids[which % len(ids)]]
        if chosen.state not in ("exited", "failed") and (what == "failed") <= (chosen.state == "preparing"):
            place.show(what, "why", of=chosen.id)  # type: ignore[arg-type]
    elif what == "vanish" and place.seen:
        ids = sorted(place.seen)
        del place.seen[ids[which % len(ids)]]
    elif target is not None and what == "delete":
        delete(place, target)
    elif target is not None and target.status is Status.IN_SERVICE and what == "update":
        update(place, target, a=which % 2 + 1, b=1)
    elif target is not None and target.status is Status.IN_SERVICE and what == "scale":
        scale(place, target, which % 4 + 1)


def check(place: Place) -> None:
    """What holds at every moment. A naive reading of the rules, from the stored values alone."""
    assert place.last is not None
    for serving in place.last.serving:
        made = place.endpoints[serving.endpoint.id]
        assert made.status in SERVING or (made.host and not serving.replicas)
        slots = [replica.slot for replica, _ in serving.replicas]
        assert len(slots) == len(set(slots)), "two replicas serve one slot"
        assert set(slots) <= set(made.fleet.slots()), "an update serves too early, or an old fleet too long"
        for replica, status in serving.replicas:
            assert status.state == "healthy"
            assert replica.id in place.replicas
    for _, before, then in place.history:
        assert any(place_ is before and to is then for (place_, _), to in TRANSITIONS.items()), (before, then)


@settings(max_examples=300, deadline=None)
@given(events)
def test_after_any_disorder_all_is_as_it_should_be(storm: list[tuple[str, int]]) -> None:
    place = Place()
    epochs: dict[tuple[str, Slot], list[int]] = {}
    for what, which in storm:
        happen(place, what, which)
        known = set(place.replicas)
        place.look()
        check(place)
        for replica in place.replicas.values():
            if replica.id not in known:
                epochs.setdefault((replica.endpoint_id, replica.slot), []).append(replica.epoch)
    for filled in epochs.values():
        assert filled == sorted(set(filled)), "an epoch that does not rise"
    # Calm: what runs is healthy, what stops ends, time goes by.
    for _ in range(12):
        place.look()
        place.finish_stops()
        place.show("healthy")
        place.now += 61
    assert place.look().decisions == ()
    for made in place.endpoints.values():
        alive = sorted(r.slot for r in place.living(made))
        if made.status is Status.FAILED:
            assert alive == []
        else:
            assert made.status is Status.IN_SERVICE
            assert alive == sorted(made.fleet.slots())
            assert len(place.serving(made)) == len(alive)
    assert {r.endpoint_id for r in place.replicas.values()} <= set(place.endpoints)
    assert {m.status for m in place.endpoints.values()} - {Status.FAILED} <= SERVING


def test_one_of_several_containers_is_replaced_alone_on_its_instance() -> None:
    several = tuple(Container(name, "penstock/scripted") for name in ("one", "two"))
    place = Place()
    ids = itertools.count(1)
    place.new_id = lambda: f"{next(ids):016x}{0:016x}"
    made = place.put(endpoint())
    variant = ProductionVariant("main", "i", count=2, containers=several)
    place.endpoints[made.id] = made = replace(made, fleet=Fleet(1, "c", (variant,)))
    place.look()
    started = place.living(made)
    assert [r.slot for r in started] == [Slot(1, "main", n, name) for n in (0, 1) for name in ("one", "two")]
    assert len({r.instance_id for r in started}) == 2
    assert started[0].instance_id == started[1].instance_id
    for replica in started[:3]:
        place.show("healthy", of=replica.id)
    place.look()
    assert place.endpoints[made.id].status is Status.CREATING
    place.show("healthy", of=started[3].id)
    place.settle()
    assert place.endpoints[made.id].status is Status.IN_SERVICE
    place.show("exited", of=started[1].id)
    place.look()
    assert place.serving(made) == [started[0].id, started[2].id, started[3].id]
    (new,) = [r for r in place.living(made) if r not in started]
    assert (new.slot, new.instance_id) == (started[1].slot, started[0].instance_id)
    assert new.epoch > max(r.epoch for r in started)


def test_an_instance_counts_when_it_is_whole() -> None:
    several = tuple(Container(name, "penstock/scripted") for name in ("one", "two"))
    made = Fleet(1, "c", (ProductionVariant("m", "i", 2, containers=several), ProductionVariant("n", "i", 2)))
    slots = list(made.slots())
    assert whole_instances(made, slots) == {"m": 2, "n": 2}
    assert whole_instances(made, [slot for slot in slots if slot != Slot(1, "m", 1, "two")]) == {"m": 1, "n": 2}
    assert whole_instances(made, ()) == {}
