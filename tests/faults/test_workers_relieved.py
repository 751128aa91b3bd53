"""A rolling restart of the gateway's workers under load: every request that was sent gets its answer, whole."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config

from tests.running import Penstock
from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire, echo
from tests.wire.raw import connect, read_answer, signed

WORKERS = 3
PARTS = [f"part {n};" for n in range(12)]
SLOW: dict[str, Any] = {"steps": [step for part in PARTS for step in ({"send": part}, {"wait_ms": 100})]}
QUICK: dict[str, Any] = {"steps": [{"echo": "body"}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Penstock]:
    penstock = Penstock(tmp_path / "home", "--workers", str(WORKERS)).start(PENSTOCK_KEEPALIVE_TIMEOUT_S="8")
    for name, script in (("slow", SLOW), ("quick", QUICK)):
        penstock.cli("deploy", "scripted", "--name", name, "--env", f"PENSTOCK_SCRIPT={json.dumps(script)}")
    yield penstock
    assert penstock.stop() == 0


class Load:
    """Clients that ask again and again, and note whatever is not the answer that they must get. None of them retries."""

    def __init__(self, server: Penstock) -> None:
        self.server = server
        self.variables = server.environment()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def client(self, service: str = "sagemaker-runtime", **config: Any) -> Any:
        session = boto3.Session(
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            region_name=self.variables["AWS_REGION"],
        )
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": 20, "proxies": {}, **config}
        url = None if "https" in settings["proxies"] else self.variables["AWS_ENDPOINT_URL"]
        bundle = str(self.server.home / "tls" / "bundle.pem")
        return session.client(service, endpoint_url=url, verify=bundle, config=Config(**settings))

    def repeat(self, kind: str, ask: Callable[[int], bool], pause_s: float = 0.0) -> None:
        """A thread that asks until the end."""

        def run() -> None:
            number = 0
            while not self._over.is_set():
                number += 1
                try:
                    if not ask(number):
                        self.wrong.append(f"{kind}: another answer")
                    self.done[kind] += 1
                except Exception as error:  # each of them is what this test is about
                    self.wrong.append(f"{kind}: {error!r}")
                time.sleep(pause_s)

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)


def quick(client: Any) -> Callable[[int], bool]:
    def ask(number: int) -> bool:
        body = b"%d" % number
        return bool(client.invoke_endpoint(EndpointName="quick", Body=body)["Body"].read() == body)

    return ask


def slow(client: Any) -> Callable[[int], bool]:
    def ask(number: int) -> bool:
        answer = client.invoke_endpoint_with_response_stream(EndpointName="slow", Body=b"{}")
        return "".join(event["PayloadPart"]["Bytes"].decode() for event in answer["Body"]) == "".join(PARTS)

    return ask


def objects(client: Any) -> Callable[[int], bool]:
    client.create_bucket(Bucket="relieved")

    def ask(number: int) -> bool:
        body = b"%d" % number * 100_000
        client.put_object(Bucket="relieved", Key="k", Body=body)
        return bool(client.get_object(Bucket="relieved", Key="k")["Body"].read() == body)

    return ask


def fresh(load: Load) -> Callable[[int], bool]:
    """A new connection, a new handshake, for each request."""
    return lambda number: quick(load.client())(number)


def workers(server: Penstock) -> set[int]:
    children = psutil.Process(server.pid).children()
    return {one.pid for one in children if "penstock.gateway" in one.cmdline()}


def certificate(server: Penstock) -> bytes:
    context = ssl.create_default_context(cafile=str(server.home / "tls" / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", server.port("https")), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return found


def test_a_rolling_restart_loses_no_request(server: Penstock) -> None:
    load = Load(server)
    proxy = {"https": f"http://127.0.0.1:{server.port('proxy')}"}
    for _ in range(3):
        load.repeat("kept", quick(load.client()), pause_s=0.005)
        load.repeat("stream", slow(load.client()))
    load.repeat("seldom", quick(load.client()), pause_s=1.0)
    load.repeat("fresh", fresh(load), pause_s=0.05)
    load.repeat("proxied", quick(load.client(proxies=proxy)), pause_s=0.02)
    load.repeat("object", objects(load.client("s3")), pause_s=0.02)
    try:
        until(lambda: len(load.done) == 6, what="every kind of request once")
        first, shown = workers(server), certificate(server)
        assert len(first) == WORKERS
        for _ in range(3):
            before = workers(server)
            (server.home / "tls" / "server.pem").unlink()  # `reload` makes another one
            assert "reloaded" in server.cli("reload").stderr
            assert certificate(server) != shown
            shown = certificate(server)
            assert len(workers(server) - before) == WORKERS
            counts = dict(load.done)
            until(lambda counts=counts: all(load.done[kind] > counts[kind] + 1 for kind in counts), deadline_s=30)  # type: ignore[misc]
    finally:
        load.end()
    assert load.wrong == [], (len(load.wrong), load.wrong[:10], load.done)
    assert load.done["kept"] > 100
    assert not first & workers(server) or len(workers(server)) > WORKERS
    until(lambda: not first & workers(server), deadline_s=90, every_s=0.2, what="the first workers gone")


def test_a_new_worker_that_cannot_start_leaves_the_old_ones_at_work(server: Penstock) -> None:
    before = workers(server)
    key = server.home / "tls" / "server.key"
    good = key.read_bytes()
    key.write_text("no key")
    os.kill(server.pid, signal.SIGUSR2)
    state = until(lambda: server.state if server.state.get("reloads") else None, deadline_s=40)
    assert state is not None
    assert "the new gateway worker does not start" in state["reload_failed"]
    until(lambda: workers(server) == before, what="the same workers as before")
    assert quick(server.client("sagemaker-runtime"))(1)
    key.write_bytes(good)
    server.cli("reload")
    assert not server.state["reload_failed"]
    assert len(workers(server) - before) == WORKERS


def relieve(house: House) -> None:
    assert house.process is not None
    house.process.send_signal(signal.SIGUSR2)
    until(lambda: "is relieved" in house.log())

    def closed() -> bool:
        try:
            connect(house).close()
        except ConnectionRefusedError:
            return True
        return False

    until(closed, what="the sockets closed")


def test_a_kept_connection_gets_one_more_answer_that_says_it_is_the_last(house: House) -> None:
    house.serve(echo)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"before"))
        assert "connection" not in read_answer(sock).headers
        relieve(house)
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"after"))
        answer = read_answer(sock)
        assert (answer.body, answer.headers["connection"]) == (b"you said after", "close")
        assert sock.recv(1) == b""
    assert house.process is not None
    assert house.process.wait(10) == 0


def test_a_stream_that_began_before_leaves_its_connection_open_for_one_more(house: House) -> None:
    """Its head said that the connection goes on: the client may send at any moment."""
    release = threading.Event()

    async def pause(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await wire_wait(release)
        await wire.chunk(b"last")
        await wire.end_chunks()

    house.serve(pause)
    house.serve(echo, name="other")
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))
        data = b""
        while b"first" not in data:
            data += sock.recv(65536)
        assert b"connection: close" not in data
        relieve(house)
        release.set()
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
        sock.sendall(signed(house, "/endpoints/other/invocations", b"one more"))
        assert read_answer(sock).body == b"you said one more"
    assert house.process is not None
    assert house.process.wait(10) == 0


async def wire_wait(event: threading.Event) -> None:
    await asyncio.get_running_loop().run_in_executor(None, event.wait)


def test_whoever_is_shaking_hands_is_served(house: House) -> None:
    """TCP has been accepted, TLS has not begun: the client knows of nothing."""
    house.serve(echo)
    with socket.create_connection(("localhost", house.ports["https"]), timeout=10) as plain:
        until(lambda: established(house, plain), what="the connection accepted")
        relieve(house)
        context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.sendall(signed(house, "/endpoints/ep/invocations", b"late"))
            response = http.client.HTTPResponse(secured)
            response.begin()
            assert (response.status, response.read()) == (200, b"you said late")
            assert response.headers["connection"] == "close"
    assert house.process is not None
    assert house.process.wait(10) == 0


def established(house: House, sock: socket.socket) -> bool:
    port = sock.getsockname()[1]
    found = psutil.Process(house.pid).net_connections("tcp")
    return any(one.raddr and one.raddr[1] == port for one in found)


def test_sigterm_ends_a_relieved_worker_as_any_other(house: House) -> None:
    async def endless(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await wire.gone()

    house.serve(endless)
    with connect(house) as sock, connect(house) as idle:
        sock.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))
        while b"first" not in sock.recv(65536):
            pass
        relieve(house)
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b"", "who sends nothing is let go at once"
        sock.close()
    assert house.process.wait(10) == 0
