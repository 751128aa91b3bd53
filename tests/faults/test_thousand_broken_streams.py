"""A thousand streams broken in every way: descriptors, connections to replicas, tasks, sessions and memory are back where they were."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire, answering
from tests.wire.raw import connect, read_all, read_answer, signed

STREAM = "/endpoints/ep/invocations-response-stream"
PLANS = {
    "error": "kind=ModelStreamError after_parts=1",
    "failure": "kind=InternalStreamFailure after_bytes=100",
    "reset": "kind=reset after_parts=1",
    "end": "kind=end after_parts=1",
    "truncate": "kind=truncate after_parts=1",
    "crc": "kind=bad-crc after_parts=1",
    "stall": "kind=stall after_parts=1",
    "refusal": "kind=ModelError status=500",
    "slices": "mode=one-byte",
}


async def misbehave(request: Seen, wire: Wire) -> None:
    """The container does what the body says."""
    how = request.body.decode()
    if how == "silent":
        wire.writer.close()
    elif how == "reset":
        wire.reset()
    elif how == "error":
        await wire.answer(b"no", status=500)
    elif how == "nonsense":
        await wire.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        wire.writer.close()
    elif how == "half a head":
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
        wire.writer.close()
    elif how == "late":
        await wire.gone()
    else:
        await inside(how, wire)


async def inside(how: str, wire: Wire) -> None:
    await wire.begin_chunks(extra="X-Amzn-SageMaker-New-Session-Id: s\r\n")
    await wire.chunk(b"x" * 2000)
    if how == "half a chunk":
        await wire.send(b"ff\r\nhalf")
        wire.writer.close()
    elif how == "reset inside":
        wire.reset()
    elif how == "bad chunk":
        await wire.send(b"zz\r\n")
        await wire.gone()
    elif how == "never ends":
        await wire.gone()
    elif how == "floods":
        with suppress(ConnectionError):
            for _ in range(64):
                await wire.chunk(b"z" * 65536)
        await wire.gone()
    else:
        await wire.end_chunks()


Door = Callable[[], socket.socket]
Way = Callable[["Breaker", Door], None]


class Breaker:
    """A client that breaks one stream, over plain HTTP, TLS, or TLS behind the proxy."""

    def __init__(self, house: House, rng: random.Random) -> None:
        self.house, self.rng = house, rng
        self.context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
        self.doors: dict[str, Door] = {"http": self.plain, "https": self.secured, "proxy": self.proxied}

    def plain(self) -> socket.socket:
        return connect(self.house)

    def secured(self) -> socket.socket:
        sock = socket.create_connection(("localhost", self.house.ports["https"]), timeout=10)
        return self.context.wrap_socket(sock, server_hostname="localhost")

    def proxied(self) -> socket.socket:
        sock = self.tunnel()
        return self.context.wrap_socket(sock, server_hostname="sts.amazonaws.com")

    def tunnel(self) -> socket.socket:
        sock = socket.create_connection(("localhost", self.house.ports["proxy"]), timeout=10)
        sock.sendall(b"CONNECT sts.amazonaws.com:443 HTTP/1.1\r\nHost: sts.amazonaws.com:443\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        return sock

    def request(self, how: str, path: str = STREAM, **headers: str) -> bytes:
        return signed(self.house, path, how.encode(), headers={n.replace("_", "-"): v for n, v in headers.items()})

    def ask(self, door: Door, request: bytes) -> None:
        """Everything up to the end, however it comes."""
        with closing(door()) as sock:
            sock.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            with suppress(ssl.SSLError):
                read_all(sock)

    def leave(self, sock: socket.socket) -> None:
        """In order, or with a reset."""
        if self.rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def container(how: str) -> Way:
    return lambda breaker, door: breaker.ask(door, breaker.request(how))


def plan(name: str) -> Way:
    path = STREAM.replace("/ep/", f"/plan-{name}/")

    def go(breaker: Breaker, door: Door) -> None:
        if name != "stall":
            breaker.ask(door, breaker.request("whole", path))
            return
        sock = door()
        sock.sendall(breaker.request("whole", path))
        sock.recv(100)
        breaker.leave(sock)

    return go


def leaves_with(share: float) -> Way:
    """The client sends so much of its request, and goes."""

    def go(breaker: Breaker, door: Door) -> None:
        sock, request = door(), breaker.request("whole" * 200)
        sock.sendall(request[: int(len(request) * share)])
        breaker.leave(sock)

    return go


def leaves_while(how: str, path: str = STREAM, **headers: str) -> Way:
    """The client sends its request, sees the first of the answer where there is one, and goes."""

    def go(breaker: Breaker, door: Door) -> None:
        sock = door()
        sock.sendall(breaker.request(how, path, **headers))
        if how != "late" and path == STREAM:
            sock.recv(100)
        breaker.leave(sock)

    return go


def garbage(breaker: Breaker, door: Door) -> None:
    with closing(door()) as sock:
        sock.sendall(breaker.request("whole") + b"\x00garbage")
        with suppress(ssl.SSLError):
            read_all(sock)


def hands_unshaken(breaker: Breaker, door: Door) -> None:
    """A handshake that is cut: at once, after some bytes of it, or by a client that trusts nobody."""
    how = breaker.rng.randrange(4)
    sock = (
        breaker.tunnel()
        if how == 3
        else socket.create_connection(("localhost", breaker.house.ports["https"]), timeout=10)
    )
    if how == 0:
        breaker.leave(sock)
    elif how == 1:
        sock.sendall(bytes.fromhex("16030100c8010000c40303") + breaker.rng.randbytes(20))
        breaker.leave(sock)
    elif how == 2:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(sock)
        sock.close()
    else:
        with closing(sock), pytest.raises((ssl.SSLError, ConnectionError)):
            ssl.create_default_context().wrap_socket(sock, server_hostname="sts.amazonaws.com")


WAYS: dict[str, Way] = {
    **{f"container: {how}": container(how) for how in ("silent", "reset", "error", "nonsense", "half a head", "late")},
    **{
        f"container: {how}": container(how)
        for how in ("half a chunk", "reset inside", "bad chunk", "never ends", "whole")
    },
    **{f"plan: {name}": plan(name) for name in PLANS},
    **{f"leaves with {share:.0%} of a request": leaves_with(share) for share in (0.0, 0.1, 0.6, 0.99)},
    "leaves while waiting": leaves_while("late"),
    "leaves inside a stream": leaves_while("never ends"),
    "leaves a flood": leaves_while("floods"),
    "leaves a plain answer": leaves_while("never ends", "/endpoints/ep/invocations"),
    "leaves a new session": leaves_while(
        "never ends", "/endpoints/ep/invocations", X_Amzn_SageMaker_Session_Id="NEW_SESSION"
    ),
    "leaves an upload": leaves_while("x" * 100_000, "/bucket/key"),
    "garbage behind a request": garbage,
    "a handshake that is cut": hands_unshaken,
}


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[House]:
    """Time-outs are among the ways: they must come soon."""
    environ = {
        "PENSTOCK_STREAM_TIMEOUT_S": "0.3",
        "PENSTOCK_INVOCATION_TIMEOUT_S": "0.3",
        "PENSTOCK_LOG_LEVEL": "WARNING",
    }
    house = House(tmp_path / "home", environ)
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.timeout(300)
def test_nothing_leaks(hurried: House, rng: random.Random) -> None:
    house = hurried
    replica = house.replica(answering(misbehave))
    variant = Variant("AllTraffic", 1.0, (replica.replica,))
    house.endpoint("ep", variant)
    for name, text in PLANS.items():
        house.endpoint(f"plan-{name}", variant)
        house.endpoints[f"plan-{name}"] = replace(house.endpoints[f"plan-{name}"], faults=text)
    house.publish()
    breaker, process, broken = Breaker(house, rng), psutil.Process(house.pid), Counter[str]()

    def break_streams(count: int) -> None:
        for number in range(count):
            name = list(WAYS)[number % len(WAYS)]
            door = rng.choice(list(breaker.doors))
            WAYS[name](breaker, breaker.doors[door])
            broken[f"{door}, {name}"] += 1

    def settled() -> None:
        until(lambda: replica.open <= 1, what="connections to the replica closed")
        until(lambda: len(process.net_connections()) <= 6, what="clients' connections closed")

    break_streams(300)
    settled()
    descriptors, memory, threads = process.num_fds(), process.memory_info().rss, process.num_threads()
    break_streams(1000)
    settled()
    until(lambda: process.num_fds() <= descriptors + 1, what="descriptors back")
    assert process.num_threads() <= threads
    assert process.memory_info().rss - memory < 4 * 1024 * 1024
    assert len({name.partition(", ")[2] for name in broken}) == len(WAYS)
    assert not (house.paths.run / "sessions.jsonl").exists() or not (house.paths.run / "sessions.jsonl").read_text()
    assert "Traceback" not in house.log()
    assert "never retrieved" not in house.log()
    with connect(house) as sock:
        sock.sendall(breaker.request("whole", "/endpoints/ep/invocations"))
        assert read_answer(sock).status == 200
    until(lambda: not any(in_flight(house).values()), what="no request counted as in flight")


def in_flight(house: House) -> dict[str, int]:
    """What the worker has told last of each endpoint."""
    return {one.measured.endpoint: one.measured.in_flight for one in house.events if one.measured}
