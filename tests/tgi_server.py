"""A real TGI server process, and a client that sees its chunks as they were sent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import until

COMMAND = (sys.executable, "-m", "penstock.servers.tgi")
LAUNCHER = (sys.executable, "-c", "from penstock.servers.tgi.launcher import main; main()")
SRC = Path(__file__).parents[1] / "src"


@dataclass
class Answer:
    """A response. `chunks` are the HTTP chunks of its body, `complete` whether it ended as it should."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    complete: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request on a connection of its own; iterating gives the response's chunks as they come."""

    def __init__(self, port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        named = {"Host": "test", "Content-Length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        self._file = self.socket.makefile("rb")
        self.complete = False

    def answer(self) -> Answer:
        """The whole response; closes the connection."""
        status, headers = self.head()
        chunks = list(self.chunks(headers))
        self.close()
        return Answer(status, headers, chunks, self.complete)

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self._line().split()[1])
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(": ")
            headers[name.lower()] = value
        return status, headers

    def chunks(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding") != "chunked":
            length = int(headers.get("content-length", "0"))
            data = self._file.read(length)
            self.complete = len(data) == length
            yield data
            return
        while line := self._line():
            if (size := int(line, 16)) == 0:
                self.complete = self._line() == b""
                return
            yield self._file.read(size)
            self._file.read(2)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def _line(self) -> bytes:
        return self._file.readline().rstrip(b"\r\n")


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log_file = log

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def begin(self, body: Any, path: str = "/invocations", headers: Mapping[str, str] | None = None) -> Exchange:
        """Send a POST; an object is sent as JSON, bytes as they are and with no header but those given."""
        if isinstance(body, bytes):
            return Exchange(self.port, "POST", path, body, headers or {})
        given = {"Content-Type": "application/json", **(headers or {})}
        return Exchange(self.port, "POST", path, json.dumps(body).encode(), given)

    def ask(self, body: Any, path: str = "/invocations", headers: Mapping[str, str] | None = None) -> Answer:
        return self.begin(body, path, headers).answer()

    def stream(self, body: Any, path: str = "/invocations") -> tuple[Exchange, Iterator[bytes]]:
        """A streamed answer that has begun, and its chunks."""
        exchange = self.begin(body, path)
        status, headers = exchange.head()
        assert status == 200
        return exchange, exchange.chunks(headers)

    def get(self, path: str) -> Answer:
        return Exchange(self.port, "GET", path, b"", {}).answer()

    def metrics(self) -> dict[str, float]:
        """The values of /metrics."""
        lines = self.get("/metrics").body.decode().splitlines()
        split = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in split}

    def metric(self, name: str) -> float:
        """One of them; 0 where there is none yet."""
        return self.metrics().get(name, 0.0)

    def engine(self) -> int:
        """The engine's process id."""
        (pid,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(pid)


def environment(home: Path, model_dir: Path, port: int, given: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SRC),
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "PENSTOCK_MODEL_DIR": str(model_dir),
        "PENSTOCK_MODELS": str(home / "models"),
        "PENSTOCK_TERMINATION_LOG": str(home / "termination"),
        **given,
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(
    home: Path, model_dir: Path, deadline_s: float = 60, /, *, flags: Sequence[str] | None = None, **given: str
) -> Iterator[Server]:
    """A server that answers; ended with SIGTERM. Raises AssertionError with its log when it does not come up.

    With `flags` it is started by `text-generation-launcher`, which is told the port by a flag too.
    """
    port, log = free_port(), home / "log"
    command: tuple[str, ...] = COMMAND
    environ = environment(home, model_dir, port, given)
    if flags is not None:
        command = (*LAUNCHER, f"--port={port}", *flags)
        del environ["SAGEMAKER_BIND_TO_PORT"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, port, log)
    try:
        until(lambda: _answers(server), deadline_s=deadline_s, what="the server answers")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        finally:
            process.kill()
            process.wait(10)


def _answers(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    try:
        return server.get("/ping").status == 200
    except ConnectionRefusedError:
        return False


def failing(home: Path, model_dir: Path, given: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a server that gives up: its exit status, its termination message and its log."""
    done = subprocess.run(
        COMMAND,
        env=environment(home, model_dir, free_port(), given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    message = home / "termination"
    return done.returncode, message.read_text() if message.exists() else "", done.stdout.decode(errors="replace")
