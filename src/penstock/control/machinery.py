"""What runs behind the table: store, placement, reconciler, and the API with every service it serves.

Owns how these are made and in which order they are closed. Apart from `server.py` because importing it takes most of a start's time, in
which the gateway's workers start beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from socket import socket

import uvicorn

from penstock.config import Settings
from penstock.control import store
from penstock.control.act import Publish, Reconciler
from penstock.control.app import Service, make_app
from penstock.control.asynchronous.jobs import Jobs
from penstock.control.asynchronous.runner import Runner
from penstock.control.asynchronous.service import AsyncInference
from penstock.control.datapoints import Datapoints
from penstock.control.faults import FaultPlans
from penstock.control.keyring import Keyring
from penstock.control.metrics import Metrics
from penstock.control.multimodel.models import Models
from penstock.control.multimodel.service import ModelCalls
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.control.neighbours.services import make_neighbours
from penstock.control.published import Of, Published
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.operations import operations
from penstock.control.service import AwsService
from penstock.placement.base import Placement
from penstock.placement.process import ProcessPlacement
from penstock.routes import AccessKey, GatewayEvent, RoutingTable

log = logging.getLogger(__name__)
REPLICA_GRACE_S = 30.0
API_GRACE_S = 5
API_CONNECTIONS = 512
KEEP_ALIVE_S = 3600
"""The gateway keeps connections to us; it is the one to close them."""


class Machinery:
    """Made on the event loop, in the process that holds the home's lock. Raises migrate.WrongDatabase, OSError."""

    def __init__(
        self, settings: Settings, keys: Keyring, publish: Publish, table: Callable[[], RoutingTable], https_fd: int
    ) -> None:
        datapoints = Datapoints()
        self.metrics = Metrics(Published(datapoints, _Replicas(table)))
        self._store = store.open_store(settings.paths.database, settings.database_url)
        try:
            objects = ObjectStore(settings.paths.buckets)
            objects.prepare()
            aws = aws_of_replicas(settings, keys.first, https_fd)
            self._placement: Placement = ProcessPlacement(settings.paths, objects, aws)
            self._reconciler = Reconciler(self._store, self._placement, publish, drain_s=settings.limits.drain_s)
            jobs = Jobs(settings.paths.asynchronous)
            self._asynchronous = Runner(jobs, objects, table)
            for job in jobs.prepare():
                self._asynchronous.enqueue(job)
            self._models = Models(self._placement, table, self.metrics.time)
            self.metrics.loaded = self._models.loaded
            runtime = AsyncInference(self._store, jobs, self._asynchronous, time.time, keys.allow)
            services = _services(settings, keys, objects, self._store, self._reconciler, datapoints)
            self._api = _make_api(
                {**services, "metrics": self.metrics, "runtime": runtime, "models": ModelCalls(self._models)}
            )
        except BaseException:
            self._store.close()
            raise

    async def run(self, api_socket: socket) -> None:
        """Until cancelled, or one of them ends."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._reconciler.run())
            parts.create_task(self._asynchronous.run())
            parts.create_task(self.metrics.run())
            await self._api.serve(sockets=[api_socket])
            raise OSError("the API ended by itself")

    def poke(self) -> None:
        """Have the reconciler look at once."""
        self._reconciler.poke()

    def heard(self, event: GatewayEvent) -> None:
        """A gateway worker's event."""
        self.metrics.add(event)
        self._models.used(event.used)

    async def close(self) -> None:
        """The API first, then the replicas, the store last. After `run` was cancelled."""
        try:
            await self._models.close()
            async with asyncio.timeout(REPLICA_GRACE_S * 2):
                await self._placement.close(grace_s=REPLICA_GRACE_S)
        except TimeoutError:
            log.error("the replicas did not end in time")
        finally:
            self._store.close()


class _Replicas:
    """How many a variant or an inference component has, by the table in force."""

    def __init__(self, table: Callable[[], RoutingTable]) -> None:
        self._table = table
        self._version = -1
        self._counts: dict[Of, int] = {}

    def __call__(self, of: Of) -> int:
        table = self._table()
        if table.version != self._version:
            self._version, self._counts = table.version, dict(_counted(table))
        return self._counts.get(of, 0)


def _counted(table: RoutingTable) -> Iterator[tuple[Of, int]]:
    for one in table.endpoints:
        for variant in one.variants:
            yield (one.account, one.region, one.name, variant.name, ""), len(variant.replicas)
        for component in one.components or ():
            variant = component.variant
            yield (one.account, one.region, one.name, variant.name, component.name), len(variant.replicas)


def _services(
    settings: Settings,
    keys: Keyring,
    objects: ObjectStore,
    database: store.Store,
    reconciler: Reconciler,
    datapoints: Datapoints,
) -> Mapping[str, Service]:
    """Every service, by its name in signatures."""
    context = Context(
        store=database,
        objects=objects,
        poke=reconciler.poke,
        serving=reconciler.serving,
        clock=time.time,
        new_id=lambda: uuid.uuid4().hex,
        instance_limit=settings.instance_limit,
    )
    sagemaker = AwsService(
        "sagemaker", operations(context), body_bytes=settings.limits.control_body_bytes, allow=keys.allow
    )
    plans = FaultPlans(database, reconciler.told, context.now, keys.allow)
    neighbours = make_neighbours(settings, objects, secrets=keys.secret, datapoints=datapoints, allow=keys.allow)
    return {"sagemaker": sagemaker, "penstock": plans, **neighbours}


def aws_of_replicas(settings: Settings, key: AccessKey, https_fd: int) -> Mapping[str, str]:
    """How a replica reaches our own S3: through the gateway's door, as any client does."""
    with socket(fileno=os.dup(https_fd)) as listening:
        host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return {
        "AWS_ENDPOINT_URL": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        "AWS_CA_BUNDLE": str(settings.paths.ca_certificate),
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
    }


class _Api(uvicorn.Server):
    """Signals are not uvicorn's business here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _make_api(services: Mapping[str, Service]) -> uvicorn.Server:
    config = uvicorn.Config(
        make_app(services),
        http="httptools",
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=API_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=API_GRACE_S,
    )
    return _Api(config)
