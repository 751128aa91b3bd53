"""The OpenAI route: a chat completion in, the container's own answer out.

Owns `POST /endpoints/{E}/openai/v1/chat/completions`, where body and server-sent events pass as they are, without event-stream frames. It
must never read either. AWS's page: "OpenAI-compatible endpoints" of SageMaker's real-time inference.
"""

from __future__ import annotations

import json

from penstock.gateway import answers, failures
from penstock.gateway.headers import OPENAI
from penstock.gateway.invocation import Invocation
from penstock.gateway.trace import instant

_PASSED = ("content-type", "cache-control", "retry-after", "x-request-id")
_BODYLESS = frozenset((204, 304))
MOST_READ = 1024 * 1024
"""Bytes of a body that is read for the sake of its prefix. A longer one would hold up every other stream of the gateway."""


def _texts(content: object) -> str:
    """Of a message: a string, or the texts of its parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class OpenAIInvocation(Invocation):
    """The container's status, type and body go to the client unchanged, errors included: OpenAI's clients know those shapes."""

    __slots__ = ("_chunked",)
    rules = OPENAI
    through_pipelines = False
    request_line = b"POST /v1/chat/completions HTTP/1.1\r\nHost: "

    def prefix_of(self, body: bytes, length: int) -> bytes:
        """The first characters of what the messages say; of a long body its first bytes."""
        if len(body) > MOST_READ:
            return body[:length]
        try:
            messages = json.loads(body).get("messages", [])
            said = "".join(_texts(message.get("content")) for message in messages)
        except (ValueError, AttributeError, TypeError, RecursionError):
            return body[:length]
        return said[:length].encode("utf-8", "surrogatepass")

    def allowance(self) -> float:
        return self.client.door.limits.stream_timeout_s

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        self._body = []
        self.trace.model_status = status
        if not 200 <= status < 600:  # no status that HTTP has (RFC 9110 §15)
            assert self.route is not None
            self._give_back()
            self._refuse(failures.no_response(self.route.endpoint))
            return
        self.trace.status = status
        self._status = 200  # whatever it is, it is the client's
        client = self.client
        assert self.variant is not None
        fields = [
            ("x-amzn-requestid", self.request_id),
            ("x-amzn-invoked-production-variant", self.variant.variant.name),
            ("date", answers.http_date(int(client.door.clock()))),
            *((name, headers[name]) for name in _PASSED if name in headers),
        ]
        bodyless = status in _BODYLESS
        self._chunked = "content-length" not in headers and self.head.http11 and not bodyless
        if "content-length" in headers and not bodyless:
            fields.append(("content-length", headers["content-length"]))
        elif self._chunked:
            fields.append(("transfer-encoding", "chunked"))
        self.begun = True
        client.write(answers.head_bytes(status, fields, keep_alive=client.keep_alive))
        if client.write_paused:
            self.pause()

    def parts(self, parts: list[bytes]) -> None:
        trace = self.trace
        trace.first = trace.first or instant()
        trace.parts += len(parts)
        trace.bytes_out += sum(map(len, parts))
        if self._chunked:
            parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
        self.client.write(b"".join(parts))

    def finished(self) -> None:
        if self._chunked:
            self.client.write(b"0\r\n\r\n")
        self.client.done()

    def broken(self) -> None:
        self.trace.error = "StreamBroken"
        self.client.break_off()  # there is no frame to say so in

    def expired(self) -> None:
        if self.begun:
            self._give_back()
            self.trace.error = "ModelInvocationTimeExceeded"
            self.client.break_off()
        else:
            super().expired()

    def pause(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def resume(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()
