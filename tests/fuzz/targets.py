"""The parsers that read what strangers send, each as a function of bytes that returns when all is well.

Owns what must hold for any input: only the errors that are meant, and the same result however the bytes are sliced. It must never generate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

from penstock._speed import COMPILED
from penstock.config import Settings
from penstock.errors import AwsError
from penstock.gateway import quick
from penstock.gateway.bidi.alpn import PREFACE
from penstock.gateway.bidi.http2 import Http2Connection
from penstock.gateway.bidi.request import Field, read_request
from penstock.gateway.bidi.stream import Http2Stream
from penstock.gateway.connection import ClientConnection
from penstock.gateway.door import Door
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import BadRequest, Head
from penstock.gateway.upstream import Target
from penstock.wire import sigv4
from penstock.wire.awschunked import ChunkedDecoder, ChunkSigner
from penstock.wire.eventstream import Decoder, FrameError

NOW = 1440938160.0
KEYS = {"AKIDEXAMPLE": sigv4.Key("secret"), "ASIAEXAMPLE": sigv4.Key("secret", "token")}


def slices(data: bytes) -> list[bytes]:
    """The same bytes in pieces whose lengths the bytes decide."""
    rng, pieces, at = Random(len(data) * 31 + sum(data[:64])), [], 0
    while at < len(data):
        length = rng.choice((1, 2, 3, 7, 40, 4096))
        pieces.append(data[at : at + length])
        at += length
    return pieces


# --- HTTP requests


class _Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class _Answer(Exchange):
    """Keeps the request and answers it with nothing."""

    def __init__(self, client: Client, head: Head, request_id: str, seen: list[list[object]]) -> None:
        super().__init__(client, head, request_id)
        self._seen: list[object] = [head.method, head.path, head.query, dict(head.headers), b""]
        seen.append(self._seen)

    def start(self) -> None:
        self.client.proceed()

    def body(self, data: bytes) -> None:
        self._seen[4] = cast(bytes, self._seen[4]) + data

    def body_end(self) -> None:
        self._seen.append("whole")
        self.client.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.client.done()

    def gone(self) -> None: ...
    def expired(self) -> None: ...


class _Loop:
    """Time stands still; what is to be done soon is done when asked for."""

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def time(self) -> float:
        return NOW

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.soon.append((callback, arguments))

    def run(self) -> None:
        while self.soon:
            callback, arguments = self.soon.pop(0)
            callback(*arguments)


def _door(loop: _Loop) -> Door:
    return Door(
        cast(asyncio.AbstractEventLoop, loop),
        Settings(home=Path("/nonexistent")),
        control=Target("/nonexistent"),
        notify=lambda _: None,
        clock=lambda: NOW,
        rng=Random(1),
    )


def _twins() -> Iterator[None]:
    """Once with the compiled twin, where there is one, and once without."""
    try:
        for compiled in {COMPILED, False}:
            vars(quick)["COMPILED"] = vars(sigv4)["COMPILED"] = compiled
            yield
    finally:
        vars(quick)["COMPILED"] = vars(sigv4)["COMPILED"] = COMPILED


def _requests(pieces: list[bytes]) -> list[list[object]]:
    loop = _Loop()
    door = _door(loop)
    seen: list[list[object]] = []
    connection = ClientConnection(door, lambda client, head, number: _Answer(client, head, number, seen))
    transport = _Transport()
    connection.connection_made(cast(Any, transport))
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
            loop.run()
    connection.connection_lost(None)
    assert not any(written.startswith(b"HTTP/1.1 500") for written in transport.written), "an error of ours"
    assert not door.connections, "the connection is still counted"
    return [request for request in seen if request[-1] == "whole"]


class _Faults(logging.Handler):
    """What the gateway says of itself, which an input must never bring it to."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        raise AssertionError(record.getMessage()) from error


_log, _faults = logging.getLogger("penstock.gateway"), _Faults(logging.ERROR)


def http(data: bytes) -> None:
    """A connection reads requests or refuses them; a server that reads otherwise by slices could be smuggled past."""
    _log.addHandler(_faults)
    try:
        sliced = _requests(slices(data))
        for _ in _twins():
            assert _requests([data]) == sliced
    finally:
        _log.removeHandler(_faults)


# --- HTTP/2


class _Listener:
    """Takes a request's body and answers its end with nothing."""

    def __init__(self, stream: Http2Stream, seen: list[object]) -> None:
        self._stream, self._seen = stream, seen

    def data(self, data: bytes) -> None:
        self._seen[-1] = cast(bytes, self._seen[-1]) + data

    def ended(self) -> None:
        self._stream.headers([(":status", "200")])
        self._stream.write(b"x" * 100)
        self._stream.finish()

    def gone(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def shut(self) -> None: ...


def _streams(pieces: list[bytes]) -> list[list[object]]:
    door = _door(_Loop())
    seen: list[list[object]] = []

    def serve(transport: asyncio.Transport, stream: Http2Stream, fields: list[Field], ended: bool) -> None:
        stream.remote_ended = ended
        try:
            head = read_request(fields)
        except BadRequest:
            stream.reset()
            return
        seen.append([head.method, head.path, head.query, dict(head.headers), b""])
        stream.receiver = _Listener(stream, seen[-1])

    connection, transport = Http2Connection(door, serve), _Transport()
    connection.connection_made(cast(Any, transport))
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
    connection.connection_lost(None)
    assert not door.connections, "the connection is still counted"
    return [request[:-1] for request in seen]


def http2(data: bytes) -> None:
    """A connection serves requests or ends, and reads the same requests however they come.

    Where it ends may differ: what came in the same read as what broke it may go unserved, and a frame for a stream that our
    answer has closed meanwhile breaks what it would not have broken a moment before.
    """
    data = PREFACE + data
    whole, sliced = _streams([data]), _streams(slices(data))
    both = min(len(whole), len(sliced))
    assert whole[:both] == sliced[:both]


# --- the event stream


@dataclass
class _Read:
    found: list[object] = field(default_factory=list)
    error: str = ""


def _messages(pieces: list[bytes]) -> _Read:
    read, decoder = _Read(), Decoder()
    try:
        for piece in pieces:
            read.found += [(dict(message.headers), message.payload) for message in decoder.feed(piece)]
        decoder.finish()
    except FrameError as error:
        read.error = str(error)
    return read


def eventstream(data: bytes) -> None:
    """Messages or a FrameError."""
    whole, sliced = _messages([data]), _messages(slices(data))
    assert repr(whole.found) == repr(sliced.found)  # by repr: a header may hold a time whose equality is not reflexive
    assert bool(whole.error) == bool(sliced.error)


# --- Signature Version 4


def signature(data: bytes) -> None:
    """No bytes make an identity without the secret, and none a crash: method, target, then headers, a line each."""
    first, *lines = data.decode("latin-1").split("\n")
    method, _, target = first.partition(" ")
    path, _, query = target.partition("?")
    headers = {name.strip().lower(): value for name, _, value in (line.partition(":") for line in lines)}
    request = sigv4.Request(method, path, query, headers)
    for dialect in ("rest-json", "json", "query", "s3"):
        told = set()
        for _ in _twins():
            refusal: AwsError | None = None
            try:
                sigv4.verify(
                    request, keys=KEYS.get, now=NOW, skew=900, body_sha256="0" * 64, dialect=cast(Any, dialect)
                )
            except AwsError as error:
                refusal = error
            assert refusal is not None, "believed without the secret"
            assert 400 <= refusal.status < 500, refusal
            told.add((refusal.code, refusal.message))
        assert len(told) == 1, told


# --- aws-chunked


def _decoded(pieces: list[bytes], signed: bool) -> tuple[bytes, object]:
    signer = ChunkSigner(b"key", time="20150830T123600Z", scope="scope", seed="0" * 64) if signed else None
    decoder, out = ChunkedDecoder(length=None, signer=signer), []
    try:
        for piece in pieces:
            out += list(decoder.feed(piece))
        return b"".join(out), decoder.finish()
    except AwsError as error:
        return b"", (error.code, error.status)


def awschunked(data: bytes) -> None:
    """An object's bytes and trailers, or one of S3's errors; with signatures nothing gets through without the key."""
    assert _decoded([data], signed=False) == _decoded(slices(data), signed=False)
    refusal = _decoded([data], signed=True)[1]
    assert isinstance(refusal, tuple), "believed without the key"
    assert refusal[1] in (400, 403), refusal


_BLOCK = b"\x83\x84\x87\x41\x01a\x40\x01b\x01c"
"""POST / of https://a with a header, in HPACK."""
_REQUEST_FRAME = b"\0\0" + bytes([len(_BLOCK)]) + b"\1\4\0\0\0\1" + _BLOCK

TARGETS: dict[str, Callable[[bytes], None]] = {
    "http": http,
    "http2": http2,
    "eventstream": eventstream,
    "signature": signature,
    "awschunked": awschunked,
}
SEEDS: dict[str, tuple[bytes, ...]] = {
    "http": (
        b"POST /endpoints/e/invocations HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /?a=b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        b"PUT /b/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        b"GET http://h/ HTTP/1.0\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ),
    "http2": (
        b"\0\0\0\4\0\0\0\0\0" + _REQUEST_FRAME + b"\0\0\3\0\1\0\0\0\1abc",
        b"\0\0\0\4\0\0\0\0\0" + _REQUEST_FRAME + b"\0\0\4\3\0\0\0\0\1\0\0\0\x08",
        b"\0\0\6\4\0\0\0\0\0\0\4\0\0\0\1" + _REQUEST_FRAME + b"\0\0\4\x08\0\0\0\0\1\0\0\0\1",
        b"\0\0\0\4\0\0\0\0\0\0\0\x08\6\0\0\0\0\0pingpong\0\0\x08\7\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ),
    "eventstream": (
        bytes.fromhex("000000100000000005c248eb7d98c8ff"),
        bytes.fromhex("0000001d0000000dfd528c5a") + b"\x01a\x07\x00\x01b" + b"\x01c\x00\x01d\x01" + bytes(4),
    ),
    "signature": (
        b"POST /endpoints/e/invocations\nhost:a\nx-amz-date:20150830T123600Z\n"
        b"authorization:AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sagemaker/aws4_request, "
        b"SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64,
        b"GET /b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fs3%2Faws4_request"
        b"&X-Amz-Date=20150830T123600Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=00\nhost:a",
    ),
    "awschunked": (
        b"3\r\nabc\r\n0\r\n\r\n",
        b"3;chunk-signature=" + b"0" * 64 + b"\r\nabc\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n",
        b"a\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    ),
}
"""Inputs that get far, for fuzzers to start from."""
