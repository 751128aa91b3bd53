"""Clients that break HTTP/2, or have the gateway work for nothing: their connection ends, and nobody else's."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Iterator

import psutil
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.waiting import until
from tests.wire.gateway_fixture import House
from tests.wire.http2 import Http2
from tests.wire.test_bidi import said, serve

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/x")]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(
        tmp_path_factory.mktemp("abuse") / "home",
        {"PENSTOCK_HEADER_TIMEOUT_S": "1", "PENSTOCK_KEEPALIVE_TIMEOUT_S": "1"},
    )
    try:
        yield house.start()
    finally:
        house.close()


class Rude:
    """A connection whose bytes are the test's own."""

    def __init__(self, house: House) -> None:
        context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", house.ports["https"]), timeout=10)
        self.sock = context.wrap_socket(raw, server_hostname="localhost")

    def send(self, *frames: Frame | bytes) -> None:
        data = b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # the gateway may have had enough
            self.sock.sendall(data)

    def hello(self) -> None:
        self.send(PREFACE, SettingsFrame(0))

    def rest(self) -> bytes:
        """All that the gateway still says, until it closes."""
        data = b""
        try:
            while piece := self.sock.recv(65536):
                data += piece
        except (ConnectionError, ssl.SSLError):
            pass
        self.sock.close()
        return data


def goaway_code(data: bytes) -> int | None:
    """The error of the last GOAWAY frame, None where there is none."""
    code, at = None, 0
    while at + 9 <= len(data):
        length, kind = int.from_bytes(data[at : at + 3]), data[at + 3]
        if kind == 7:
            code = int.from_bytes(data[at + 13 : at + 17])
        at += 9 + length
    return code


def headers(stream: int, *flags: str, fields: list[tuple[str, str]] | None = None) -> HeadersFrame:
    return HeadersFrame(stream, Encoder().encode(fields or REQUEST), flags=flags)


def resets(count: int) -> list[Frame]:
    frames: list[Frame] = []
    for number in range(count):
        frames += [headers(2 * number + 1, "END_HEADERS"), RstStreamFrame(2 * number + 1, error_code=8)]
    return frames


FLOODS: dict[str, tuple[list[Frame | bytes], int]] = {
    "rapid reset": (list(resets(2000)), 11),
    "pings": ([PingFrame(0, opaque_data=b"x" * 8) for _ in range(5000)], 11),
    "settings": ([SettingsFrame(0, settings={4: 65535}) for _ in range(2000)], 11),
    "priorities": ([PriorityFrame(1, stream_weight=1) for _ in range(5000)], 11),
    "window updates": ([WindowUpdateFrame(0, window_increment=1) for _ in range(5000)], 11),
    "empty data": ([headers(1, "END_HEADERS"), *[DataFrame(1, b"") for _ in range(5000)]], 11),
    "unknown frames": ([b"\0\0\0\xfa\0\0\0\0\0" for _ in range(5000)], 11),
    "continuations": ([headers(1), *[ContinuationFrame(1, b"") for _ in range(5000)]], 1),
    "a header list of megabytes": (
        [HeadersFrame(1, Encoder().encode([("x", "y" * 4000)]) + b"\xbe" * 5000, flags=("END_HEADERS",))],
        11,
    ),
    "header blocks of megabytes": (
        [headers(1), *[ContinuationFrame(1, b"\0\1x\1y" * 3000) for _ in range(60)]],
        11,
    ),
    "too many streams": ([headers(2 * number + 1, "END_HEADERS") for number in range(101)], 1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_the_connection(house: House, name: str) -> None:
    frames, code = FLOODS[name]
    rude = Rude(house)
    rude.hello()
    rude.send(*frames)
    assert goaway_code(rude.rest()) == code
    alive(house)


def alive(house: House) -> None:
    """Others are served, and no error of ours has been met."""
    serve(house)
    with Http2(house) as client:
        stream = client.converse()
        stream.part("alive")
        assert said(stream.message())[0] == b"alive"
    assert "Traceback" not in house.log()


BROKEN: dict[str, bytes] = {
    "no preface": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a preface, then garbage": PREFACE[:12] + b"garbage, and not the rest of it",
    "data before settings": PREFACE + b"\0\0\1\0\0\0\0\0\1x",
    "a frame that is too long": PREFACE + SettingsFrame(0).serialize() + b"\xff\xff\xff\0\0\0\0\0\1",
    "settings on a stream": PREFACE + b"\0\0\0\4\0\0\0\0\1",
    "settings of half a length": PREFACE + b"\0\0\5\4\0\0\0\0\0xxxxx",
    "an even stream": PREFACE + SettingsFrame(0).serialize() + headers(2, "END_HEADERS").serialize(),
    "garbage for headers": PREFACE + SettingsFrame(0).serialize() + b"\0\0\5\1\4\0\0\0\1\xff\xff\xff\xff\xff",
    "a push": PREFACE + SettingsFrame(0).serialize() + b"\0\0\4\5\4\0\0\0\1\0\0\0\2",
    "a window of nothing": PREFACE + SettingsFrame(0).serialize() + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_http2_ends_the_connection(house: House, name: str) -> None:
    rude = Rude(house)
    rude.send(BROKEN[name])
    code = goaway_code(rude.rest())
    assert code != 0
    assert code is not None or "preface" in name, "why is told, but to those who speak something else"
    alive(house)


def test_garbage_of_every_kind(house: House, rng: random.Random) -> None:
    for _ in range(200):
        rude = Rude(house)
        frames = bytearray(b"".join(one.serialize() for one in (SettingsFrame(0), *resets(3), PingFrame(0))))
        for _ in range(rng.randrange(1, 6)):
            frames[rng.randrange(len(frames))] = rng.randrange(256)
        rude.send(PREFACE + bytes(frames))
        rude.sock.close()
    alive(house)


def test_a_connection_that_says_nothing_or_waits_too_long_is_closed(house: House) -> None:
    silent, idle = Rude(house), Rude(house)
    idle.hello()
    began = time.monotonic()
    assert goaway_code(silent.rest()) == 0
    assert goaway_code(idle.rest()) == 0
    assert time.monotonic() - began < 8


def test_an_answer_that_the_client_gives_no_room_for_is_given_up(house: House) -> None:
    rude = Rude(house)
    rude.send(PREFACE, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    rude.send(*[headers(2 * number + 1, "END_HEADERS", "END_STREAM") for number in range(50)])
    began = time.monotonic()
    data = rude.rest()
    assert goaway_code(data) == 0
    assert data.count(b"\0\0\4\3\0\0\0") >= 50, "each stream is reset"
    assert time.monotonic() - began < 8


def test_a_client_that_makes_us_answer_and_reads_nothing(house: House) -> None:
    """It may have a burst of answers wait, and no more: memory and the connection are given back."""
    alive(house)
    until(lambda: (house.paths.logs / "access.jsonl").exists(), what="the access log's own descriptor")
    process = psutil.Process(house.pid)
    memory, descriptors = process.memory_info().rss, process.num_fds()
    rude = Rude(house)
    rude.hello()
    for _ in range(200):
        rude.send(*[PingFrame(0, opaque_data=b"x" * 8) for _ in range(1000)])
    until(lambda: process.num_fds() <= descriptors + 1, what="the connection closed")
    assert process.memory_info().rss - memory < 16 * 1024 * 1024
    rude.sock.close()
