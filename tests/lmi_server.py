"""A real LMI server process, and a client that sees its chunks as they were sent."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import until

SRC = Path(__file__).parents[1] / "src"


@dataclass
class Answer:
    """A response; `chunks` are the HTTP chunks of its body, `complete` whether it ended as it should."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = True

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)


class Stream:
    """One request on a connection of its own, read chunk by chunk."""

    def __init__(self, port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self._file = self._socket.makefile("rb")
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False

    def head(self) -> Stream:
        """Wait for the status line and the headers."""
        self.status = int(self._line().split()[1])
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(": ")
            self.headers[name.lower()] = value
        return self

    def answer(self) -> Answer:
        """Everything that is left of the response."""
        if not self.status:
            self.head()
        chunks = list(self)
        return Answer(self.status, self.headers, chunks, self.complete)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding") != "chunked":
            length = int(self.headers.get("content-length", 0))
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
        self._socket.close()

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

    def begin(self, body: Any = None, *, path: str = "/invocations", method: str = "POST", **headers: str) -> Stream:
        """Send a request; an object as body is sent as JSON. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            body = b"" if body is None else json.dumps(body).encode()
            named = {"Content-Type": "application/json", **named}
        return Stream(self.port, method, path, body, named)

    def open(self, body: Any = None, *, path: str = "/invocations", method: str = "POST", **headers: str) -> Stream:
        """Send a request and wait for the response's head."""
        return self.begin(body, path=path, method=method, **headers).head()

    def ask(self, body: Any = None, *, path: str = "/invocations", method: str = "POST", **headers: str) -> Answer:
        with self.begin(body, path=path, method=method, **headers) as stream:
            return stream.answer()

    def get(self, path: str) -> Answer:
        return self.ask(path=path, method="GET")

    def children(self) -> list[int]:
        """Process ids of the server's children."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def environ(home: Path, model_dir: Path, port: int, given: Mapping[str, str]) -> dict[str, str]:
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


@contextmanager
def running(home: Path, model_dir: Path, deadline_s: float = 60, /, **given: str) -> Iterator[Server]:
    """A server that answers /ping, ended with SIGTERM. Raises AssertionError with its log when it does not come up."""
    home.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), home / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.servers.lmi"],
            env=environ(home, model_dir, port, given),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, port, log)
    try:
        until(lambda: _up(server), deadline_s=deadline_s, what="the server answers /ping")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        finally:
            process.kill()
            process.wait(10)


def _up(server: Server) -> bool:
    assert server.process.poll() is None, server.log
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", "/ping")
        connection.getresponse().read()
        return True
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()


def failing(home: Path, model_dir: Path, **given: str) -> tuple[int, str, str]:
    """Run a server that gives up: its exit status, its termination message and its log."""
    home.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "penstock.servers.lmi"],
        env=environ(home, model_dir, free_port(), given),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    message = home / "termination"
    return done.returncode, message.read_text() if message.exists() else "", done.stdout.decode(errors="replace")


def write_properties(directory: Path, *lines: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "serving.properties").write_text("\n".join(lines) + "\n")
    return directory
