"""What the tests of S3 share: the service alone or the whole of Penstock, over http or https, and a bucket of one's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from penstock.control.neighbours.s3.service import S3Service
from penstock.control.neighbours.s3.store import ObjectStore
from tests.penstock_process import ACCESS_KEY, SECRET_KEY, Penstock
from tests.wire.serving import SECRET, application, certificate, secret_of, serve

MIB = 1024 * 1024


@dataclass
class Server:
    port: int
    scheme: str
    ca: str | None
    root: Path
    access_key: str = "AKIATEST"
    secret: str = SECRET
    clients: list[Any] = field(default_factory=list)

    def client(self, service: str = "s3", key: str = "", region: str = "us-east-1", **config: Any) -> Any:
        made = boto3.client(
            service,
            endpoint_url=f"{self.scheme}://127.0.0.1:{self.port}",
            region_name=region,
            aws_access_key_id=key or self.access_key,
            aws_secret_access_key=self.secret,
            verify=self.ca if self.ca else None,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )
        self.clients.append(made)
        return made

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture(scope="module", params=["http", "https", "gateway http", "gateway https"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service alone, and all of Penstock round it."""
    directory = tmp_path_factory.mktemp("s3")
    if request.param.startswith("gateway"):
        penstock = Penstock(directory, {"PENSTOCK_OBJECT_BYTES": str(64 * MIB)})
        try:
            penstock.start()
            scheme, paths = request.param.split()[1], penstock.paths
            ca = str(paths.ca_certificate) if scheme == "https" else None
            server = Server(penstock.state["ports"][scheme], scheme, ca, paths.buckets, ACCESS_KEY, SECRET_KEY)
            yield server
            server.close()
            assert penstock.terminate() == 0
        finally:
            penstock.close()
        return
    store = ObjectStore(directory / "buckets")
    store.prepare()
    tls = certificate(directory) if request.param == "https" else None
    service = S3Service(store, secrets=secret_of, object_bytes=64 * MIB)
    with serve(application({"s3": service.handle}), tls=tls) as port:
        server = Server(port, request.param, str(tls[0]) if tls else None, store.root)
        yield server
        server.close()


@pytest.fixture(scope="module")
def s3(server: Server) -> Any:
    return server.client()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = f"b-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]}"
    s3.create_bucket(Bucket=name)
    return name


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def leftovers(server: Server) -> list[str]:
    return os.listdir(server.root / ".spare")
