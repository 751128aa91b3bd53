"""The engine benchmark's clients: many streams at once, read as cheaply as can be, because they share the processor with what they measure.

Owns requests as bytes (signed ones for an endpoint), one epoll loop, and what is counted: when the first and the last token came. A
client never decodes an answer. It knows only how a system marks a token on the wire, and checks that as many came as were asked for
where every token is marked. It must never know which system it measures.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

DEADLINE_S = 120.0
_OK = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True)
class Wire:
    """How a system answers. `mark` is in the answer once a token (`every`), or at least once with the first token."""

    mark: bytes
    every: bool
    end: bytes = b"\r\n0\r\n\r\n"
    """What a whole answer ends with: HTTP's last chunk."""


EVENT_STREAM = Wire(b"PayloadPart", True)
"""An endpoint: each token is a message of its own, which names its type."""
EVENTS = Wire(b"data: {", False)
"""Server-sent events of any make. Several tokens may share one."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst: tokens that came, seconds from the first request to the last answer's end, and each request's first token."""

    tokens: int
    seconds: float
    first: tuple[float, ...]

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Broken(Exception):
    """An answer that is none: a status, a cut connection, or another number of tokens."""


@dataclass(slots=True)
class _Stream:
    sock: socket.socket
    tail: bytes = b""
    marks: int = 0
    begun: float = 0.0
    first: float = 0.0
    head: bytes = field(default=b"")


def burst(
    port: int, requests: Sequence[bytes], tokens: int, wire: Wire, *, tls: ssl.SSLContext | None = None
) -> Sample:
    """Send all requests at once, each on a connection of its own that is already open, and read until all have ended. Raises Broken."""
    streams = [_Stream(_connected(port, tls)) for _ in requests]
    try:
        with select.epoll() as epoll:
            by_fd = {stream.sock.fileno(): stream for stream in streams}
            for fd in by_fd:
                epoll.register(fd, select.EPOLLIN)
            begin = time.perf_counter()
            for stream, request in zip(streams, requests, strict=True):
                stream.begun = time.perf_counter()
                _send(stream.sock, request)
            seconds = _read_all(epoll, by_fd, wire, begin)
    finally:
        for stream in streams:
            stream.sock.close()
    if wire.every and (wrong := [stream.marks for stream in streams if stream.marks != tokens]):
        raise Broken(f"{wrong[0]} tokens came, not {tokens}")
    return Sample(tokens * len(streams), seconds, tuple(stream.first for stream in streams))


def _read_all(epoll: select.epoll, open_streams: dict[int, _Stream], wire: Wire, begin: float) -> float:
    while open_streams:
        left = begin + DEADLINE_S - time.perf_counter()
        ready = epoll.poll(max(0.0, left))
        if not ready:
            raise Broken(f"{len(open_streams)} answers had not ended after {DEADLINE_S:g} s")
        for fd, _ in ready:
            if _ended(open_streams[fd], wire):
                epoll.unregister(fd)
                del open_streams[fd]
    return time.perf_counter() - begin


def _ended(stream: _Stream, wire: Wire) -> bool:
    """Read what there is."""
    sock = stream.sock
    try:
        data = sock.recv(65536)
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            data += sock.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    if not data:
        raise Broken(f"the connection ended after {stream.tail!r}")
    if len(stream.head) < len(_OK):
        stream.head += data[:600]
        if not stream.head.startswith(_OK[: len(stream.head)]):
            raise Broken(f"the answer is {stream.head!r}")
    text = stream.tail + data
    if count := text.count(wire.mark):
        stream.marks += count
        stream.first = stream.first or time.perf_counter() - stream.begun
    if text.endswith(wire.end):
        return True
    # As long as a mark can be unfinished in, and not as long as to hold a counted one.
    at = text.rfind(wire.mark)
    after = text[at + len(wire.mark) :] if at >= 0 else text
    stream.tail = after[-max(len(wire.mark), len(wire.end)) + 1 :]
    return False


def _connected(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="localhost")
    sock.setblocking(False)
    return sock


def _send(sock: socket.socket, request: bytes) -> None:
    sent = 0
    while sent < len(request):
        try:
            sent += sock.send(request[sent:])
        except (BlockingIOError, ssl.SSLWantWriteError):
            select.select([], [sock], [], 1.0)


def signed(path: str, body: bytes, key: str, secret: str, region: str) -> bytes:
    """A request to an endpoint, with a signature as boto3 makes it."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("POST", f"http://localhost{path}", {"Content-Type": "application/json"}, body)
    SigV4Auth(Credentials(key, secret), "sagemaker", region).add_auth(request)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def plain(path: str, body: object) -> bytes:
    """A request with a JSON body, as every other server takes it."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data
