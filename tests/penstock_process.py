"""A real Penstock for tests: the control process, its gateway and its replicas on a home of their own, as `penstock up` makes them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.config import Paths
from penstock.gateway.tls import ensure_certificates
from tests.replicas import PYTHONPATH
from tests.waiting import until

ROLE = "arn:aws:iam::123456789012:role/r"
ACCESS_KEY, SECRET_KEY = "AKIDTEST", "secret/of+tests"


class Penstock:
    """`start` may be called again after the process has ended: the home stays. Close it in the end."""

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.paths = Paths(home)
        self._stderr = home / "stderr"
        self._environ = {**os.environ, "PYTHONPATH": PYTHONPATH, "PENSTOCK_DRAIN_S": "2", **(environ or {})}
        self.process: subprocess.Popen[str] | None = None
        self.started: set[psutil.Process] = set()
        self._clients: list[Any] = []
        for directory in (home, self.paths.buckets, self.paths.models, self.paths.replicas, self.paths.logs):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.paths.run.mkdir(exist_ok=True)
        self.paths.tls.mkdir(exist_ok=True)
        ensure_certificates(self.paths)
        self.paths.credentials.write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        )

    def launch(self) -> subprocess.Popen[str]:
        """Start the process and return at once."""
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("https", "proxy", "http")}
        fds = [part for name, s in sockets.items() for part in (f"--{name}-fd", str(s.fileno()))]
        self._close_output()
        try:
            with self._stderr.open("w") as stderr:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "penstock.control", "--home", str(self.paths.home), *fds],
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    pass_fds=[s.fileno() for s in sockets.values()],
                )
        finally:
            for s in sockets.values():
                s.close()
        return self.process

    def start(self) -> Penstock:
        """Start it and wait for its ready line."""
        process = self.launch()
        assert process.stdout is not None
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        assert line.startswith("Penstock is ready on https://"), (line, self.errors())
        return self

    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._stderr.read_text()

    def _close_output(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.paths.server_state.read_text()))

    def family(self) -> list[psutil.Process]:
        """Every process that it has started, and that runs."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            self.started |= set(psutil.Process(self.process.pid).children(recursive=True))
        return [p for p in self.started if _lives(p)]

    def gateways(self) -> list[psutil.Process]:
        return [p for p in self.family() if "penstock.gateway" in _command(p)]

    def servers(self) -> list[psutil.Process]:
        """The model servers themselves, not their minders."""
        return [p for p in self.family() if any("penstock.servers" in part for part in _command(p)[:4])]

    def kill(self) -> None:
        """As the kernel or a bad day does it."""
        assert self.process is not None
        self.family()
        self.process.kill()
        self.process.wait()

    def terminate(self, *, number: int = signal.SIGTERM, deadline_s: float = 30.0) -> int:
        """The exit code after a signal."""
        assert self.process is not None
        self.family()
        self.process.send_signal(number)
        return self.process.wait(deadline_s)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self.process is None:
            return
        if self.process.poll() is None:
            self.kill()
        until(lambda: not self.family(), deadline_s=15, what="all it started is gone")
        self._close_output()

    def client(self, service: str = "sagemaker", **config: Any) -> Any:
        client = boto3.client(
            service,
            endpoint_url=f"https://127.0.0.1:{self.state['ports']['https']}",
            verify=str(self.paths.ca_certificate),
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 20, **config}),
        )
        self._clients.append(client)
        return client

    def deploy(self, name: str = "e", *, count: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """A scripted endpoint; not awaited until InService."""
        client = self.client()
        container = {"Image": "penstock/scripted", "Environment": dict(environment or {})}
        client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "v",
            "ModelName": name,
            "InstanceType": "ml.g5.2xlarge",
            "InitialInstanceCount": count,
        }
        client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        client.create_endpoint(EndpointName=name, EndpointConfigName=name)

    def until_status(self, status: str, name: str = "e", *, deadline_s: float = 20.0) -> dict[str, Any]:
        client = self.client()

        def described() -> dict[str, Any] | None:
            found: dict[str, Any] = client.describe_endpoint(EndpointName=name)
            assert status == "Failed" or found["EndpointStatus"] != "Failed", found["FailureReason"]
            return found if found["EndpointStatus"] == status else None

        found = until(described, deadline_s=deadline_s, what=f"{name} is {status}")
        assert found is not None
        return found

    def invoke(self, name: str = "e", body: bytes = b"hello") -> bytes:
        answer = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=name, Body=body, ContentType="text/plain"
        )
        return bytes(answer["Body"].read())

    def until_answers(self, name: str = "e", *, deadline_s: float = 20.0) -> bytes:
        """The first answer of an endpoint that may not be there yet."""

        def answer() -> bytes | None:
            try:
                return self.invoke(name)
            except (BotoCoreError, ClientError):
                return None

        found = until(answer, deadline_s=deadline_s, every_s=0.1, what=f"{name} answers")
        assert found is not None
        return found


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
