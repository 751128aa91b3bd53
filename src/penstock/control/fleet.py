"""What an endpoint is, as values: the fleet it should have, the replicas it was given, where it stands.

Owns these shapes and nothing else. It must never know a database, a wire or a placement's doings.
A fleet is a snapshot: it holds all that is needed to run its replicas, so that an endpoint lives on when its Model or
EndpointConfig is deleted, as AWS lets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock import images
from penstock.control.lifecycle import Status
from penstock.placement.base import ModelData, ReplicaSpec
from penstock.routes import MultiModel, RoutingStrategy

MULTI_MODEL = {"SAGEMAKER_MULTI_MODEL": "true"}
"""How a container learns that its models come one by one (AWS's inference toolkits and DJL Serving read it)."""


@dataclass(frozen=True, slots=True)
class Container:
    """One of several containers that run together on each instance of a variant."""

    name: str
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    model_data: ModelData | None = None


@dataclass(frozen=True, slots=True)
class ProductionVariant:
    """One variant of a fleet: what to run (`image`, `environment`, `model_data`), how often, and its share of the traffic.

    One without an `image` runs nothing by itself: it hosts inference components.
    """

    name: str
    image: str
    count: int = 1
    weight: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)
    model_data: ModelData | None = None
    container: str = "primary"
    routing: RoutingStrategy = "RANDOM"
    max_concurrency: int = 0
    startup_timeout_s: float = 480.0
    download_timeout_s: float = 3600.0
    prefix_length: int = 0
    concurrency_threshold: int = 0
    multi_model: MultiModel | None = None
    containers: tuple[Container, ...] = ()
    """Where there are several, in order: they run instead of `image`."""
    serial: bool = False
    """Of several containers: InferenceExecutionConfig's Mode is Serial, not Direct."""

    @property
    def replicas(self) -> int:
        """How many it needs: none of its own where it hosts components, whatever its count of instances."""
        return self.count if self.image else 0


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """The place of one replica within an endpoint: the `index`th instance of a variant, and there `container`, where there are several."""

    generation: int
    variant: str
    index: int
    container: str = ""

    @property
    def instance(self) -> tuple[int, str, int]:
        return self.generation, self.variant, self.index


@dataclass(frozen=True, slots=True)
class Fleet:
    """What an EndpointConfig or an InferenceComponent asks for.

    `generation` tells an endpoint's fleets apart; scaling keeps it, a new config or specification raises it.
    """

    generation: int
    config: str
    variants: tuple[ProductionVariant, ...]
    asynchronous: Mapping[str, Any] = field(default_factory=dict)
    """The EndpointConfig's AsyncInferenceConfig; empty where it has none."""
    specification: Mapping[str, Any] = field(default_factory=dict)
    """The InferenceComponent's Specification; empty where it is an endpoint's fleet."""

    def slots(self) -> Iterator[Slot]:
        for variant in self.variants:
            for index in range(variant.replicas):
                for container in [container.name for container in variant.containers] or [""]:
                    yield Slot(self.generation, variant.name, index, container)

    def variant(self, name: str) -> ProductionVariant | None:
        return next((v for v in self.variants if v.name == name), None)

    @property
    def hosts_components(self) -> bool:
        return not any(variant.image for variant in self.variants)


@dataclass(frozen=True, slots=True)
class Host:
    """Where an InferenceComponent lives: the endpoint, by id and name, and its variant."""

    endpoint_id: str
    endpoint: str
    variant: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as the store keeps it, or an InferenceComponent: a fleet like any other, whose replicas serve in the name of its `host`.

    `id` tells two endpoints of one name apart (deleted, created again). `target` is the fleet that an update leads to. `epoch` counts the
    replicas ever given to it. `revision` rises with every write: who writes on an older one is told so. Times are epoch seconds.
    """

    arn: str
    id: str
    account: str
    region: str
    name: str
    status: Status
    fleet: Fleet
    created_at: float
    modified_at: float
    target: Fleet | None = None
    failure_reason: str = ""
    epoch: int = 0
    revision: int = 0
    host: Host | None = None
    """None for an endpoint, never for a component."""

    def wanted(self) -> frozenset[Slot]:
        """The slots that should be filled in this status."""
        if self.status in (Status.FAILED, Status.DELETING):
            return frozenset()
        slots = frozenset(self.fleet.slots())
        return slots | frozenset(self.target.slots()) if self.target else slots

    def instances(self) -> int:
        """How many instances `wanted` comes to: the containers of one count once."""
        return len({slot.instance for slot in self.wanted()})

    def plan(self, slot: Slot) -> ProductionVariant | None:
        """What runs in `slot`; None when neither fleet knows it."""
        for fleet in (self.target, self.fleet):
            if fleet and fleet.generation == slot.generation and (variant := fleet.variant(slot.variant)):
                return variant
        return None


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that was given a slot. `boot` names the control process that did: after a restart the others' replicas are lost."""

    id: str
    endpoint_id: str
    slot: Slot
    epoch: int
    instance_id: str
    boot: str


def spec(endpoint: Endpoint, replica: Replica, variant: ProductionVariant) -> ReplicaSpec:
    """What a placement is told."""
    host = endpoint.host
    own = next((container for container in variant.containers if container.name == replica.slot.container), None)
    run = own or Container(variant.container, variant.image, variant.environment, variant.model_data)
    environment = {**run.environment, **MULTI_MODEL} if variant.multi_model else run.environment
    return ReplicaSpec(
        id=replica.id,
        epoch=replica.epoch,
        account=endpoint.account,
        region=endpoint.region,
        endpoint=host.endpoint if host else endpoint.name,
        component=endpoint.name if host else "",
        variant=variant.name,
        instance_id=replica.instance_id,
        image=images.resolve(run.image),
        environment=environment,
        model_data=run.model_data,
        startup_timeout_s=variant.startup_timeout_s,
        download_timeout_s=variant.download_timeout_s,
        container=run.name,
        several=own is not None,
    )


def whole_instances(fleet: Fleet, slots: Iterable[Slot]) -> Mapping[str, int]:
    """How many instances of each variant have all their containers among `slots`."""
    there = Counter(slot.instance for slot in slots)
    needed = {variant.name: max(1, len(variant.containers)) for variant in fleet.variants}
    return Counter(variant for (_, variant, _), count in there.items() if count >= needed.get(variant, 1))
