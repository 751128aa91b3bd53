"""What a placement is: something that runs replicas somewhere and tells what became of them.

Owns the interface and its values. It must never carry a token, nor know an endpoint's status: control decides what should run
(`control/reconcile.py`), a placement only starts, watches and stops it.

The contract of every replica, whatever runs it (docs/containers.md): it serves `GET /ping` and `POST /invocations` on
`$SAGEMAKER_BIND_TO_PORT`; its model lies in `/opt/ml/model`, which is `$PENSTOCK_MODEL_DIR` where there is no container; why
it gives up it writes to `$PENSTOCK_TERMINATION_LOG` before it exits; it stops on SIGTERM, and gets SIGKILL when the grace is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol

from penstock.images import Image


@dataclass(frozen=True, slots=True)
class ModelData:
    """A model's artifact: `url` is `s3://bucket/key`; "tar.gz" is unpacked, "prefix" and "object" are copied as they are."""

    url: str
    kind: Literal["tar.gz", "prefix", "object"]


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """All that is needed to run one replica. `id` is unique for ever; `instance_id` is AWS's look of it (`i-0…`), the log stream's name."""

    id: str
    epoch: int
    account: str
    region: str
    endpoint: str
    variant: str
    instance_id: str
    image: Image
    environment: Mapping[str, str] = field(default_factory=dict)
    model_data: ModelData | None = None
    startup_timeout_s: float = 480.0
    download_timeout_s: float = 3600.0
    container: str = "primary"
    component: str = ""
    """The inference component whose copy it is; empty for a variant's own replica."""
    several: bool = False
    """Whether other containers share its instance: the log stream then ends with this one's name."""


ReplicaState = Literal["preparing", "starting", "healthy", "unhealthy", "exited", "failed"]


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What is seen of a replica.

    `preparing`: its artifact is fetched and unpacked. `starting`: it runs, no 200 from /ping yet. `healthy`: /ping answers 200.
    `unhealthy`: it did once and no longer does. `exited`: the process is gone. `failed`: it never came up and never will; `reason` is a
    FailureReason in AWS's wording, with what the replica said of itself.
    """

    id: str
    epoch: int
    state: ReplicaState
    host: str = ""
    port: int = 0
    pid: int = 0
    reason: str = ""


class ObjectReader(Protocol):
    """Reads of the object store, blocking: call them in a thread."""

    def open(self, bucket: str, key: str) -> BinaryIO:
        """Raises FileNotFoundError."""
        ...

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Keys below `prefix`, in order; none where the bucket is missing."""
        ...


class Placement(Protocol):
    """Runs replicas. Every method is idempotent; none waits for a replica to become healthy."""

    async def start(self, spec: ReplicaSpec) -> None:
        """Begin to run it; what comes of it shows in `observe`. Starting an id that runs is nothing."""
        ...

    async def stop(self, replica_id: str, *, grace_s: float = 30.0) -> None:
        """SIGTERM, wait `grace_s`, SIGKILL, remove its directory. Returns when it is gone; an unknown id is nothing."""
        ...

    def observe(self) -> tuple[ReplicaStatus, ...]:
        """What is known now, from memory."""
        ...

    async def changed(self) -> None:
        """Return when something in `observe` has changed since this was last called."""
        ...

    async def add_model(self, replica_id: str, name: str, data: ModelData) -> str:
        """Fetch a further model for a replica that runs: a directory, as the replica knows it. It is there whole or not at all.

        `name` is a plain path part. What is there already stays as it is. Raises artifacts.ArtifactError, KeyError (no such replica).
        """
        ...

    async def remove_model(self, replica_id: str, name: str) -> None:
        """Take a further model's directory away; what is not there is nothing."""
        ...

    async def close(self, *, grace_s: float = 30.0) -> None:
        """Stop everything."""
        ...
