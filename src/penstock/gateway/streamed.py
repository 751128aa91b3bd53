"""InvokeEndpointWithResponseStream: one PayloadPart for each chunk that the container sends.

Owns the token path: container chunk to event-stream frame to client, nothing joined and nothing split. Every stream ends in exactly one
way: cleanly, with one exception frame, or with a broken connection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from zlib import crc32

from penstock.errors import AwsError
from penstock.gateway import answers, failures
from penstock.gateway.headers import CLOSED_SESSION, SESSION, STREAMED
from penstock.gateway.invocation import Invocation
from penstock.gateway.sessions import NEW
from penstock.gateway.tokens import chunk_of, socket_of
from penstock.gateway.trace import instant
from penstock.wire.eventstream import exception_frame, part_frame, part_head

_TAIL = Struct("!I2s").pack
_END = b"0\r\n\r\n"


@lru_cache(maxsize=8192)
def _chunk_head(length: int) -> tuple[bytes, int]:
    """An HTTP chunk's head and the frame's bytes before a payload of that length, with the CRC to go on from."""
    head, crc = part_head(length)
    return b"%x\r\n%s" % (len(head) + length + 4, head), crc


def _chunk(part: bytes) -> tuple[bytes, bytes, bytes]:
    """An HTTP chunk that holds one frame, in pieces."""
    head, crc = _chunk_head(len(part))
    return head, part, _TAIL(crc32(part, crc), b"\r\n")


@lru_cache(maxsize=8192)
def _frame_of(length: int) -> tuple[tuple[bytes, ...], int, bytes, int]:
    """How a read of that many bytes begins if it is one chunk of the container's, where its data begins, and `_chunk_head` of that data."""
    heads, begin = chunk_of(length)
    return heads, begin, *_chunk_head(max(length - begin - 2, 0))


class StreamedInvocation(Invocation):
    """`POST /endpoints/{EndpointName}/invocations-response-stream`."""

    __slots__ = ("_held", "_write")
    rules = STREAMED
    _held: bytes
    """The answer's head, where the first part comes together with it."""
    _write: Callable[[bytes], None] | None
    """The client's transport, once a chunked stream has begun."""

    def start(self) -> None:
        self._write = None
        self._held = b""
        if self.head.headers.get(SESSION) == NEW:
            raise failures.no_new_session_here()
        super().start()

    def allowance(self) -> float:
        return self.client.door.limits.stream_timeout_s

    def accepted(self, headers: dict[str, str]) -> None:
        assert self.upstream is not None
        self.open(headers, hold=self.head.http11 and self.upstream.begins_with_parts)

    def open(self, headers: dict[str, str], *, hold: bool = False) -> None:
        """Begins the answer. `hold`: its head goes out together with the first part, which is here."""
        client = self.client
        assert self.variant is not None
        fields = [
            ("x-amzn-requestid", self.request_id),
            ("x-amzn-invoked-production-variant", self.variant.variant.name),
            ("x-amzn-sagemaker-content-type", headers.get("content-type", "application/octet-stream")),
            *[one for one in self.returned if one[0] != CLOSED_SESSION],  # only InvokeEndpoint's answer has it
            ("date", answers.http_date(int(client.door.clock()))),
            ("content-type", "application/vnd.amazon.eventstream"),
        ]
        if self.head.http11:
            fields.append(("transfer-encoding", "chunked"))
        self.begun = True
        head = answers.head_bytes(200, fields, keep_alive=client.keep_alive)
        self.trace.status = 200
        if self.head.http11:
            self._write = self._write_first
        if hold:
            self._held = head
        else:
            client.write(head)
        if client.write_paused:
            self.pause()

    def upstream_parts(self, parts: list[bytes]) -> None:
        if self._write is None:
            super().upstream_parts(parts)
        else:
            self._count(parts)
            self._write(b"".join([piece for part in parts for piece in _chunk(part)]))

    def upstream_read(self, data: bytes) -> bool:
        """All that is done for a token, in one place: what `upstream_parts` does, without a call for each step."""
        heads, begin, head, crc = _frame_of(len(data))
        write = self._write
        if write is None or not (data.startswith(heads) and data.endswith(b"\r\n")):
            return False
        part = data[begin:-2]
        trace = self.trace
        trace.parts += 1
        trace.bytes_out += len(part)
        write(b"".join((head, part, _TAIL(crc32(part, crc), b"\r\n"))))
        return True

    def _write_first(self, data: bytes) -> None:
        """The first part, whose time is noted; all others go straight to the transport."""
        self.trace.first = instant()
        transport = self.client.transport
        self._write = transport.write
        if self.upstream is not None:
            self.upstream.open_tokens(transport, socket_of(transport), self.trace)
        held, self._held = self._held, b""
        self.client.write(held + data)

    def _count(self, parts: list[bytes]) -> None:
        self.trace.parts += len(parts)
        self.trace.bytes_out += sum(map(len, parts))

    def parts(self, parts: list[bytes]) -> None:
        self._count(parts)
        self.trace.first = self.trace.first or instant()
        self.client.write(b"".join(map(part_frame, parts)))  # to HTTP/1.0, whose bodies end with the connection

    def finished(self) -> None:
        self._end(b"")

    def broken(self) -> None:
        self._end_with(failures.stream_broken(self.container))

    def expired(self) -> None:
        if not self.begun:
            super().expired()
            return
        self._give_back()
        self._end_with(failures.stream_timed_out(self.container))

    def shut(self) -> None:
        if not self.begun:
            super().shut()
            return
        self._give_back()
        self._end_with(failures.stream_ended_by_shutdown())

    def _end_with(self, error: AwsError) -> None:
        self.trace.error = str(error.members.get("ErrorCode", error.code))
        self._end(exception_frame(error))

    def _end(self, frame: bytes) -> None:
        """The stream's last bytes: at most one exception frame, then the end of the HTTP body."""
        if self.head.http11:
            last = b"%x\r\n%s\r\n" % (len(frame), frame) if frame else b""
            self.client.write(last + _END)
        elif frame:
            self.client.write(frame)
        self.client.done()

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()
