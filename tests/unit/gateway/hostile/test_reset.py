"""A TCP reset behind all that was written, with and without TLS, by the kernel's own word."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest
import uvloop

from penstock.config import Paths, Settings
from penstock.gateway.hostile.reset import Reset
from penstock.gateway.process import tls_context
from penstock.gateway.tls import ensure_certificates

BODY = b"x" * 300_000


class ResetsAfterBody(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(BODY)
        Reset(asyncio.get_running_loop(), self.transport)


def receive(port: int, context: ssl.SSLContext | None) -> bytes:
    """What arrives before the reset. Raises AssertionError where the connection ends otherwise."""
    incoming, outgoing, content, asked = ssl.MemoryBIO(), ssl.MemoryBIO(), b"", False
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        secured = context.wrap_bio(incoming, outgoing, server_hostname="localhost") if context else None
        if secured is None:
            sock.sendall(b"go")
        while True:
            try:
                if secured is not None:
                    secured.do_handshake()
                    if not asked:
                        asked = secured.write(b"go") > 0
                    while piece := secured.read(65536):
                        content += piece
            except ssl.SSLWantReadError:
                pass
            if outgoing.pending:
                sock.sendall(outgoing.read())
            try:
                data = sock.recv(65536)
            except ConnectionResetError:
                return content
            assert data, "the connection was closed, not reset"
            if secured is None:
                content += data
            else:
                incoming.write(data)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_reset_comes_after_what_was_written(tmp_path: Path, scheme: str) -> None:
    paths = Paths(tmp_path)
    paths.tls.mkdir()
    ensure_certificates(paths)
    tls = scheme == "tls"

    async def serve() -> bytes:
        server_side = tls_context(Settings(home=tmp_path)) if tls else None
        server = await asyncio.get_running_loop().create_server(ResetsAfterBody, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        client_side = ssl.create_default_context(cafile=str(paths.ca_certificate)) if tls else None
        try:
            return await asyncio.to_thread(receive, port, client_side)
        finally:
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(serve()) == BODY
