"""Bytes that two readers could take for different requests, or that are no HTTP: refused as RFC 9112 asks, and the connection closed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.wire.eventstream import Decoder
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, echo
from tests.wire.raw import connect, read_all, read_answer, signed, signed_head
from tests.wire.test_access_log import line_of

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
    "a method of another protocol": (b"LOCK / HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
    "another protocol": (b"PLAY / RTSP/1.0\r\nHost: a\r\n\r\n", b"501"),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    "HTTP/0.9": (b"GET /\r\n\r\n", b"505"),
    "a version in lower case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a tab for a space": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a control character in the target": (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a fragment": (b"GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a user in the target": (b"GET http://u@localhost/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a space before the first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", b"400"),
    "a header without a name": (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", b"400"),
    "a header without a colon": (b"GET / HTTP/1.1\r\nHost: a\r\nXb\r\n\r\n", b"400"),
    "a tab before the colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", b"400"),
    "NUL in a name": (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", b"400"),
    "a control character in a value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n", b"400"),
    "CR CR LF": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n", b"400"),
    "a fold of tabs": (b"POST / HTTP/1.1\r\n" + HOST + b"X: a\r\n\tb\r\n\r\n", b"400"),
    "a folded coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", b"400"),
    "chunked behind a VT": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", b"400"),
    "chunked with a parameter": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        b"501",
    ),
    "quoted chunked": (b"POST / HTTP/1.1\r\n" + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', b"501"),
    "chunked twice": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", b"400"),
    "an empty coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n", b"400"),
    "identity": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n", b"501"),
    "length and chunks behind an upgrade": (
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    **{
        f"a length of {length!r}": (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + length + b"\r\n\r\nabc",
            b"400",
        )
        for length in (b"3,3", b"3 3", b"", b"1_0", b"0x3", b"3.0", b"-0", b"\xd9\xa3", b"3;", b"\x0b3")
    },
    **{
        f"a host of {host!r}": (b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", b"400")
        for host in (b"a b", b"u@a", b"a,b", b"\xff", b"a\r\nHost: a")
    },
    "a long head": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"431"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"431"),
    "a long target": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"431"),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One gateway for all that does not change it."""
    house = House(tmp_path_factory.mktemp("malformed") / "home")
    try:
        yield house.start()
    finally:
        house.close()


@pytest.fixture(scope="module")
def replica(shared: House) -> Scripted:
    return shared.serve(echo)


@pytest.mark.parametrize("name", BAD)
def test_refused_and_closed(shared: House, name: str) -> None:
    request, status = BAD[name]
    with connect(shared) as sock:
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
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0_3\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b";a\r\nabc\r\n0\r\n\r\n",
        b"3;a\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;\x01\r\nabc\r\n0\r\n\r\n",
        b'3;a="\r\nabc\r\n0\r\n\r\n',
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabcXX0\r\n\r\n",
        b"3\r\nabc\r\n0\n\n",
        b"3\r\nabc\r\n0\r\n\n",
        b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
        b"3\r\nabc\r\n0\r\n(: y\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"X: yyyyyyyyyyyyyyyy\r\n" * 20_000 + b"\r\n",
    ],
)
def test_bad_chunks_reach_no_container(shared: House, replica: Scripted, chunks: bytes) -> None:
    before = len(replica.requests)
    with connect(shared) as sock:
        sock.sendall(
            signed_head(shared, "/endpoints/ep/invocations", b"abc") + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        )
        assert read_all(sock).split(b" ")[1] in (b"400", b"431")
    assert len(replica.requests) == before


@pytest.mark.parametrize(
    "chunks",
    [b"3;a=b\r\nabc\r\n0\r\n\r\n", b"000003\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nX-Trailer: y\r\n\r\n"],
)
def test_good_chunks_of_unusual_looks_do(house: House, chunks: bytes) -> None:
    replica = house.serve(echo)
    head = signed_head(house, "/endpoints/ep/invocations", b"abc") + b"Transfer-Encoding: chunked\r\n\r\n"
    with connect(house) as sock:
        sock.sendall(head + chunks)
        assert read_answer(sock).body == b"you said abc"
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"next"))
        assert read_answer(sock).body == b"you said next"
    assert "x-trailer" not in replica.requests[0].headers


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


def test_a_body_that_trickles(impatient: House) -> None:
    """Each byte in time, and all of them together never."""
    replica = impatient.serve(echo)
    head, _, body = signed(impatient, "/endpoints/ep/invocations", b"x" * 1_000_000).partition(b"\r\n\r\n")
    with connect(impatient) as sock:
        sock.sendall(head + b"\r\n\r\n")
        sock.setblocking(False)
        sent = 0

        def answered() -> bytes:
            nonlocal sent
            try:
                sent += sock.send(body[sent : sent + 1])
                return sock.recv(65536)
            except (BlockingIOError, BrokenPipeError):
                return b""

        assert until(answered, every_s=0.1, what="the answer").startswith(b"HTTP/1.1 408 ")
    assert replica.requests == []


def test_what_is_refused_is_in_the_access_log_under_its_request_id(impatient: House) -> None:
    cut = signed(impatient, "/endpoints/ep/invocations", b"x" * 100)[:-50]
    for request, status, operation in ((b"BREW / HTTP/1.1\r\n\r\n", 400, ""), (cut, 408, "InvokeEndpoint")):
        with connect(impatient) as sock:
            sock.sendall(request)
            match = re.search(rb"x-amzn-requestid: (\S+)", read_all(sock))
        assert match
        line = line_of(impatient, match[1].decode())
        assert (line["status"], line["error"], line["operation"]) == (status, "BadRequest", operation)


def test_silent_connections_are_closed(impatient: House) -> None:
    with connect(impatient) as silent:
        assert read_all(silent) == b""
    impatient.serve(echo)
    with connect(impatient) as kept:
        kept.sendall(signed(impatient, "/endpoints/ep/invocations", b"x"))
        assert b"you said x" in read_all(kept)
