"""The routing table: the one value in which control and gateway meet.

Owns its shape and its bytes. Control makes it, gateways read it; neither imports the other. It must never hold behaviour:
how a replica is chosen is the gateway's business, how one comes to be is control's.

On `Paths.table_socket` control listens; a gateway worker connects and both send JSON lines (`encode_line`, `decode_*`). Control sends
a whole `RoutingTable` on connecting and after each change (`version` rises); the gateway sends `GatewayEvent`s. A gateway that loses
the connection keeps its last table and connects again: endpoints outlive a restart of control.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

RoutingStrategy = Literal["RANDOM", "LEAST_OUTSTANDING_REQUESTS", "PREFIX_AWARE"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One server that answers `/invocations`. `epoch` rises each time its place is filled anew, so that an old one gets no traffic."""

    id: str
    epoch: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Container:
    """One of a variant's several containers: its ContainerHostname, and its replicas, one an instance."""

    name: str
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class MultiModel:
    """Of a multi-model variant: the `s3://` prefix below which its models lie, and whether one stays loaded after its request."""

    url: str
    cached: bool = True


@dataclass(frozen=True, slots=True)
class Variant:
    """A ProductionVariant that serves. `container` is the hostname that AWS's messages name ("primary")."""

    name: str
    weight: float
    replicas: tuple[Replica, ...]
    container: str = "primary"
    routing: RoutingStrategy = "RANDOM"
    max_concurrency: int = 0
    """Requests in flight per replica; 0 is no limit."""
    prefix_length: int = 0
    """Of PREFIX_AWARE: how much of a request's beginning, bytes or characters, decides which replica gets it."""
    concurrency_threshold: int = 0
    """Of PREFIX_AWARE: requests in flight at which a replica's next one goes elsewhere."""
    multi_model: MultiModel | None = None
    containers: tuple[Container, ...] = ()
    """Where there are several, in order; `replicas` is empty then."""
    serial: bool = False
    """Of several containers: each one's answer is the next one's request. Otherwise a request names the one it is for."""


@dataclass(frozen=True, slots=True)
class InferenceComponent:
    """A component of an endpoint. Its copies are the replicas of `variant`, which has the name of the ProductionVariant that hosts it."""

    name: str
    variant: Variant


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that can be invoked (InService, Updating, RollingBack …). Others are absent from the table."""

    name: str
    arn: str
    region: str
    account: str
    variants: tuple[Variant, ...]
    tags: dict[str, str] = field(default_factory=dict)
    faults: str = ""
    """A fault plan as text (`faultplan.parse`); empty for none."""
    faults_set: float = 0.0
    """When it was set, epoch seconds: requests are counted anew from then on, even where the text is the same."""
    components: tuple[InferenceComponent, ...] | None = None
    """None where the variants run Models. Otherwise they have no replicas, and every request names one of these."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key that may sign. `arn` is who GetCallerIdentity says it is; `policies` are IAM policy documents (JSON), empty allows all."""

    id: str
    secret: str
    account: str
    arn: str
    session_token: str = ""
    policies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"AccessKey({self.id!r})"


@dataclass(frozen=True, slots=True)
class RoutingTable:
    version: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    keys: tuple[AccessKey, ...] = ()


LATENCY_BOUNDS_US = (
    *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000),
    *(1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 120_000_000, 480_000_000),
)
"""Upper bounds of a latency's buckets, microseconds."""


@dataclass(slots=True)
class Latency:
    """How often a latency fell into each bucket of `LATENCY_BOUNDS_US` and beyond the last, and all of them together."""

    buckets: list[int]
    total_us: float = 0.0
    least_us: float = 0.0
    most_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a worker counted of one variant, or one component on it, since it last told, by CloudWatch's names.

    `in_flight` is how it stands now.
    """

    account: str
    region: str
    endpoint: str
    variant: str
    in_flight: int
    counts: dict[str, int]
    latencies: dict[str, Latency]
    component: str = ""
    """The inference component; empty where the variant runs a Model."""


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A replica was sent a request for a model `ago_s` seconds ago. `ended`: so many times that it was asked for are over, uncached."""

    replica: str
    name: str
    ago_s: float = 0.0
    ended: int = 0


@dataclass(frozen=True, slots=True)
class GatewayEvent:
    """What a gateway worker tells control. `ready`: it serves on `ports`; `unreachable`: a replica refused or dropped a connection.

    `measured`: about once a second, what has been counted since; `models`: which models of multi-model variants were used, as they are.
    """

    kind: Literal["ready", "unreachable", "measured", "models"]
    worker: int
    ports: dict[str, int] = field(default_factory=dict)
    """Of `ready`: "https", "http", "proxy" to the port bound."""
    replica: str = ""
    epoch: int = 0
    measured: Measured | None = None
    dropped: int = 0
    """Lines that the access log lost."""
    used: tuple[ModelUse, ...] = ()


# How the gateway hands an authenticated request to control (HTTP on `Paths.control_socket`). It strips these from what clients send.
HEADER_ACCOUNT = "x-penstock-account"
HEADER_CALLER_ARN = "x-penstock-caller-arn"
HEADER_ACCESS_KEY = "x-penstock-access-key"
HEADER_REGION = "x-penstock-region"
HEADER_SERVICE = "x-penstock-service"
"""The signature scope's service: `sagemaker`, `s3`, `sts`, `iam`, `logs`, `monitoring`, `application-autoscaling`."""
HEADER_REQUEST_ID = "x-penstock-request-id"
HEADER_SOURCE_IP = "x-penstock-source-ip"
HEADER_SECURE = "x-penstock-secure"
"""`1` where the client came over TLS."""
HEADER_INTERNAL = "x-penstock-internal"
"""`1` where the gateway asks for itself (`modelcalls.py`), for no client."""

_encoder = msgspec.json.Encoder()
_tables = msgspec.json.Decoder(RoutingTable)
_events = msgspec.json.Decoder(GatewayEvent)


def encode_line(message: RoutingTable | GatewayEvent) -> bytes:
    return _encoder.encode(message) + b"\n"


def decode_table(line: bytes) -> RoutingTable:
    """Raises msgspec.MsgspecError on anything but a table."""
    return _tables.decode(line)


def decode_event(line: bytes) -> GatewayEvent:
    """Raises msgspec.MsgspecError on anything but an event."""
    return _events.decode(line)
