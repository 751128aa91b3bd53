"""InvokeEndpoint: one body in, one body out.

Owns the plain answer. It is sent when it is whole, so that a container that dies in its middle becomes a ModelError and not half a body.
"""

from __future__ import annotations

from penstock.gateway import answers, failures
from penstock.gateway.headers import UNARY
from penstock.gateway.invocation import Invocation


class UnaryInvocation(Invocation):
    """`POST /endpoints/{EndpointName}/invocations`."""

    __slots__ = ("_answer", "_answer_size", "_headers")
    rules = UNARY

    def allowance(self) -> float:
        return self.client.door.limits.invocation_timeout_s

    def accepted(self, headers: dict[str, str]) -> None:
        self._answer: list[bytes] = []
        self._answer_size = 0
        assert self.variant is not None
        self._headers = [
            ("x-amzn-requestid", self.request_id),
            ("x-amzn-invoked-production-variant", self.variant.variant.name),
            *self.returned,
        ]
        if "content-type" in headers:
            self._headers.append(("content-type", headers["content-type"]))

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
        client = self.client
        self._headers += [
            ("date", answers.http_date(int(client.door.clock()))),
            ("content-length", str(self._answer_size)),
        ]
        return answers.head_bytes(200, self._headers, keep_alive=client.keep_alive)

    def broken(self) -> None:
        assert self.route is not None
        self._refuse(failures.no_response(self.route.endpoint))
