"""Load for the relay's benchmark: many clients, and the fast scripted server that they reach through the system under test.

Owns both ends in one epoll loop on one core, so that the server sends part k+1 only when the client has part k: nothing is ever
joined on the way, and what is measured is the cost of a part. It must never know which system it measures.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

MARK = b"@@MARK@@"
"""Counted at the client: one in each part."""
_ID = b"ID"
"""What a request's body names its stream by: `ID` and six digits."""
_END = b"0\r\n\r\n"
ENDLESS = 1 << 60
_SCHEDULED = 2
"""The kind of a process's CPU clock that counts nanoseconds (the kernel's CPUCLOCK_SCHED)."""


@dataclass(frozen=True, slots=True)
class Script:
    """What the server answers: `head` and a first part at once, `parts` in all, then `end`. With no `parts` it stops after the first one
    and never ends; without an `end` the first part is all."""

    head: bytes
    part: bytes
    end: bytes = b""
    parts: int = 1

    def of(self, parts: int) -> Script:
        return replace(self, parts=parts)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = Script(_CHUNKED, _chunk(MARK + b"x" * 54 + b"\n"), _END, 64)
"""64 parts of 63 bytes."""
_DELTA = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
OPENAI = Script(_CHUNKED, _chunk(_DELTA % MARK), _chunk(b"data: [DONE]\n\n") + _END, 64)
"""The same as server-sent events of the OpenAI API, for a proxy that reads them."""
_JSON = b'{"generated_text": "' + MARK + b"x" * 169 + b'"}'
SHORT = Script(
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_JSON),
    _JSON,
)
"""One plain answer of 200 bytes."""


class _Stream:
    __slots__ = ("begun", "request", "sent", "server", "sock", "tail")

    def __init__(self, sock: socket.socket, request: bytes) -> None:
        self.sock = sock
        self.request = request
        self.server: socket.socket | None = None
        self.sent = 0
        self.tail = b""
        self.begun = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One window: parts that arrived, requests that ended, the CPU time of each process under test (µs), seconds of wall time."""

    parts: int
    requests: int
    cpu: tuple[float, ...]
    seconds: float

    @property
    def us_a_part(self) -> float:
        return sum(self.cpu) / max(self.parts, 1)

    @property
    def us_a_request(self) -> float:
        return sum(self.cpu) / max(self.requests, 1)

    @property
    def parts_a_busy_second(self) -> float:
        """Parts a second if each process had a core of its own and the busiest one set the pace."""
        return self.parts * 1e6 / max((*self.cpu, 1.0))


class Server:
    """The container behind all systems: its connections outlive one load, as a container's do."""

    def __init__(self, listener: socket.socket) -> None:
        self.epoll = select.epoll()
        self.script = STREAM
        self.streams: dict[bytes, _Stream] = {}
        """The clients of now, by what their requests say."""
        self._listener = listener
        self._open: dict[int, tuple[socket.socket, list[bytes]]] = {}
        self.epoll.register(listener.fileno(), select.EPOLLIN)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def turn(self, fd: int) -> None:
        """Something has happened at `fd`."""
        if fd in self._open:
            self._read(fd)
        elif fd == self._listener.fileno():
            self._accept()

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setblocking(False)
                self._open[sock.fileno()] = (sock, [])
                self.epoll.register(sock.fileno(), select.EPOLLIN)
        except BlockingIOError:
            pass

    def _read(self, fd: int) -> None:
        sock, pieces = self._open[fd]
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            del self._open[fd]
            sock.close()
            return
        pieces.append(data)
        whole = b"".join(pieces)
        at = whole.rfind(_ID)
        stream = self.streams.get(whole[at + len(_ID) : at + len(_ID) + 6]) if at >= 0 else None
        if stream is None:
            return  # the body is not here yet
        pieces.clear()
        stream.server = sock
        stream.sent = 1
        sock.send(self.script.head + self.script.part)


class Load:
    """Clients of one port. `requests` holds one whole request a client, each naming its stream; use as a context."""

    def __init__(
        self, server: Server, port: int, requests: Sequence[bytes], script: Script, tls: ssl.SSLContext | None
    ) -> None:
        self.script = server.script = script
        self.parts = self.requests = 0
        self.first_parts: list[float] = []
        """Seconds from each request to its first part."""
        self._server = server
        self._epoll = server.epoll
        self._streams: dict[int, _Stream] = {}
        server.streams.clear()
        for number, request in enumerate(requests):
            self._connect(port, request, tls)
            if number % 50 == 49:
                self._turn(0)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        streams, self._streams = self._streams, {}
        self._server.streams.clear()
        for stream in streams.values():
            stream.sock.close()
        self._settle()

    def _settle(self, quiet_s: float = 0.3, deadline_s: float = 10.0) -> None:
        """The system under test leaves the server in the streams that did not end.

        A request that it passes on only now would be taken for one of the next system's, which asks for the same streams.
        """
        end = time.monotonic() + deadline_s
        since = time.monotonic()
        while since + quiet_s > (now := time.monotonic()) < end:
            if self._turn(0.05):
                since = now

    def _connect(self, port: int, request: bytes, tls: ssl.SSLContext | None) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname="localhost")
        sock.setblocking(False)
        at = request.rindex(_ID) + len(_ID)
        stream = self._server.streams[request[at : at + 6]] = self._streams[sock.fileno()] = _Stream(sock, request)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._ask(stream)

    def _ask(self, stream: _Stream) -> None:
        stream.sent, stream.tail = 0, b""
        stream.begun = time.perf_counter()
        stream.sock.send(stream.request)

    def run(self, seconds: float) -> None:
        """Never sleeps: the system under test is not charged for waking its clients, who would be on other machines."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._turn(0)

    def until_all_answered(self, deadline_s: float = 60.0) -> None:
        """Every stream has had its first part. Raises TimeoutError."""
        end = time.monotonic() + deadline_s
        while len(self.first_parts) < len(self._streams):
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self.first_parts)} of {len(self._streams)} streams have begun")
            self._turn(0.1)

    def measure(self, pids: Sequence[int], seconds: float, warm_s: float) -> Sample:
        """What happens in `seconds`, after all have begun and `warm_s` more."""
        self.until_all_answered()
        self.run(warm_s)
        parts, requests, cpu, begin = self.parts, self.requests, cpu_us(pids), time.monotonic()
        self.run(seconds)
        spent = tuple(after - before for after, before in zip(cpu_us(pids), cpu, strict=True))
        return Sample(self.parts - parts, self.requests - requests, spent, time.monotonic() - begin)

    def _turn(self, timeout: float) -> bool:
        """What is ready. Returns whether anything was."""
        streams = self._streams
        ready = self._epoll.poll(timeout)
        for fd, _ in ready:
            stream = streams.get(fd)
            if stream is not None:
                self._at_client(stream)
            else:
                self._server.turn(fd)
        return bool(ready)

    def _at_client(self, stream: _Stream) -> None:
        sock = stream.sock
        try:
            data = sock.recv(65536)
            while isinstance(sock, ssl.SSLSocket) and sock.pending():
                data += sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        if not data or (data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"a client got {data[:600] or 'the end of its connection'!r} after {stream.tail!r}")
        if count := (stream.tail + data).count(MARK):
            self._arrived(stream, count)
        if self.script.end:
            if data.endswith(_END) or (len(data) < 5 and (stream.tail + data).endswith(_END)):
                self.requests += 1
                self._ask(stream)
            else:
                stream.tail = data[-7:]
        elif count:
            self.requests += 1
            self._ask(stream)

    def _arrived(self, stream: _Stream, count: int) -> None:
        self.parts += count
        server, script = stream.server, self.script
        if stream.begun:
            self.first_parts.append(time.perf_counter() - stream.begun)
            stream.begun = 0.0
        if not script.end or server is None:
            return
        if stream.sent < script.parts:
            stream.sent += 1
            server.send(script.part)
        elif stream.sent == script.parts:
            stream.sent += 1
            server.send(script.end)


def cpu_us(pids: Sequence[int]) -> list[float]:
    """CPU time that each process has used so far, in microseconds, all its threads: the clock of `clock_getcpuclockid(3)`."""
    return [time.clock_gettime((~pid << 3) | _SCHEDULED) * 1e6 for pid in pids]
