"""A real gateway process between real clients and scripted neighbours.

Owns the neighbours: a fake control process (table and HTTP on unix sockets) and replicas that do what a test's coroutine says. They run on
an event loop in a thread, so that tests may block in boto3.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import EventStreamError

from penstock.config import Paths, socket_address
from penstock.gateway.tls import ensure_certificates
from penstock.routes import AccessKey, Endpoint, GatewayEvent, Replica, RoutingTable, Variant, decode_event, encode_line
from tests.waiting import until

T = TypeVar("T")
ACCOUNT = "123456789012"
REGION = "us-east-1"
KEY = AccessKey("AKIDPENSTOCK", "a/secret+of=ours", ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/R/penstock")


@dataclass(slots=True)
class Seen:
    """A request as a replica or the control process got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


class Wire:
    """One accepted connection: read requests, write whatever bytes the script wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> Seen | None:
        """The next request with its body, None at the end of the connection."""
        head = await self.head()
        if head is None:
            return None
        if "expect" in head.headers:
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                head.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\r\n")
        else:
            head.body = await self.reader.readexactly(int(head.headers.get("content-length", "0")))
        return head

    async def head(self) -> Seen | None:
        try:
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = raw[:-4].split("\r\n")
        method, target, _ = first.split(" ")
        headers = dict[str, str]()
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Seen(method, target, headers)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self,
        body: bytes = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        type_: str = "text/plain",
    ) -> None:
        fields = {"Content-Type": type_, "Content-Length": str(len(body)), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.send(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body)

    async def begin_chunks(self, type_: str = "text/plain", extra: str = "") -> None:
        await self.send(
            f"HTTP/1.1 200 OK\r\nContent-Type: {type_}\r\n{extra}Transfer-Encoding: chunked\r\n\r\n".encode()
        )

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def end_chunks(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def gone(self) -> None:
        """Returns when the other side has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Closes with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


Script = Callable[[Wire], Awaitable[None]]


@dataclass
class Scripted:
    """A replica: where it listens, what it got, how many connections it has open."""

    replica: Replica
    server: asyncio.Server | None = None
    requests: list[Seen] = field(default_factory=list)
    accepted: int = 0
    open: int = 0


def answering(handle: Callable[[Seen, Wire], Awaitable[None]]) -> Script:
    """A script that calls `handle` for each request of a kept-alive connection."""

    async def script(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            await handle(request, wire)

    return script


async def echo(request: Seen, wire: Wire) -> None:
    await wire.answer(b"you said " + request.body, type_="text/plain")


class House:
    """The neighbours of one gateway, and the gateway itself once `start`ed."""

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.paths = Paths(home)
        self.environ = dict(environ or {})
        self.paths.run.mkdir(parents=True)
        self.paths.logs.mkdir()
        ensure_certificates(self.paths)
        self.events: list[GatewayEvent] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.keys: tuple[AccessKey, ...] = (KEY,)
        self.version = 0
        self.control_seen: list[Seen] = []
        self.control: Script = answering(self._control)
        self.process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self._replicas: list[Scripted] = []
        self._tables: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.table_server = self.run(self._listen_table())
        self.control_server = self.run(self._listen_control())

    # --- the loop in the thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen_table(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._table, socket_address(self.paths.table_socket))

    async def _listen_control(self) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._guard(self.control, reader, writer)

        return await asyncio.start_unix_server(accept, socket_address(self.paths.control_socket))

    async def _guard(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await script(Wire(reader, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _table(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tables.add(writer)
        writer.write(encode_line(self._routing_table()))
        try:
            while line := await reader.readline():
                self.events.append(decode_event(line))
        except ConnectionError:
            pass
        finally:
            self._tables.discard(writer)
            writer.close()

    async def _control(self, request: Seen, wire: Wire) -> None:
        self.control_seen.append(request)
        body = b"" if request.method == "PUT" else b'{"EndpointName": "seen"}'
        await wire.answer(body, type_="application/x-amz-json-1.1")

    # --- the table

    def _routing_table(self) -> RoutingTable:
        return RoutingTable(self.version, tuple(self.endpoints.values()), self.keys)

    def publish(self) -> None:
        """Sends the table to the gateway; it is in force when this returns."""
        self.version += 1

        async def send() -> None:
            for writer in self._tables:
                writer.write(encode_line(self._routing_table()))
                await writer.drain()

        self.run(send())
        if self.process is not None:
            self._settle()

    def _settle(self) -> None:
        """A dead replica's name, invoked until the error shows: proof that the new table has been read."""
        marker = f"marker-{self.version}"
        self.endpoints[marker] = Endpoint(
            marker, f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{marker}", REGION, ACCOUNT, ()
        )

        async def send() -> None:
            for writer in self._tables:
                writer.write(encode_line(self._routing_table()))
                await writer.drain()

        self.run(send())
        runtime = self.client("sagemaker-runtime")

        def known() -> bool:
            try:
                runtime.invoke_endpoint(EndpointName=marker, Body=b"")
            except runtime.exceptions.ModelError:
                return True
            except runtime.exceptions.ValidationError:
                return False
            return True

        until(known, what="the new table in force")
        del self.endpoints[marker]

    async def _serve(self, scripted: Scripted, script: Script, port: int) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            scripted.accepted += 1
            scripted.open += 1
            try:
                await self._guard(script, reader, writer)
            finally:
                scripted.open -= 1

        scripted.server = await asyncio.start_server(accept, "127.0.0.1", port, limit=64 * 1024 * 1024)
        bound = scripted.server.sockets[0].getsockname()[1]
        scripted.replica = Replica(f"replica-{bound}", 1, "127.0.0.1", bound)

    def replica(self, script: Script, *, port: int = 0) -> Scripted:
        """Starts a replica that runs `script` for each connection."""
        scripted = Scripted(Replica("", 0, "", 0))
        self.run(self._serve(scripted, script, port))
        self._replicas.append(scripted)
        return scripted

    def serve(self, script: Callable[[Seen, Wire], Awaitable[None]], *, name: str = "ep") -> Scripted:
        """A replica that answers each request by `script`, as the only one of endpoint `name`."""

        async def handle(request: Seen, wire: Wire) -> None:
            scripted.requests.append(request)
            await script(request, wire)

        scripted = self.replica(answering(handle))
        self.endpoint(name, Variant("AllTraffic", 1.0, (scripted.replica,)))
        return scripted

    def endpoint(self, name: str, *variants: Variant) -> None:
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name.lower()}"
        self.endpoints[name] = Endpoint(name, arn, REGION, ACCOUNT, variants)
        self.publish()

    # --- the gateway

    def start(self) -> House:
        sockets = {name: socket.create_server(("127.0.0.1", 0), backlog=1024) for name in ("https", "proxy", "http")}
        arguments = [sys.executable, "-m", "penstock.gateway", "--home", str(self.paths.home), "--worker", "0"]
        for name, sock in sockets.items():
            arguments += [f"--{name}-fd", str(sock.fileno())]
        environ = {**os.environ, "PYTHONPATH": "src", **self.environ}
        log = (self.paths.home / "gateway.log").open("ab")
        ready = len(self._readies())
        self.process = subprocess.Popen(
            arguments, pass_fds=[sock.fileno() for sock in sockets.values()], env=environ, stderr=log
        )
        log.close()
        for sock in sockets.values():
            sock.close()
        until(lambda: len(self._readies()) > ready or self._died(), what="the gateway to be ready")
        self.ports = self._readies()[-1].ports
        return self

    def _readies(self) -> list[GatewayEvent]:
        return [event for event in self.events if event.kind == "ready"]

    def _died(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.paths.home / "gateway.log").read_text()
        return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://localhost:{self.ports[scheme]}"

    def client(self, service: str, scheme: str = "http", *, key: AccessKey = KEY, **config: Any) -> Any:
        """A boto3 client of this gateway that retries nothing."""
        config.setdefault("retries", {"total_max_attempts": 1})
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.url(scheme),
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            aws_session_token=key.session_token or None,
            verify=str(self.paths.ca_certificate),
            config=Config(**config),
        )

    def stream(self, scheme: str = "http", **arguments: Any) -> tuple[list[bytes], EventStreamError | None]:
        """A whole response stream by boto3: its parts, and the error that ended it."""
        arguments = {"EndpointName": "ep", "Body": b"{}", **arguments}
        client = self.client("sagemaker-runtime", scheme)
        body = client.invoke_endpoint_with_response_stream(**arguments)["Body"]
        parts: list[bytes] = []
        with contextlib.closing(body):
            try:
                parts.extend(event["PayloadPart"]["Bytes"] for event in body)
            except EventStreamError as error:
                return parts, error
        return parts, None

    def log(self) -> str:
        return (self.paths.home / "gateway.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the gateway; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

        async def end() -> None:
            for task in list(self._tasks):
                task.cancel()
            for server in (self.table_server, self.control_server, *(one.server for one in self._replicas)):
                if server is not None:
                    server.close()
            for writer in list(self._tables):
                writer.close()
            await asyncio.sleep(0.01)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
