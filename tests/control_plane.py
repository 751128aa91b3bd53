"""A control plane for tests: the real app behind real sockets and a real boto3, over a placement that the test commands.

There is no gateway in front: boto3 itself sends the identity headers that a gateway would.
"""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError

from penstock import routes
from penstock.control.act import Reconciler
from penstock.control.app import make_app
from penstock.control.faults import FaultPlans
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.operations import operations
from penstock.control.service import AwsService
from penstock.control.store import Store, open_store
from penstock.control.table import TableServer
from penstock.placement.base import Placement

ACCOUNT, REGION = "123456789012", "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


class Objects:
    """An object store in memory."""

    def __init__(self) -> None:
        self.bodies: dict[tuple[str, str], bytes] = {}

    def open(self, bucket: str, key: str) -> BinaryIO:
        try:
            return io.BytesIO(self.bodies[bucket, key])
        except KeyError:
            raise FileNotFoundError(key) from None

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        return iter(sorted(k for b, k in self.bodies if b == bucket and k.startswith(prefix)))


@dataclass
class ControlPlane:
    """Its parts, and `call`: a boto3 call of the SageMaker client in a thread."""

    store: Store
    placement: Placement
    reconciler: Reconciler
    table: TableServer
    url: str
    objects: Objects
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, account: str = ACCOUNT, region: str = REGION) -> Any:
        if (account, region) not in self.clients:
            client = boto3.client(
                "sagemaker",
                endpoint_url=self.url,
                region_name=region,
                aws_access_key_id="k",
                aws_secret_access_key="s",
                config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),  # the server must check
            )
            identity = {
                routes.HEADER_ACCOUNT: account,
                routes.HEADER_REGION: region,
                routes.HEADER_SERVICE: "sagemaker",
                routes.HEADER_CALLER_ARN: f"arn:aws:sts::{account}:assumed-role/r/s",
                routes.HEADER_ACCESS_KEY: "k",
                routes.HEADER_REQUEST_ID: str(uuid.uuid4()),
            }

            def add(request: Any, **_: object) -> None:
                for name, value in identity.items():
                    request.headers[name] = value

            client.meta.events.register("before-sign.sagemaker", add)
            self.clients[account, region] = client
        return self.clients[account, region]

    async def call(
        self, operation: str, *, account: str = ACCOUNT, region: str = REGION, **params: Any
    ) -> dict[str, Any]:
        result = await asyncio.to_thread(getattr(self.client(account, region), operation), **params)
        del result["ResponseMetadata"]
        return dict(result)

    async def refused(self, operation: str, **params: Any) -> str:
        """The message of the ValidationException that the call must give."""
        code, message = await self.error(operation, **params)
        assert code == "ValidationException", (code, message)
        return message

    async def error(self, operation: str, **params: Any) -> tuple[str, str]:
        """The code and message of the error that the call must give."""
        try:
            await self.call(operation, **params)
        except ClientError as error:
            return error.response["Error"]["Code"], error.response["Error"]["Message"]
        raise AssertionError(f"{operation} succeeded")

    async def deploy(self, name: str = "e", *, count: int = 1, image: str = "penstock/scripted") -> None:
        """A Model, an EndpointConfig and an Endpoint of that name; not awaited until InService."""
        await self.call("create_model", ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": image})
        await self.configure(name, model=name, count=count)
        await self.call("create_endpoint", EndpointName=name, EndpointConfigName=name)

    async def configure(self, name: str, *, model: str, count: int = 1, **more: Any) -> None:
        variant = {"VariantName": "AllTraffic", "ModelName": model, "InstanceType": "ml.g5.2xlarge"}
        variants = [variant | {"InitialInstanceCount": count} | more]
        await self.call("create_endpoint_config", EndpointConfigName=name, ProductionVariants=variants)

    async def until(self, name: str, status: str, *, deadline_s: float = 10.0) -> dict[str, Any]:
        """DescribeEndpoint's answer once the status is that. AssertionError when it does not come."""
        end = time.monotonic() + deadline_s
        while (found := await self.call("describe_endpoint", EndpointName=name))["EndpointStatus"] != status:
            assert time.monotonic() < end, (
                f"{name} is {found['EndpointStatus']}, not {status}: {found.get('FailureReason')}"
            )
            await asyncio.sleep(0.01)
        return found

    async def until_gone(self, name: str, *, deadline_s: float = 10.0) -> None:
        end = time.monotonic() + deadline_s
        while True:
            try:
                await self.call("describe_endpoint", EndpointName=name)
            except ClientError as error:
                if "Could not find" in str(error):
                    return
                raise
            assert time.monotonic() < end, f"{name} is still there"
            await asyncio.sleep(0.01)


class _Server(uvicorn.Server):
    """One that leaves signals to the test run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def control_plane(
    home: Path,
    placement: Placement,
    *,
    database_url: str = "",
    instance_limit: int = 64,
    drain_s: float = 0.0,
    wrap: Callable[[Store], Store] = lambda store: store,
) -> AsyncIterator[ControlPlane]:
    """A running control plane on a TCP port of its own. `wrap` may damage the store."""
    logging.getLogger("penstock").setLevel(logging.INFO)
    store = wrap(open_store(home / "penstock.db", database_url))
    table, objects = TableServer((), lambda event: None), Objects()
    reconciler = Reconciler(store, placement, table.publish, drain_s=drain_s)
    context = Context(
        store, objects, reconciler.poke, reconciler.serving, time.time, lambda: uuid.uuid4().hex, instance_limit
    )
    plans = FaultPlans(store, reconciler.told, context.now)
    app = make_app({"sagemaker": AwsService("sagemaker", operations(context)), "penstock": plans})
    listening = socket.create_server(("127.0.0.1", 0))
    api = _Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1))
    work: list[Awaitable[None]] = [
        asyncio.create_task(api.serve(sockets=[listening])),
        asyncio.create_task(reconciler.run()),
    ]
    plane = ControlPlane(store, placement, reconciler, table, f"http://127.0.0.1:{listening.getsockname()[1]}", objects)
    try:
        yield plane
    finally:
        for client in plane.clients.values():
            client.close()
        api.should_exit = True
        await work[0]
        work[1].cancel()  # type: ignore[attr-defined]
        await asyncio.gather(*work, return_exceptions=True)
        await placement.close(grace_s=1.0)
        await table.close()
        store.close()


def tags(given: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in given.items()]
