"""The gateway stops: open streams finish, new requests are turned away, and what is cut short says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import EventStreamError

from penstock.routes import Variant
from tests.faults.test_workers_relieved import established as accepted
from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire, answering, echo
from tests.wire.raw import connect, read_all, read_answer, signed


def test_sigterm_lets_streams_finish(house: House) -> None:
    release = threading.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await wire.chunk(b"last")
        await wire.end_chunks()

    house.serve(slow)
    runtime = house.client("sagemaker-runtime")
    body = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")["Body"]
    events = iter(body)
    assert next(events)["PayloadPart"]["Bytes"] == b"first"
    with connect(house) as idle:
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b"", "idle connections close"
    with pytest.raises(OSError):
        connect(house)
    release.set()
    assert [event["PayloadPart"]["Bytes"] for event in events] == [b"last"]
    body.close()
    assert house.process.wait(10) == 0


def test_what_outlasts_the_drain_gets_an_exception_frame(tmp_path: Path) -> None:
    house = House(tmp_path / "home", {"PENSTOCK_DRAIN_S": "0.3"})
    try:
        house.start()

        async def endless(request: Seen, wire: Wire) -> None:
            await wire.begin_chunks()
            await wire.chunk(b"first")
            await wire.gone()

        house.serve(endless)
        runtime = house.client("sagemaker-runtime")
        body = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")["Body"]
        events = iter(body)
        next(events)
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        with pytest.raises(EventStreamError) as cut:
            next(events)
        body.close()
        assert cut.value.response["Error"]["Code"] == "InternalStreamFailure"
        assert house.process.wait(10) == 0
    finally:
        house.close()


def test_a_request_on_a_kept_connection_is_told_that_it_closes(house: House) -> None:
    house.serve(echo)
    release = threading.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await wire.answer(b"done")

    house.serve(slow, name="slow")
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/slow/invocations", b""))
        until(lambda: any(one.requests for one in house._replicas))
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        until(lambda: "drains" in house.log())
        release.set()
        answer = read_all(sock)
    assert answer.endswith(b"done")
    assert b"connection: close" in answer


def test_a_request_behind_the_last_answer_reaches_no_container(house: House) -> None:
    """The answer before it says that the connection closes: its client knows that nobody has read it (RFC 9112 §9.6)."""
    release = threading.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await wire.answer(b"done")

    replica = house.serve(slow)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"first"))
        until(lambda: replica.requests)
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        until(lambda: "drains" in house.log())
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"second"))
        until(lambda: unread(house, sock) == 0, what="the second request read")
        release.set()
        answer = read_all(sock)
    assert answer.endswith(b"\r\nconnection: close\r\n\r\ndone")
    assert [one.body for one in replica.requests] == [b"first"]
    assert house.process.wait(10) == 0


def unread(house: House, sock: socket.socket) -> int:
    """Bytes that we have sent and the gateway has not read, by the kernel's table of connections."""
    ours, theirs = sock.getsockname()[1], house.ports["http"]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (int(local.split(":")[1], 16), int(remote.split(":")[1], 16)) == (theirs, ours):
            return int(queues.split(":")[1], 16)
    raise AssertionError("the connection is gone")


def test_a_request_on_a_connection_that_was_shaking_hands_is_refused(house: House) -> None:
    """TCP had been accepted when the signal came, and a stream keeps the gateway there."""
    release = threading.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await wire.end_chunks()

    replica = house.serve(slow)
    with connect(house) as stream, socket.create_connection(("localhost", house.ports["https"]), timeout=10) as plain:
        stream.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))
        while b"first" not in stream.recv(65536):
            pass
        until(lambda: accepted(house, plain), what="the connection accepted")
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        until(lambda: "drains" in house.log())
        context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
        with context.wrap_socket(plain, server_hostname="localhost") as late:
            late.sendall(signed(house, "/endpoints/ep/invocations", b"late"))
            answer = read_answer(late)
        release.set()
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (503, "ServiceUnavailable")
    assert json.loads(answer.body)["ErrorCode"] == "SERVICE_UNAVAILABLE"
    assert answer.headers["connection"] == "close"
    assert len(replica.requests) == 1
    assert house.process.wait(10) == 0


def test_the_gateway_dies_with_its_parent(tmp_path: Path) -> None:
    """A control process that is killed leaves no gateway behind."""
    house = House(tmp_path / "home")
    try:
        program = (
            "import socket, subprocess, sys, time\n"
            "s = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]\n"
            "p = subprocess.Popen([sys.executable, '-m', 'penstock.gateway', '--home', sys.argv[1], '--worker', '0',\n"
            "    '--https-fd', str(s[0].fileno()), '--proxy-fd', str(s[1].fileno())], pass_fds=[x.fileno() for x in s])\n"
            "print(p.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(house.paths.home)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: any(event.kind == "ready" for event in house.events))
        parent.kill()
        parent.wait(10)
        parent.stdout.close()
        until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    finally:
        house.close()


def test_who_waits_for_a_replica_is_served_while_it_drains(house: House) -> None:
    """One runs, one waits for its room: both were there before the signal."""
    release, entered = threading.Event(), list[bytes]()

    async def slow(request: Seen, wire: Wire) -> None:
        entered.append(request.body)
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await echo(request, wire)

    replica = house.replica(answering(slow))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,), max_concurrency=1))
    with connect(house) as first, connect(house) as second, connect(house) as third:
        first.sendall(signed(house, "/endpoints/ep/invocations", b"runs"))
        until(lambda: entered)
        second.sendall(signed(house, "/endpoints/ep/invocations", b"waits"))
        third.sendall(signed(house, "/endpoints/absent/invocations", b""))
        assert read_answer(third).status == 400, "what came before is dealt with"
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        until(lambda: "drains" in house.log())
        release.set()
        assert read_all(first).endswith(b"you said runs")
        assert read_all(second).endswith(b"you said waits")
        assert read_all(third) == b""
    assert house.process.wait(10) == 0


def test_an_upload_to_control_is_finished(house: House) -> None:
    """Its body was on its way when the signal came."""
    body = b"z" * 1_000_000
    request = signed(house, "/bucket/key", body, method="PUT")
    with connect(house) as sock:
        sock.sendall(request[:-500_000])
        until(lambda: established(house), what="the upload under way")
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        until(lambda: "drains" in house.log())
        sock.sendall(request[-500_000:])
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert house.control_seen[0].body == body
    assert house.process.wait(10) == 0


def established(house: House) -> bool:
    found = psutil.Process(house.pid).net_connections("tcp")
    return any(one.status == psutil.CONN_ESTABLISHED for one in found)


def test_over_tls_streams_finish_and_whoever_is_silent_is_let_go(house: House) -> None:
    release = threading.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await asyncio.get_running_loop().run_in_executor(None, release.wait)
        await wire.chunk(b"last")
        await wire.end_chunks()

    house.serve(slow)
    context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))

    def secured() -> ssl.SSLSocket:
        plain = socket.create_connection(("localhost", house.ports["https"]), timeout=10)
        return context.wrap_socket(plain, server_hostname="localhost")

    runtime = house.client("sagemaker-runtime", "https")
    body = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")["Body"]
    events = iter(body)
    assert next(events)["PayloadPart"]["Bytes"] == b"first"
    with secured() as idle, secured() as begun:
        begun.sendall(b"POST /endpoints/ep/invocations HTTP/1.1\r\nHost: localhost\r\n")
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b"", "with TLS's own farewell"
        release.set()
        assert [event["PayloadPart"]["Bytes"] for event in events] == [b"last"]
        body.close()
        with suppress(OSError):
            begun.recv(65536)
    assert house.process.wait(10) == 0
