"""The token path in C: what it takes for a chunk, how it frames it, and that it never overtakes, loses or misdirects a byte."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref
from collections.abc import Callable
from random import Random

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from penstock._speed import COMPILED, WHY_NOT
from penstock.gateway.streamed import _chunk
from penstock.gateway.tokens import Tokens, chunk_of, socket_of
from penstock.gateway.trace import Trace

pytestmark = pytest.mark.skipif(not COMPILED, reason=f"no compiled twin: {WHY_NOT}")
LONGEST = 8192


class Client:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


class Path(Tokens):
    """An upstream that keeps what the short cut leaves to it."""

    def __init__(self) -> None:
        self.left: list[bytes] = []

    def received(self, data: bytes) -> None:
        self.left.append(data)


def chunk(data: bytes, form: str = "x") -> bytes:
    return f"{len(data):{form}}\r\n".encode() + data + b"\r\n"


def opened() -> tuple[Path, Client, Trace]:
    path, client, note = Path(), Client(), Trace("id", "operation", 0.0)
    path.open_tokens(client, -1, note)  # type: ignore[arg-type]
    path.at_chunk = True
    return path, client, note


reads = st.one_of(
    st.builds(chunk, st.binary(max_size=40), st.sampled_from(["x", "X", "02x"])),
    st.builds(
        lambda data, at, byte: data[:at] + byte + data[at + 1 :],
        st.builds(chunk, st.binary(max_size=300)),
        st.integers(0, 20),
        st.binary(max_size=2),
    ),
    st.builds(
        lambda size: chunk(b"x" * size), st.sampled_from([15, 16, 255, 256, 4095, 4096, LONGEST, LONGEST + 1, 70_000])
    ),
    st.builds(lambda size: chunk(b"x" * size, "X"), st.sampled_from([10, 171, 2748])),
    st.just(b"0\r\n\r\n"),
    st.binary(max_size=12),
)


@given(st.lists(reads, max_size=12))
def test_it_takes_what_python_takes_and_frames_it_the_same(reads: list[bytes]) -> None:
    path, client, note = opened()
    parts, left = [], []
    for data in reads:
        path.data_received(data)
        heads, begin = chunk_of(len(data))
        if data.startswith(heads) and data.endswith(b"\r\n") and len(data) - begin - 2 <= LONGEST:
            parts.append(data[begin:-2])
        else:
            left.append(data)
    assert path.left == left
    assert client.written == [b"".join(_chunk(part)) for part in parts]
    assert (note.parts, note.bytes_out) == (0, 0), "told at the end"
    path.close_tokens()
    path.close_tokens()
    assert (note.parts, note.bytes_out) == (len(parts), sum(map(len, parts)))


def test_it_takes_nothing_before_a_stream_is_open_or_inside_a_chunk_or_after_its_end() -> None:
    path = Path()
    path.data_received(chunk(b"a"))
    path, client, _ = opened()
    path.at_chunk = False
    path.data_received(chunk(b"b"))
    path.at_chunk = True
    path.close_tokens()
    path.data_received(chunk(b"c"))
    assert path.left == [chunk(b"b"), chunk(b"c")]
    assert client.written == []


def test_an_error_of_the_clients_transport_is_raised() -> None:
    path, client, _ = opened()

    def broken(_: bytes) -> None:
        raise ZeroDivisionError

    client.write = broken  # type: ignore[assignment,method-assign]
    with pytest.raises(ZeroDivisionError):
        path.data_received(chunk(b"a"))


def test_a_stream_and_its_client_can_be_collected() -> None:
    path, client, _ = opened()
    client.path = path  # type: ignore[attr-defined]
    gone = weakref.ref(client)
    del path, client
    gc.collect()
    assert gone() is None


def on_uvloop(served: Callable[[asyncio.Transport, socket.socket], object]) -> None:
    """Calls `served` with a transport of a real connection and the socket at its other end."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far.close()
            far = socket.create_connection(listener.getsockname())
            near.close()
            near, _ = listener.accept()
        with far:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            done = served(transport, far)
            if asyncio.iscoroutine(done):
                await done
            transport.abort()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def read_so_far(far: socket.socket) -> bytes:
    far.settimeout(5)
    return far.recv(1 << 20)


def test_a_part_is_at_the_client_before_the_loop_goes_on() -> None:
    def served(transport: asyncio.Transport, far: socket.socket) -> None:
        path, note = Path(), Trace("id", "operation", 0.0)
        path.open_tokens(transport, socket_of(transport), note)
        path.at_chunk = True
        path.data_received(chunk(b"token"))
        assert read_so_far(far) == b"".join(_chunk(b"token"))

    on_uvloop(served)


def test_a_slow_client_gets_every_byte_in_order(rng: Random) -> None:
    """Some go past the transport, some are cut by a full socket, the rest wait in the transport's buffer."""

    async def served(transport: asyncio.Transport, far: socket.socket) -> None:
        far.settimeout(5)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        path, note = Path(), Trace("id", "operation", 0.0)
        path.open_tokens(transport, socket_of(transport), note)
        path.at_chunk = True
        sent, got, waited = b"", b"", 0
        for _ in range(400):
            part = rng.randbytes(rng.randint(1, 6000))
            path.data_received(chunk(part))
            sent += b"".join(_chunk(part))
            waited += transport.get_write_buffer_size() > 0
            if rng.random() < 0.1:
                got += await asyncio.to_thread(far.recv, rng.randint(1, 40_000))
        while len(got) < len(sent):
            got += await asyncio.to_thread(far.recv, 1 << 16)
        assert got == sent
        assert 0 < waited < 400, "neither way was gone"
        path.close_tokens()
        assert note.parts == 400

    on_uvloop(served)


def test_nothing_is_written_to_a_socket_that_its_transport_has_given_up() -> None:
    """Its number may be another connection's by then."""

    async def served(transport: asyncio.Transport, far: socket.socket) -> None:
        fd = socket_of(transport)
        path, note = Path(), Trace("id", "operation", 0.0)
        path.open_tokens(transport, fd, note)
        path.at_chunk = True
        transport.abort()
        await asyncio.sleep(0.01)
        near, other = socket.socketpair()
        with near, other:
            taken = [one for one in (near, other) if one.fileno() == fd]
            assert taken, "the number is not used again"
            with pytest.raises(RuntimeError, match="closed"):  # as writing to the transport itself
                path.data_received(chunk(b"token"))
            other.setblocking(False)
            near.setblocking(False)
            for one in (near, other):
                with pytest.raises(BlockingIOError):
                    one.recv(1)

    on_uvloop(served)


def test_only_plain_sockets_are_written_past_their_transport() -> None:
    assert socket_of(Client()) == -1  # type: ignore[arg-type]
