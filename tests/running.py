"""A real `penstock up` for tests: its own home, free ports, killed with real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

from tests.waiting import until

PENSTOCK = [sys.executable, "-m", "penstock.cli.main"]
SOURCE = Path(__file__).parent.parent / "src"
_LOADER = botocore.loaders.create_loader()
"""Keeps what it has read: each client would else read AWS's models again, tenths of a second for SageMaker's."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything of AWS or Penstock, with the source tree importable."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PENSTOCK_", "OPTION_", "SERVING_"))}
    return kept | {"PYTHONPATH": str(SOURCE)} | more


class Penstock:
    """One server on one home. Start it again after `kill` to see what survived."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0
        self._environments: dict[int, dict[str, str]] = {}
        self.output = home.parent / f"{home.name}.out"

    def start(self, **environment: str) -> Penstock:
        """Start and wait until it serves; `ready_s` is how long that took."""
        begin = time.monotonic()
        command = [*PENSTOCK, "up", "--home", str(self.home), "--port", "0", "--proxy-port", "0", "--http", "0"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *self.options], stdout=output, stderr=output, env=clean_environment(**environment)
            )
        until(self._serves, deadline_s=30, every_s=0.01, what=f"penstock up: {self.output}")
        self.ready_s = time.monotonic() - begin
        return self

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text(errors="replace")
        try:
            return bool(self.state["pid"] == self.process.pid)
        except (FileNotFoundError, ValueError):
            return False

    @property
    def state(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.home / "run" / "server.json").read_text())
        return document

    def port(self, door: str) -> int:
        return int(self.state["ports"][door])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL: nothing of it gets to tidy up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def environment(self) -> dict[str, str]:
        """What `penstock env` prints, as variables. It is asked once for each start: ports and root key stay as long."""
        if self.pid not in self._environments:
            self._environments[self.pid] = json.loads(self.cli("env", "--json").stdout)
        return dict(self._environments[self.pid])

    def cli(
        self,
        verb: str,
        *arguments: str,
        check: bool = True,
        timeout_s: float = 120,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb on this home."""
        return cli(verb, *arguments, home=self.home, check=check, timeout_s=timeout_s, environment=environment)

    def client(self, service: str, *, http: bool = False, **config: Any) -> Any:
        """A boto3 client of this server, over https (verified against the local CA) or plain http."""
        variables = self.environment()
        url = f"http://127.0.0.1:{self.port('http')}" if http else variables["AWS_ENDPOINT_URL"]
        core = botocore.session.Session()
        core.register_component("data_loader", _LOADER)
        return boto3.Session(
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_REGION"],
            botocore_session=core,
        ).client(
            service,
            endpoint_url=url,
            verify=False if http else variables["AWS_CA_BUNDLE"],
            config=Config(**{"retries": {"total_max_attempts": 1}, "proxies": {}, **config}),
        )

    def in_service(self, name: str, *, deadline_s: float = 60) -> dict[str, Any]:
        """Wait until the endpoint is InService; fails at once with its reason when it is Failed."""
        sagemaker = self.client("sagemaker")

        def reached() -> dict[str, Any] | None:
            seen: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
            assert seen["EndpointStatus"] != "Failed", seen.get("FailureReason")
            return seen if seen["EndpointStatus"] == "InService" else None

        seen = until(reached, deadline_s=deadline_s, what=f"{name} InService")
        assert seen is not None
        return seen


def cli(
    verb: str,
    *arguments: str,
    home: Path,
    check: bool = True,
    timeout_s: float = 120,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `penstock VERB` in a process of its own."""
    command = [*PENSTOCK, verb, *arguments]
    done = subprocess.run(
        command,
        env=clean_environment(PENSTOCK_HOME=str(home), **(environment or {})),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"{' '.join(command[2:])}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done
