"""Which replica answers: the routing table, indexed for one look-up a request.

Owns the index over a `RoutingTable`, the choice of variant and replica, and the connections' targets across table changes. It must never
open a connection or know a request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import Literal

from penstock.gateway.hostile import inforce
from penstock.gateway.hostile.inforce import InForce
from penstock.gateway.limits import Queue, full_at
from penstock.gateway.upstream import Target
from penstock.routes import AccessKey, Endpoint, Replica, RoutingTable, Variant
from penstock.wire import sigv4


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """A variant and where its replicas are reached."""

    variant: Variant
    targets: tuple[Target, ...]
    queue: Queue
    room: int = 0
    """Requests in flight per replica through this worker; 0 is no limit."""
    special: Literal["", "MultiModel", "Direct", "Serial"] = ""
    """How a request gets to a container, where that takes more than choosing a replica."""
    containers: Mapping[str, VariantRoute] = field(default_factory=dict)
    """Of several containers, by name and in order; each is a route of its own. `targets` are then those of all."""


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint ready for use."""

    endpoint: Endpoint
    variants: tuple[VariantRoute, ...]
    in_force: InForce | None = None
    components: Mapping[str, Route] | None = None
    """Of an endpoint with inference components: what of it the requests for each of them see, one variant with the component's copies."""
    component: str = ""
    """The component's name, where this is such a part."""

    def variant(self, name: str) -> VariantRoute | None:
        return next((one for one in self.variants if one.variant.name == name), None)

    def holder(self, replica: str, epoch: int) -> tuple[VariantRoute, Target] | None:
        """The replica of that id and epoch, with its variant; None where it is gone."""
        for variant in self.variants:
            for one in (*variant.containers.values(), variant):
                for target in one.targets:
                    if (target.name, target.epoch) == (replica, epoch):
                        return one, target
        return None

    def by_weight(self, rng: Random) -> VariantRoute | None:
        """A variant drawn with probability weight over the sum of weights (AWS: ProductionVariant, InitialVariantWeight)."""
        variants = self.variants
        if len(variants) == 1:
            return variants[0]
        total = sum(max(one.variant.weight, 0.0) for one in variants)
        if total <= 0:
            return variants[0] if variants else None
        at = rng.random() * total
        for one in variants:
            at -= max(one.variant.weight, 0.0)
            if at < 0:
                return one
        return variants[-1]

    def parts(self) -> Iterator[Route]:
        """Itself, and what its components see."""
        yield self
        yield from (self.components or {}).values()


def choose(route: VariantRoute, rng: Random, tried: Collection[Target] = (), prefix: bytes = b"") -> Target | None:
    """A replica that has room and has not been tried: any, one with the fewest requests in flight, or the one of the prefix.

    None when there is none.
    """
    targets = route.targets
    if tried:
        targets = tuple(target for target in targets if target not in tried)
    if route.room:
        targets = tuple(target for target in targets if target.outstanding < route.room)
    if len(targets) < 2:
        return targets[0] if targets else None
    if route.variant.routing == "PREFIX_AWARE":
        return _of_prefix(targets, prefix, route.variant.concurrency_threshold)
    if route.variant.routing == "LEAST_OUTSTANDING_REQUESTS":
        least = min(target.outstanding for target in targets)
        targets = tuple(target for target in targets if target.outstanding == least)
    return targets[int(rng.random() * len(targets))]


def _of_prefix(targets: Collection[Target], prefix: bytes, threshold: int) -> Target:
    """Rendezvous hashing: each prefix has its own order of replicas, which a replica more or less hardly changes.

    The first below the threshold, else the one with the fewest requests in flight.
    """
    ranked = sorted(targets, key=lambda target: blake2b(prefix, key=target.name.encode()[-64:], digest_size=8).digest())
    free = (target for target in ranked if not threshold or target.outstanding < threshold)
    return next(free, None) or min(ranked, key=lambda target: target.outstanding)


class Routes:
    """The table in force. `apply` swaps it whole between two requests; requests in flight keep what they began with."""

    def __init__(self, workers: int = 1) -> None:
        self.version = -1
        self._workers = workers
        self._queues: dict[tuple[str, str, str], Queue] = {}
        self.planned: frozenset[str] = frozenset()
        """Names of endpoints whose streams go by a fault plan, in any account."""
        self._routes: dict[tuple[str, str, str], Route] = {}
        self._keys: dict[str, AccessKey] = {}
        self._secrets: dict[str, sigv4.Key] = {}
        self._targets: dict[Replica, Target] = {}

    def apply(self, table: RoutingTable) -> None:
        old, self._targets = self._targets, {}
        routes = [self._route(endpoint, old) for endpoint in table.endpoints]
        self._routes = {(one.endpoint.account, one.endpoint.region, one.endpoint.name): one for one in routes}
        plans = ((one.endpoint.name, one.in_force) for one in self._routes.values())
        self.planned = frozenset(name for name, in_force in plans if in_force and not in_force.plan.off)
        self._keys = {key.id: key for key in table.keys}
        self._secrets = {key.id: sigv4.Key(key.secret, key.session_token) for key in table.keys}
        self.version = table.version
        for replica, target in old.items():
            if replica not in self._targets:
                target.retire()
        queues, self._queues = self._queues, {}
        for route in (part for one in self._routes.values() for part in one.parts()):
            for variant in route.variants:
                self._queues[route.endpoint.arn, route.component, variant.variant.name] = variant.queue
        for queue in queues.values():
            queue.changed()

    def _route(self, endpoint: Endpoint, old: dict[Replica, Target]) -> Route:
        variants = tuple(self._variant(endpoint.arn, "", variant, old) for variant in endpoint.variants)
        before = self._routes.get((endpoint.account, endpoint.region, endpoint.name))
        in_force = inforce.read(endpoint, before.endpoint, before.in_force) if before else inforce.read(endpoint)
        if endpoint.components is None:
            return Route(endpoint, variants, in_force)
        components = {}
        for one in endpoint.components:
            alone, copies = (
                replace(endpoint, components=(one,)),
                self._variant(endpoint.arn, one.name, one.variant, old),
            )
            components[one.name] = Route(alone, (copies,), in_force, component=one.name)
        return Route(endpoint, variants, in_force, components)

    def _variant(self, arn: str, component: str, variant: Variant, old: dict[Replica, Target]) -> VariantRoute:
        targets = self._reached(variant.replicas, old)
        room = full_at(variant.max_concurrency, self._workers)
        queue = self._queues.setdefault((arn, component, variant.name), Queue())
        queue.bound = room * len(targets)
        if variant.containers:
            return self._several(variant, old, queue)
        return VariantRoute(variant, targets, queue, room, "MultiModel" if variant.multi_model else "")

    def _reached(self, replicas: tuple[Replica, ...], old: dict[Replica, Target]) -> tuple[Target, ...]:
        targets = []
        for replica in replicas:
            target = self._targets.get(replica) or old.get(replica)
            if target is None:
                target = Target((replica.host, replica.port), replica.id, replica.epoch)
            self._targets[replica] = target
            targets.append(target)
        return tuple(targets)

    def _several(self, variant: Variant, old: dict[Replica, Target], queue: Queue) -> VariantRoute:
        """A variant of several containers. It has no limit of requests in flight, so nobody ever waits in its containers' queues."""
        containers: dict[str, VariantRoute] = {}
        for one in variant.containers:
            own = replace(variant, replicas=one.replicas, container=one.name, containers=(), serial=False)
            containers[one.name] = VariantRoute(own, self._reached(one.replicas, old), Queue())
        targets = tuple(target for container in containers.values() for target in container.targets)
        return VariantRoute(variant, targets, queue, 0, "Serial" if variant.serial else "Direct", containers)

    def route(self, account: str, region: str, name: str) -> Route | None:
        return self._routes.get((account, region, name))

    def key(self, access_key: str) -> AccessKey | None:
        return self._keys.get(access_key)

    def secret(self, access_key: str) -> sigv4.Key | None:
        return self._secrets.get(access_key)

    @property
    def targets(self) -> Collection[Target]:
        return self._targets.values()
