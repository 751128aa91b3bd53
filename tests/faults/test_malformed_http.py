"""Bytes that two readers could take for different requests, or that are no HTTP: refused as RFC 9112 asks, and the connection closed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.wire.eventstream import Decoder
from tests.wire.gateway_fixture import House, Seen, Wire, echo
from tests.wire.raw import connect, read_all, read_answer, signed, signed_head

HOST = b"Host: localhost\r\n"
BAD: dict[str, tuple[bytes, bytes]] = {
    "length and chunks": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    "chunks and length": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", b"400"),
    "the same length twice": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"400",
    ),
    "a signed length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc", b"400"),
    "a huge length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n", b"400"),
    "chunked, then identity": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n", b"400"),
    "gzip, chunked": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501"),
    "xchunked": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", b"501"),
    "chunked in 1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "obs-fold": (b"POST / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", b"400"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", b"400"),
    "bare LF inside": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", b"400"),
    "bare CR inside": (b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", b"400"),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"400"),
    "NUL": (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", b"400"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", b"400"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"505"),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"400"),
    "an unknown method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a target without a slash": (b"GET nothing HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a strange expectation": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n", b"417"),
    "CONNECT on this port": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
    "a long head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"431"),
    "a long target": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"431"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_and_closed(house: House, name: str) -> None:
    request, status = BAD[name]
    with connect(house) as sock:
        sock.sendall(request)
        answer = read_all(sock)
    assert answer.split(b" ")[1] == status, answer
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
    assert b"connection: close" in answer
    assert b"x-amzn-requestid: " in answer


@pytest.mark.parametrize(
    "chunks",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"ffffffffffffffff1\r\n",
        b"-1\r\n",
        b"3;" + b"x" * 700_000,
    ],
)
def test_bad_chunks_reach_no_container(house: House, chunks: bytes) -> None:
    replica = house.serve(echo)
    with connect(house) as sock:
        sock.sendall(
            signed_head(house, "/endpoints/ep/invocations", b"abc") + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        )
        assert read_all(sock).split(b" ")[1] in (b"400", b"431")
    assert replica.requests == []


def test_a_smuggled_request_is_never_answered(house: House) -> None:
    replica = house.serve(echo)
    inner = signed(house, "/endpoints/ep/invocations", b"smuggled")
    outer = signed_head(house, "/endpoints/ep/invocations", b"")
    with connect(house) as sock:
        sock.sendall(outer + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % len(inner) + inner)
        assert read_all(sock).count(b"HTTP/1.1 ") == 1
    assert replica.requests == []


def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    house.serve(echo)
    with connect(house) as sock:
        sock.sendall(b"".join(signed(house, "/endpoints/ep/invocations", b"%d" % n) for n in range(50)))
        data = b""
        while b"you said 49" not in data:
            data += sock.recv(65536)
    order = [data.index(b"you said %d" % n + (b"HTTP" if n < 49 else b"")) for n in range(50)]
    assert order == sorted(order)


def test_thousands_of_pipelined_errors_do_not_overflow(house: House) -> None:
    one = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with connect(house, 30) as sock:
        sock.sendall(one * 5000 + one.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"))
        assert read_all(sock).count(b"HTTP/1.1 403 ") == 5001


def test_garbage_behind_a_request_waits_for_its_answer(house: House) -> None:
    house.serve(echo)
    with connect(house) as sock:
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"first") + b"\x00\x01garbage")
        answer = read_all(sock)
    assert b"you said first" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_an_offered_upgrade_is_ignored(house: House) -> None:
    house.serve(echo)
    head = signed_head(house, "/endpoints/ep/invocations", b"body")
    with connect(house) as sock:
        sock.sendall(head + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody")
        assert read_answer(sock).body == b"you said body"


def test_http_1_0_gets_a_stream_that_ends_with_the_connection(house: House) -> None:
    async def two(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"one")
        await wire.chunk(b"two")
        await wire.end_chunks()

    house.serve(two)
    request = signed(house, "/endpoints/ep/invocations-response-stream", b"{}").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with connect(house) as sock:
        sock.sendall(request)
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert [message.payload for message in Decoder().feed(body)] == [b"one", b"two"]


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "home", {"PENSTOCK_HEADER_TIMEOUT_S": "0.6", "PENSTOCK_KEEPALIVE_TIMEOUT_S": "0.8"})
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.parametrize("begun", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nX: y", b"\r\n\r\n"])
def test_a_head_that_trickles(impatient: House, begun: bytes) -> None:
    with connect(impatient) as sock:
        sock.sendall(begun)
        assert read_all(sock).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_stops(impatient: House) -> None:
    with connect(impatient) as sock:
        sock.sendall(signed(impatient, "/endpoints/ep/invocations", b"x" * 100)[:-50])
        assert read_all(sock).startswith(b"HTTP/1.1 408 ")


def test_silent_connections_are_closed(impatient: House) -> None:
    with connect(impatient) as silent:
        assert read_all(silent) == b""
    impatient.serve(echo)
    with connect(impatient) as kept:
        kept.sendall(signed(impatient, "/endpoints/ep/invocations", b"x"))
        assert b"you said x" in read_all(kept)
