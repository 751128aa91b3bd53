"""The rules of `reconcile.look`, one look at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.control.fleet import (
    Slot,
)
from penstock.control.lifecycle import IllegalTransition, Status, Trigger
from penstock.control.reconcile import (
    BACKOFF_CAP_S,
    UNHEALTHY_GRACE_S,
    Memory,
    move,
)
from penstock.placement.base import ReplicaStatus
from tests.unit.control.place import DRAIN_S, Place, delete, in_service, scale, update
from tests.unit.control.worlds import endpoint


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
