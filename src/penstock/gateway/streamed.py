"""InvokeEndpointWithResponseStream: one PayloadPart for each chunk that the container sends.

Owns the token path: container chunk to event-stream frame to client, nothing joined and nothing split. Every stream ends in exactly one
way: cleanly, with one exception frame, or with a broken connection.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from zlib import crc32

from penstock.gateway import answers, failures
from penstock.gateway.headers import STREAMED, from_container
from penstock.gateway.invocation import Invocation
from penstock.wire.eventstream import exception_frame, part_frame, part_head

_TAIL = Struct("!I2s")
_END = b"0\r\n\r\n"


@lru_cache(maxsize=8192)
def _chunk_head(length: int) -> tuple[bytes, int]:
    """An HTTP chunk's head and the frame's bytes before a payload of that length, with the CRC to go on from."""
    head, crc = part_head(length)
    return b"%x\r\n%s" % (len(head) + length + 4, head), crc


class StreamedInvocation(Invocation):
    """`POST /endpoints/{EndpointName}/invocations-response-stream`."""

    __slots__ = ()
    rules = STREAMED

    def allowance(self) -> float:
        return self.client.door.limits.stream_timeout_s

    def accepted(self, headers: dict[str, str]) -> None:
        client = self.client
        assert self.variant is not None
        fields = [
            ("x-amzn-requestid", self.request_id),
            ("x-amzn-invoked-production-variant", self.variant.variant.name),
            ("x-amzn-sagemaker-content-type", headers.get("content-type", "application/octet-stream")),
            *from_container(headers),
            ("date", answers.http_date(int(client.door.clock()))),
            ("content-type", "application/vnd.amazon.eventstream"),
        ]
        if self.head.http11:
            fields.append(("transfer-encoding", "chunked"))
        self.begun = True
        client.write(answers.head_bytes(200, fields, keep_alive=client.keep_alive))
        if client.write_paused:
            self.pause()

    def parts(self, parts: list[bytes]) -> None:
        if not self.head.http11:  # its bodies end with the connection
            self.client.write(b"".join(map(part_frame, parts)))
            return
        out: list[bytes] = []
        for part in parts:
            head, crc = _chunk_head(len(part))
            out += (head, part, _TAIL.pack(crc32(part, crc), b"\r\n"))
        self.client.write(b"".join(out))

    def finished(self) -> None:
        self._end(b"")

    def broken(self) -> None:
        self._end(exception_frame(failures.stream_broken(self.container)))

    def expired(self) -> None:
        if not self.begun:
            super().expired()
            return
        self._give_back()
        self._end(exception_frame(failures.stream_timed_out(self.container)))

    def shut(self) -> None:
        if not self.begun:
            super().shut()
            return
        self._give_back()
        self._end(exception_frame(failures.stream_ended_by_shutdown()))

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
