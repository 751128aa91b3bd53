"""The client stops reading: the container is paused, the gateway holds little, and everything arrives once the client goes on."""

from __future__ import annotations

import asyncio
import hashlib
import socket

import psutil

from penstock.wire.eventstream import Decoder
from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire
from tests.wire.raw import connect, signed


def test_a_stalled_client_pauses_its_container(house: House) -> None:
    total, piece = 64, b"z" * (1 << 20)
    sent = 0

    async def pour(request: Seen, wire: Wire) -> None:
        nonlocal sent
        await wire.begin_chunks()
        for _ in range(total):
            await wire.chunk(piece)
            sent += 1
        await wire.end_chunks()

    house.serve(pour)
    process = psutil.Process(house.pid)
    before = process.memory_info().rss
    sock = connect(house, 30)
    sock.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"{}"))

    async def settled() -> int:
        last = -1
        while last != sent or not sent:
            last = sent
            await asyncio.sleep(0.3)
        return last

    stopped_at = house.run(settled())
    assert stopped_at < total, "the kernel's buffers are smaller than the stream"
    assert process.memory_info().rss - before < 8 * 1024 * 1024

    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += sock.recv(65536)
    rest = raw.partition(b"\r\n\r\n")[2]
    decoder, digest, parts = Decoder(), hashlib.sha256(), 0
    for data in unchunk(rest, sock):
        for message in decoder.feed(data):
            digest.update(message.payload)
            parts += 1
    decoder.finish()
    assert parts == total
    assert digest.hexdigest() == hashlib.sha256(piece * total).hexdigest()
    sock.close()
    until(lambda: sent == total)


def unchunk(data: bytes, sock: socket.socket) -> list[bytes]:
    """The chunks of an HTTP body that has begun with `data`."""
    pieces: list[bytes] = []
    while True:
        while b"\r\n" not in data:
            data += sock.recv(1 << 20)
        size_text, _, data = data.partition(b"\r\n")
        size = int(size_text, 16)
        buffer = bytearray(data)
        while len(buffer) < size + 2:
            buffer += sock.recv(1 << 20)
        if not size:
            return pieces
        pieces.append(bytes(buffer[:size]))
        data = bytes(buffer[size + 2 :])
