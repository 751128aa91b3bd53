"""InvokeEndpoint: one body in, one body out.

Owns the plain answer. It is sent when it is whole, so that a container that dies in its middle becomes a ModelError and not half a body.
"""

from __future__ import annotations

from penstock.gateway import answers, failures
from penstock.gateway.headers import UNARY
from penstock.gateway.invocation import Invocation


class UnaryInvocation(Invocation):
    """`POST /endpoints/{EndpointName}/invocations`."""

    __slots__ = ("_answer", "_answer_size", "_type")
    rules = UNARY

    def allowance(self) -> float:
        return self.client.door.limits.invocation_timeout_s

    def accepted(self, headers: dict[str, str]) -> None:
        self._answer: list[bytes] = []
        self._answer_size = 0
        self._type = headers.get("content-type")

    def parts(self, parts: list[bytes]) -> None:
        self._answer += parts
        self._answer_size += sum(map(len, parts))
        if self._answer_size > self.client.door.limits.body_bytes:
            self._give_back()
            self._status = 500
            self._refuse(self._container_error(None))

    def finished(self) -> None:
        self.trace.status, self.trace.bytes_out = 200, self._answer_size
        self.trace.first = self.trace.answered
        self.client.write(b"".join((self.answer_head(), *self._answer)))
        self.client.done()

    def answer_head(self) -> bytes:
        """What `answers.head_bytes` would write, in one piece: most answers are such."""
        client = self.client
        assert self.variant is not None
        more = "".join([f"{name}: {value}\r\n" for name, value in self.returned]) if self.returned else ""
        if self._type is not None:
            more += f"content-type: {self._type}\r\n"
        return (
            f"HTTP/1.1 200 OK\r\nx-amzn-requestid: {self.request_id}\r\n"
            f"x-amzn-invoked-production-variant: {self.variant.variant.name}\r\n"
            f"{more}date: {answers.http_date(int(client.door.clock()))}\r\n"
            f"content-length: {self._answer_size}\r\n{'' if client.keep_alive else answers.CLOSE}\r\n"
        ).encode("latin-1", "replace")

    def broken(self) -> None:
        assert self.route is not None
        self._refuse(failures.no_response(self.route.endpoint))
