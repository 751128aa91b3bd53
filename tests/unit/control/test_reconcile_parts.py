"""The rules for inference components, and for several containers on an instance."""

from __future__ import annotations

import itertools
from dataclasses import replace

from penstock.control.fleet import (
    Container,
    Fleet,
    ProductionVariant,
    Slot,
    whole_instances,
)
from penstock.control.lifecycle import Status
from tests.unit.control.place import Place
from tests.unit.control.worlds import component, endpoint, hosting


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
