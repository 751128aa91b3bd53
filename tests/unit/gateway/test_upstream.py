"""An answer's chunks, read in any slices: the short cut past the parser changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.tokens import chunk_of
from penstock.gateway.upstream import Failure, Target, Upstream

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport:
    """What an `Upstream` asks of its transport in these tests."""

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _: str) -> None:
        return None


class Recorder:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.heads: list[tuple[int, dict[str, str]]] = []
        self.ended = False
        self.failure: Failure | None = None

    def upstream_ready(self, upstream: Upstream) -> None: ...

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        self.heads.append((status, headers))

    def upstream_parts(self, parts: list[bytes]) -> None:
        self.parts += parts

    def upstream_read(self, data: bytes) -> bool:
        heads, begin = chunk_of(len(data))
        if not (data.startswith(heads) and data.endswith(b"\r\n")):
            return False
        self.parts.append(data[begin:-2])
        return True

    def upstream_end(self) -> None:
        self.ended = True

    def upstream_failed(self, failure: Failure) -> None:
        self.failure = failure

    def upstream_continue(self) -> None: ...
    def upstream_paused(self) -> None: ...
    def upstream_resumed(self) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def read(loop: asyncio.AbstractEventLoop, slices: list[bytes]) -> Recorder:
    recorder = Recorder()
    upstream = Upstream(loop, Target(("127.0.0.1", 1)))
    upstream.connection_made(cast(Any, Transport()))
    upstream.begin(recorder, whole_chunks=True)
    for piece in slices:
        if upstream.sink is not None:
            upstream.data_received(piece)
    return recorder


def chunk(data: bytes, upper: bool = False) -> bytes:
    return (b"%X\r\n%s\r\n" if upper else b"%x\r\n%s\r\n") % (len(data), data)


# Data full of what a careless reader takes for framing.
tricky = st.lists(st.sampled_from([b"\r\n", b"0\r\n\r\n", b"3\r\n", b"1\r\na\r\n", b"x", b"F\r\n"]), min_size=1).map(
    b"".join
)
chunks = st.lists(st.tuples(tricky | st.binary(min_size=1, max_size=300), st.booleans()), max_size=12)


@given(chunks, st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_any_slicing_gives_the_same_chunks(
    loop: asyncio.AbstractEventLoop, sent: list[tuple[bytes, bool]], cuts: list[int]
) -> None:
    whole = HEAD + b"".join(chunk(data, upper) for data, upper in sent) + b"0\r\n\r\n"
    slices: list[bytes] = []
    at = 0
    while at < len(whole):
        length = cuts[len(slices) % len(cuts)]
        slices.append(whole[at : at + length])
        at += length
    recorder = read(loop, slices)
    assert recorder.parts == [data for data, _ in sent]
    assert recorder.ended


@given(chunks)
def test_a_chunk_a_read_gives_the_same_chunks(loop: asyncio.AbstractEventLoop, sent: list[tuple[bytes, bool]]) -> None:
    recorder = read(loop, [HEAD, *(chunk(data, upper) for data, upper in sent), b"0\r\n\r\n"])
    assert recorder.parts == [data for data, _ in sent]
    assert recorder.ended


@pytest.mark.parametrize(
    "bad",
    [
        b"4\r\nabc\r\n",
        b"2\r\nabc\r\n",
        b"g\r\nabc\r\n",
        b"-1\r\nabc\r\n",
        b"3\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3\r\nabc\n\n",
    ],
)
def test_a_damaged_chunk_after_whole_ones_is_a_broken_answer(loop: asyncio.AbstractEventLoop, bad: bytes) -> None:
    recorder = read(loop, [HEAD, chunk(b"one"), chunk(b"two"), bad, b"0\r\n\r\n"])
    assert recorder.parts[:2] == [b"one", b"two"]
    assert recorder.failure is Failure.BROKEN
    assert not recorder.ended


def test_the_end_is_never_taken_for_a_chunk(loop: asyncio.AbstractEventLoop) -> None:
    recorder = read(loop, [HEAD, chunk(b"one"), b"0\r\n", b"X: y\r\n", b"\r\n"])
    assert recorder.parts == [b"one"]
    assert recorder.ended


def test_data_that_looks_like_a_chunk_is_data(loop: asyncio.AbstractEventLoop) -> None:
    recorder = read(loop, [HEAD, chunk(b"one") + b"6\r\n", b"1\r\na\r\n", b"\r\n0\r\n\r\n"])
    assert recorder.parts == [b"one", b"1\r\na\r\n"]
    assert recorder.ended


names = st.sampled_from(
    ["Content-Type", "X-Amzn-SageMaker-Custom-Attributes", "Server", "x", "Keep-Alive", "Connection"]
)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30) | st.sampled_from(
    ["close", "timeout=5", " padded "]
)


@given(
    st.sampled_from([200, 201, 204, 304, 400, 503]),
    st.lists(st.tuples(names, values), max_size=5),
    st.binary(max_size=50),
    st.integers(1, 300),
)
def test_an_answer_read_at_once_is_read_as_in_pieces(
    loop: asyncio.AbstractEventLoop, status: int, headers: list[tuple[str, str]], body: bytes, cut: int
) -> None:
    """The reader of usual heads against the parser, which reads whatever comes in pieces."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    whole = f"HTTP/1.1 {status} Whatever\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
    cut = min(cut, whole.index(b"\r\n\r\n"))
    once, pieces = read(loop, [whole]), read(loop, [whole[:cut], whole[cut:]])
    assert once.heads == pieces.heads
    assert b"".join(once.parts) == b"".join(pieces.parts)
    assert (once.ended, once.failure) == (pieces.ended, pieces.failure)
