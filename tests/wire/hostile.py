"""A gateway in front of the scripted server, whose endpoints go by fault plans; and what a boto3 client makes of a stream."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from penstock.routes import Replica, Variant
from tests.replicas import PYTHONPATH
from tests.waiting import until
from tests.wire.gateway_fixture import House

Document = Mapping[str, Any]


@dataclass(slots=True)
class Heard:
    """One answer as a boto3 program meets it. `error` is "" for a clean end, else the error's code or the exception's name."""

    parts: list[bytes] = field(default_factory=list)
    error: str = ""
    message: str = ""
    status: int = 0
    seed: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)


def listen(runtime: Any, name: str = "ep", body: bytes = b"{}") -> Heard:
    """Invokes with a response stream and keeps whatever comes."""
    heard = Heard()
    began = time.monotonic()
    answer: dict[str, Any] = {}
    try:
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=body)
        _head(heard, answer["ResponseMetadata"])
        for event in answer["Body"]:
            heard.parts.append(event["PayloadPart"]["Bytes"])
    except ClientError as error:
        heard.error, heard.message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if "HTTPStatusCode" in error.response.get("ResponseMetadata", {}):
            _head(heard, error.response["ResponseMetadata"])
    except (BotoCoreError, OSError, Exception) as error:  # whatever the SDK lets out is what a program meets
        heard.error, heard.message = type(error).__name__, str(error)
    finally:
        if "Body" in answer:
            answer["Body"].close()
    heard.seconds = time.monotonic() - began
    return heard


def _head(heard: Heard, metadata: Mapping[str, Any]) -> None:
    heard.status, heard.headers = metadata["HTTPStatusCode"], metadata["HTTPHeaders"]
    heard.seed = metadata["HTTPHeaders"].get("x-penstock-seed", "")


class Bench:
    """A gateway with one scripted container."""

    def __init__(self, home: Path, script: Document) -> None:
        self.house = House(home)
        self._clients: list[Any] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PENSTOCK_SCRIPT": json.dumps(script)}
        self.log = home / "container.log"
        with self.log.open("wb") as log:
            self.container = subprocess.Popen(
                [sys.executable, "-m", "penstock.servers.scripted"],
                env={**environment, "SAGEMAKER_BIND_TO_PORT": str(port)},
                stdout=log,
                stderr=log,
            )
        until(lambda: "listens on" in self.log.read_text() or self._died(), what="the scripted server")
        self.replica = Replica("scripted", 1, "127.0.0.1", port)
        self.house.start()

    def _died(self) -> bool:
        assert self.container.poll() is None, self.log.read_text()
        return False

    def plan(self, document: Document | None, *, name: str = "ep", set_at: float | None = None) -> None:
        """Makes endpoint `name` go by a plan; None is none."""
        self.house.endpoint(name, Variant("AllTraffic", 1.0, (self.replica,)))
        text = "" if document is None else json.dumps(document)
        at = time.monotonic() if set_at is None else set_at
        self.house.endpoints[name] = replace(self.house.endpoints[name], faults=text, faults_set=at)
        self.house.publish()
        self._close_clients()

    def client(self, scheme: str = "http", **config: Any) -> Any:
        """A boto3 client, closed with the next plan."""
        self._clients.append(self.house.client("sagemaker-runtime", scheme, **config))
        return self._clients[-1]

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def close(self) -> None:
        self._close_clients()
        self.house.close()
        self.container.send_signal(signal.SIGKILL)
        self.container.wait(10)


@contextmanager
def bench(home: Path, script: Document) -> Iterator[Bench]:
    made = Bench(home, script)
    try:
        yield made
    finally:
        made.close()
