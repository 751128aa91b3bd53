"""Which variant and which replica: weights, counts, limits, and what a new table keeps of the old one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from penstock.errors import AwsError
from penstock.gateway.components import narrowed
from penstock.gateway.limits import full_at
from penstock.gateway.routing import Route, Routes, choose
from penstock.routes import (
    Container,
    Endpoint,
    InferenceComponent,
    MultiModel,
    Replica,
    RoutingStrategy,
    RoutingTable,
    Variant,
    decode_table,
    encode_line,
)


def table(*variants: Variant, version: int = 1) -> RoutingTable:
    return RoutingTable(version, (Endpoint("ep", "arn", "us-east-1", "1", variants),))


def variant(
    name: str = "v", weight: float = 1.0, replicas: int = 1, routing: RoutingStrategy = "RANDOM", room: int = 0
) -> Variant:
    places = tuple(Replica(f"{name}{n}", 1, "127.0.0.1", 1000 + n) for n in range(replicas))
    return Variant(name, weight, places, routing=routing, max_concurrency=room)


def routed(*variants: Variant) -> Routes:
    routes = Routes()
    routes.apply(table(*variants))
    return routes


def test_an_endpoint_is_of_one_account_and_region() -> None:
    routes = routed(variant())
    assert routes.route("1", "us-east-1", "ep")
    assert routes.route("2", "us-east-1", "ep") is None
    assert routes.route("1", "eu-west-1", "ep") is None
    assert routes.route("1", "us-east-1", "EP") is None


def test_variants_are_drawn_by_weight(rng: random.Random) -> None:
    route = routed(variant("a", 3), variant("b", 1), variant("off", 0)).route("1", "us-east-1", "ep")
    assert route is not None
    drawn = Counter(one.variant.name for _ in range(8000) if (one := route.by_weight(rng)))
    assert set(drawn) == {"a", "b"}
    assert 0.70 < drawn["a"] / 8000 < 0.80


def test_random_reaches_every_replica_and_spares_the_tried(rng: random.Random) -> None:
    route = routed(variant(replicas=4)).route("1", "us-east-1", "ep")
    assert route is not None
    one = route.variants[0]
    assert {choose(one, rng) for _ in range(200)} == set(one.targets)
    assert {choose(one, rng, one.targets[:3]) for _ in range(50)} == {one.targets[3]}
    assert choose(one, rng, one.targets) is None


def test_least_outstanding_takes_the_least_busy(rng: random.Random) -> None:
    route = routed(variant(replicas=3, routing="LEAST_OUTSTANDING_REQUESTS")).route("1", "us-east-1", "ep")
    assert route is not None
    one = route.variants[0]
    one.targets[0].outstanding, one.targets[1].outstanding = 2, 1
    assert {choose(one, rng) for _ in range(50)} == {one.targets[2]}
    one.targets[2].outstanding = 1
    assert {choose(one, rng) for _ in range(100)} == set(one.targets[1:])


def test_a_full_replica_gets_nothing(rng: random.Random) -> None:
    route = routed(variant(replicas=2, room=1)).route("1", "us-east-1", "ep")
    assert route is not None
    one = route.variants[0]
    one.targets[0].outstanding = 1
    assert {choose(one, rng) for _ in range(50)} == {one.targets[1]}
    one.targets[1].outstanding = 1
    assert choose(one, rng) is None
    assert one.queue.bound == 2


def test_workers_share_a_limit() -> None:
    assert [full_at(*pair) for pair in ((0, 4), (1, 4), (8, 4), (9, 4), (5, 0))] == [0, 1, 2, 3, 5]


def test_a_new_table_keeps_targets_and_retires_those_that_went() -> None:
    routes = routed(variant(replicas=2))
    before = routes.route("1", "us-east-1", "ep")
    assert before is not None
    routes.apply(table(variant(replicas=1), version=2))
    after = routes.route("1", "us-east-1", "ep")
    assert after is not None
    assert after.variants[0].targets[0] is before.variants[0].targets[0]
    assert after.variants[0].queue is before.variants[0].queue
    assert before.variants[0].targets[1].gone
    assert not before.variants[0].targets[0].gone


def test_a_new_epoch_is_another_target() -> None:
    routes = Routes()
    for epoch in (1, 2):
        routes.apply(table(Variant("v", 1.0, (Replica("r", epoch, "127.0.0.1", 1),)), version=epoch))
    assert [target.epoch for target in routes.targets] == [2]


def hosting(*components: InferenceComponent, version: int = 1) -> RoutingTable:
    endpoint = Endpoint("ep", "arn", "us-east-1", "1", (variant(replicas=0),), components=components)
    return decode_table(encode_line(RoutingTable(version, (endpoint,))))


def part(routes: Routes, name: str | None) -> Route:
    route = routes.route("1", "us-east-1", "ep")
    assert route is not None
    return narrowed(route, name)


def component(name: str, replicas: int = 1, room: int = 0) -> InferenceComponent:
    places = tuple(Replica(f"{name}-{n}", 1, "127.0.0.1", 1000 + n) for n in range(replicas))
    return InferenceComponent(name, Variant("v", 1.0, places, max_concurrency=room))


def test_a_component_is_an_endpoint_of_one_variant_for_who_names_it(rng: random.Random) -> None:
    routes = Routes()
    routes.apply(hosting(component("a", 2), component("b")))
    a, b = part(routes, "a"), part(routes, "b")
    drawn = a.by_weight(rng)
    assert drawn is a.variants[0]
    assert (drawn.variant.name, [target.name for target in drawn.targets]) == ("v", ["a-0", "a-1"])
    assert a.holder("a-1", 1) is not None
    assert b.holder("a-1", 1) is None, "the session of another component is nobody's"
    assert [one.name for one in a.endpoint.components or ()] == ["a"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (None, "INFERENCE_COMPONENT_NAME_MISSING"),
        ("", "INFERENCE_COMPONENT_NAME_MISSING"),
        ("A", "NO_SUCH_INFERENCE_COMPONENT"),
        ("none", "INFERENCE_COMPONENT_NO_CAPACITY"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name: str | None, code: str) -> None:
    routes = Routes()
    routes.apply(hosting(component("a"), component("none", 0)))
    with pytest.raises(AwsError) as caught:
        part(routes, name)
    assert (caught.value.code, caught.value.members["ErrorCode"]) == ("ValidationError", code)


def test_an_endpoint_of_models_takes_no_name() -> None:
    routes = routed(variant())
    assert part(routes, None) is routes.route("1", "us-east-1", "ep")
    with pytest.raises(AwsError, match="not allowed"):
        part(routes, "a")


def test_a_new_table_keeps_a_components_targets_and_its_queue() -> None:
    routes = Routes()
    routes.apply(hosting(component("a", 2, room=3), component("b", room=1)))
    before, other = part(routes, "a").variants[0], part(routes, "b").variants[0]
    assert (before.queue.bound, other.queue.bound) == (6, 1)
    assert before.queue is not other.queue
    routes.apply(hosting(component("a", 1, room=3), component("b", room=1), version=2))
    after = part(routes, "a").variants[0]
    assert after.targets[0] is before.targets[0]
    assert before.targets[1].gone
    assert after.queue is before.queue
    assert after.queue.bound == 3
    assert part(routes, "b").variants[0].queue is other.queue


def several(serial: bool = False, port: int = 1) -> Variant:
    made = (Container(name, (Replica(name, 1, "127.0.0.1", port + n),)) for n, name in enumerate(("one", "two")))
    return Variant("v", 1.0, (), containers=tuple(made), serial=serial, routing="LEAST_OUTSTANDING_REQUESTS")


def test_containers_are_routes_of_their_own() -> None:
    routes = routed(several())
    route = routes.route("1", "us-east-1", "ep")
    assert route is not None
    (whole,) = route.variants
    assert whole.special == "Direct"
    assert list(whole.containers) == ["one", "two"]
    one, two = whole.containers.values()
    assert whole.targets == (*one.targets, *two.targets)
    assert (one.special, one.variant.container, one.variant.routing) == ("", "one", "LEAST_OUTSTANDING_REQUESTS")
    assert route.holder("two", 1) == (two, two.targets[0])
    routes.apply(table(several(serial=True), version=2))
    route = routes.route("1", "us-east-1", "ep")
    assert route is not None
    assert route.variants[0].special == "Serial"
    assert route.variants[0].targets == whole.targets, "replicas that stay keep their connections"
    routes.apply(table(several(port=7), version=3))
    assert all(target.gone for target in whole.targets)


def test_a_multi_model_variant_is_marked() -> None:
    made = replace(variant(), multi_model=MultiModel("s3://b/p/"))
    route = routed(made).route("1", "us-east-1", "ep")
    assert route is not None
    assert route.variants[0].special == "MultiModel"
