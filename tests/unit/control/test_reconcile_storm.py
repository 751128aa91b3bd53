"""Any disorder at all, and what holds in it and after it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.control.fleet import (
    Host,
    Slot,
)
from penstock.control.lifecycle import SERVING, TRANSITIONS, Status
from penstock.control.reconcile import (
    Memory,
)
from tests.unit.control.place import Place, delete, scale, update
from tests.unit.control.worlds import endpoint

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
