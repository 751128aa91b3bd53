"""A reverse proxy that cuts a prefix off the path, as SageMaker Studio's does. One request a connection, WebSockets included."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator

_DEADLINE_S = 30.0


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


class _Proxy:
    def __init__(self, upstream_port: int, prefix: str) -> None:
        self._port = upstream_port
        self._prefix = prefix.encode()
        self._open: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _DEADLINE_S)
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    up_writer.write(self._rewritten(head))
                    await asyncio.gather(_pipe(reader, up_writer), _pipe(up_reader, writer))
                finally:
                    up_writer.transport.abort()
        finally:
            writer.transport.abort()
            self._open.discard(task)

    def _rewritten(self, head: bytes) -> bytes:
        request, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        method, path, version = request.split(b" ")
        assert path.startswith(self._prefix), path
        path = path.removeprefix(self._prefix) or b"/"
        # Studio's proxy keeps the browser's Origin and puts its own upstream into Host.
        kept = [line for line in headers if not line.lower().startswith((b"host:", b"connection: keep-alive"))]
        kept.append(b"Host: localhost:%d" % self._port)
        if not any(line.lower().startswith(b"upgrade:") for line in kept):
            kept.append(b"Connection: close")
        return b"\r\n".join([b" ".join((method, path, version)), *kept]) + b"\r\n\r\n"

    async def serve(self, started: queue.Queue[tuple[int, asyncio.Event, asyncio.AbstractEventLoop]]) -> None:
        """Runs until the event that it hands out is set."""
        stop = asyncio.Event()
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        started.put((server.sockets[0].getsockname()[1], stop, asyncio.get_running_loop()))
        await stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@contextlib.contextmanager
def stripping_proxy(upstream_port: int, prefix: str) -> Iterator[int]:
    """The port of a proxy that passes `<prefix>/x` on as `/x`. It has a thread of its own: Playwright's has a loop already."""
    started: queue.Queue[tuple[int, asyncio.Event, asyncio.AbstractEventLoop]] = queue.Queue()
    thread = threading.Thread(target=lambda: asyncio.run(_Proxy(upstream_port, prefix).serve(started)), daemon=True)
    thread.start()
    port, stop, loop = started.get(timeout=10)
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()
