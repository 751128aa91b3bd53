"""The server that a test session runs against.

Owns the process and what a test may ask of it. It must never be shared between sessions: workers of pytest-xdist have one each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from penstock.cli.server import Server, environment, find

_START_S = 30.0
_STOP_S = 10.0
_DRAIN_S = "1"  # a stream that a test left open must not hold up the session's end


class Penstock:
    """A running Penstock. `environment()` and `client(service)` are what programs and tests need of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server: Server | None = None
        self.ready_s = 0.0
        """How long it took to start."""
        self.idle: dict[str, list[str]] = {}
        """Endpoints that wait for the next test with the same script; by script."""
        self.made = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home.parent / "penstock.log"
        self._clients: dict[str, Any] = {}
        self._bodies: list[Any] = []

    def start(self) -> None:
        """Start it and return when it serves. Raises RuntimeError, with the end of its log, where it does not."""
        begin = time.monotonic()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PENSTOCK_"))}
        command = [sys.executable, "-m", "penstock.pytest_plugin.serve", str(self.home), str(os.getpid())]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | {"PENSTOCK_DRAIN_S": _DRAIN_S},
            )
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > begin + _START_S:
                self.stop()
                lines = self._log.read_text(errors="replace").strip().splitlines()[-5:]
                raise RuntimeError("penstock did not start:\n" + "\n".join(lines))
            time.sleep(0.01)
        self.server = find(self.home)
        self.ready_s = time.monotonic() - begin

    def _serves(self) -> bool:
        assert self._process is not None
        try:
            state = json.loads((self.home / "run" / "server.json").read_text())
        except (FileNotFoundError, ValueError):
            return False
        return bool(state["pid"] == self._process.pid)

    def stop(self) -> None:
        """End it and everything that it runs."""
        self.close_streams()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        process, self._process, self.server = self._process, None, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def running(self) -> Server:
        """The server's ports and keys. Raises RuntimeError where it does not run."""
        if self.server is None:
            raise RuntimeError("this penstock does not run")
        return self.server

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return self.running.url

    def environment(self) -> dict[str, str]:
        """The variables that point any AWS SDK at it: AWS_ENDPOINT_URL, AWS_CA_BUNDLE, keys, region."""
        return environment(self.running)

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client. `config` is botocore's Config; without it the session shares one client a service, which does not retry."""
        if not config and service in self._clients:
            return self._clients[service]
        import boto3
        from botocore.config import Config

        variables = self.environment()
        made = boto3.Session(
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            region_name=variables["AWS_REGION"],
        ).client(
            service,
            endpoint_url=self.url,
            verify=variables["AWS_CA_BUNDLE"],
            config=Config(**{"retries": {"total_max_attempts": 1}, "proxies": {}, **config}),
        )
        if service == "sagemaker-runtime":
            made.meta.events.register("after-call", self._answered)
        if not config:
            self._clients[service] = made
        return made

    def _answered(self, parsed: dict[str, Any], **_: object) -> None:
        if hasattr(body := parsed.get("Body"), "close"):
            self._bodies.append(body)

    def close_streams(self) -> None:
        """Close what was answered and is perhaps not read to its end: a test that fails in the middle leaves its stream open."""
        while self._bodies:
            self._bodies.pop().close()
