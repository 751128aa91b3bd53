"""The container is the attacker: what it answers is no HTTP, or more than an answer. No client may take that for a whole answer."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from penstock.routes import Variant
from penstock.wire.eventstream import Decoder
from tests.wire.gateway_fixture import House, Seen, Wire, answering
from tests.wire.raw import connect, read_answer, signed
from tests.wire.test_gateway_openai import token

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ATTRIBUTES = b"X-Amzn-SageMaker-Custom-Attributes: "
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "no HTTP": b"just text",
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": OK + b"Content-Length: 3,3\r\n\r\nabc",
    "a coding nobody asked for": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "a coding to the end": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "a chunk size that is none": CHUNKED + b"3\r\nabc\r\nzz\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"3\r\nabc\r\nffffffffffffffffff\r\n",
    "a negative chunk size": CHUNKED + b"3\r\nabc\r\n-1\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n",
    "bare line feeds between chunks": CHUNKED + b"3\nabc\n0\n\n",
    "no last line": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "half a last chunk": CHUNKED + b"3\r\nabc\r\n0",
    "half a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX: y",
    "fewer bytes than announced": OK + b"Content-Length: 30\r\n\r\nabc",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "nothing but 102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "status 99": b"HTTP/1.1 99 X\r\nContent-Length: 3\r\n\r\nabc",
    "status 000": b"HTTP/1.1 000 X\r\nContent-Length: 3\r\n\r\nabc",
    "status 999": b"HTTP/1.1 999 X\r\nContent-Length: 3\r\n\r\nabc",
    "a bare CR in a header": OK + ATTRIBUTES + b"a\rSet-Cookie: x\r\nContent-Length: 3\r\n\r\nabc",
    "a bare LF in a header": OK + ATTRIBUTES + b"a\nSet-Cookie: x\r\nContent-Length: 3\r\n\r\nabc",
    "a folded header": OK + ATTRIBUTES + b"a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "NUL in a header": OK + ATTRIBUTES + b"a\0b\r\nContent-Length: 3\r\n\r\nabc",
    "a control character in a header": OK + ATTRIBUTES + b"a\x0bb\r\nContent-Length: 3\r\n\r\nabc",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "a space before a header": OK + b" X: y\r\nContent-Length: 3\r\n\r\nabc",
}
CALLS = ("invocations", "invocations-response-stream", "openai/v1/chat/completions")


def ask(house: House, call: str) -> tuple[bytes, bytes]:
    """Head and rest of the answer as they came, up to an answer's end or the connection's."""
    with connect(house) as sock:
        sock.sendall(request(house, call))
        data = b""
        while not whole(data):
            try:
                piece = sock.recv(65536)
            except ConnectionError:
                break
            if not piece:
                break
            data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def request(house: House, call: str) -> bytes:
    if "openai" not in call:
        return signed(house, f"/endpoints/ep/{call}", b"{}")
    head = f"POST /endpoints/ep/{call} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token()}\r\n"
    return f"{head}Content-Length: 2\r\n\r\n{{}}".encode()


def whole(data: bytes) -> bool:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return False
    if length := re.search(rb"(?i)content-length: (\d+)", head):
        return len(rest) >= int(length[1])
    return b" 204 " in head or b" 304 " in head or rest.endswith(b"0\r\n\r\n")


def said_broken(call: str, head: bytes, rest: bytes) -> bool:
    """Whether a client of this call can see that it did not get the container's whole answer."""
    status = head.split(b" ")[1]
    if status == b"424":
        return b"\r\nx-amzn-errortype: ModelError" in head
    if call == "invocations-response-stream":
        messages = Decoder().feed(unchunked(rest))
        return status == b"200" and messages[-1].headers[":exception-type"] == "ModelStreamError"
    return status == b"200" and "openai" in call and not whole(head + b"\r\n\r\n" + rest)


def unchunked(data: bytes) -> bytes:
    pieces = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        pieces, data = pieces + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return pieces


class Attacker:
    """The one replica of endpoint `ep`: it reads a request, does what `attack` says, and closes."""

    def __init__(self, house: House) -> None:
        self.attack: Callable[[Wire], Awaitable[None]]

        async def script(wire: Wire) -> None:
            if await wire.request() is not None:
                await self.attack(wire)

        replica = house.replica(script)
        house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))

    def says(self, data: bytes) -> None:
        self.attack = lambda wire: wire.send(data)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(Path(tmp_path_factory.mktemp("attacks")) / "home")
    try:
        yield house.start()
        assert "Traceback" not in house.log()
    finally:
        house.close()


@pytest.fixture(scope="module")
def attacker(shared: House) -> Attacker:
    return Attacker(shared)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_answer_never_looks_like_one(shared: House, attacker: Attacker, name: str, call: str) -> None:
    attacker.says(BROKEN[name])
    head, rest = ask(shared, call)
    assert said_broken(call, head, rest), (head, rest)
    assert b"Set-Cookie" not in head


def forever(first: bytes, piece: bytes) -> Callable[[Wire], Awaitable[None]]:
    async def pour(wire: Wire) -> None:
        await wire.send(first)
        while True:
            await wire.send(piece)

    return pour


ENDLESS = {
    "headers": forever(OK, b"X-A: " + b"a" * 1000 + b"\r\n"),
    "one header": forever(OK + ATTRIBUTES, b"a" * 65536),
    "reason": forever(b"HTTP/1.1 200 ", b"a" * 65536),
    "interim answers": forever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100),
    "trailers": forever(CHUNKED + b"3\r\nabc\r\n0\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
    "one trailer": forever(CHUNKED + b"3\r\nabc\r\n0\r\nX: ", b"a" * 65536),
    "chunk extension": forever(CHUNKED + b"3\r\nabc\r\n3;", b"a" * 65536),
    "zeros of a chunk size": forever(CHUNKED + b"3\r\nabc\r\n", b"0" * 65536),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_ended_and_held_nowhere(shared: House, attacker: Attacker, name: str, call: str) -> None:
    before = psutil.Process(shared.pid).memory_info().rss
    attacker.attack = ENDLESS[name]
    head, rest = ask(shared, call)
    assert said_broken(call, head, rest), (head, rest)
    assert psutil.Process(shared.pid).memory_info().rss - before < 4 * 1024 * 1024


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "tail", [b"XXXX", OK + b"Content-Length: 6\r\n\r\nsecond", b"\r\n\r\n" + OK + b"Content-Length: 6\r\n\r\nsecond"]
)
def test_what_follows_an_answer_is_nobody_s(shared: House, attacker: Attacker, call: str, tail: bytes) -> None:
    """RFC 9112 §9.2: the answer is whole, the bytes behind it are no answer, and the connection is not used again."""
    attacker.says(OK + b"Content-Length: 5\r\n\r\nfirst" + tail)
    for _ in range(3):
        head, rest = ask(shared, call)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"first" in rest
        assert b"second" not in rest
        assert b"XXXX" not in rest


def test_an_answer_before_its_request_is_not_the_next_client_s(house: House) -> None:
    """The container answers twice; the second answer lies in the kept connection when the next request comes."""
    sent = threading.Event()

    async def twice(request: Seen, wire: Wire) -> None:
        await wire.answer(b"mine")
        await asyncio.sleep(0.005)
        await wire.answer(b"somebody else's")
        sent.set()

    replica = house.serve(twice)
    runtime = house.client("sagemaker-runtime")
    for _ in range(30):
        sent.clear()
        assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"mine"
        assert sent.wait(10)
    assert len(replica.requests) == 30, "nobody's request was sent twice"


def test_a_container_that_speaks_first_or_closes_at_once_makes_nobody_wait(house: House) -> None:
    async def speak(wire: Wire) -> None:
        await wire.send(OK + b"Content-Length: 8\r\nConnection: close\r\n\r\nunasked!")
        await wire.gone()

    async def close(wire: Wire) -> None:
        wire.writer.close()

    for name, script in (("speaks", speak), ("closes", close)):
        replica = house.replica(script)
        house.endpoint(name, Variant("AllTraffic", 1.0, (replica.replica,)))
        for _ in range(20):
            with connect(house, 5) as sock:
                sock.sendall(signed(house, f"/endpoints/{name}/invocations", b"{}"))
                answer = read_answer(sock)
            assert answer.status == 424 or (name == "speaks" and answer.body == b"unasked!")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("body", [b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_followed_by_none(
    shared: House, attacker: Attacker, call: str, body: bytes, status: int
) -> None:
    """A client that keeps its connection must find its next answer where this one ends."""
    attacker.says(b"HTTP/1.1 %d X\r\n%s\r\n3\r\nabc\r\n0\r\n\r\n" % (status, body))
    with connect(shared) as sock:
        sock.sendall(request(shared, call) + signed(shared, "/endpoints/absent/invocations", b""))
        assert gather(sock).count(b"HTTP/1.1 ") == 2


def gather(sock: socket.socket) -> bytes:
    """Two answers, the second of them with a length."""
    data = b""
    while not (found := re.search(rb"HTTP/1.1 400 .*?content-length: (\d+).*?\r\n\r\n(.*)", data, re.DOTALL)) or (
        len(found[2]) < int(found[1])
    ):
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    between = data[: data.index(b"HTTP/1.1 400 ")]
    if b" 204 " in between or b" 304 " in between:
        assert between.endswith(b"\r\n\r\n")
        assert between.count(b"\r\n\r\n") == 1, between
        assert b"transfer-encoding" not in between
        assert b"content-length" not in between
    return data


def test_what_the_container_says_of_others_is_not_passed_on(shared: House, attacker: Attacker) -> None:
    forged = (
        b"x-amzn-requestid: forged\r\nx-amzn-errortype: Forged\r\nx-amzn-invoked-production-variant: forged\r\n"
        b"Set-Cookie: forged\r\nServer: forged\r\nConnection: forged\r\nX-Amzn-SageMaker-Closed-Session: forged\r\n"
    )
    attacker.says(OK + forged + b"Content-Length: 3\r\n\r\nabc")
    for call in CALLS:
        head, _ = ask(shared, call)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"forged" not in head.lower(), head


@pytest.mark.parametrize("call", CALLS[:2])
def test_a_trailer_is_no_header(shared: House, attacker: Attacker, call: str) -> None:
    attacker.says(CHUNKED + b"3\r\nabc\r\n0\r\n" + ATTRIBUTES + b"late\r\nX-Amzn-SageMaker-New-Session-Id: s\r\n\r\n")
    head, rest = ask(shared, call)
    assert b"abc" in rest
    assert b"late" not in head
    assert b"session" not in head


def test_an_interim_answer_s_headers_are_not_the_answer_s(house: House) -> None:
    async def hint(request: Seen, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 103 Early Hints\r\n" + ATTRIBUTES + b"early\r\n\r\n")
        await wire.answer(b"whole")

    replica = house.replica(answering(hint))
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
    answer = house.client("sagemaker-runtime").invoke_endpoint(EndpointName="ep", Body=b"x")
    assert answer["Body"].read() == b"whole"
    assert "CustomAttributes" not in answer
