"""An inference pipeline: each container's answer is the next one's request, and the client gets the last one's.

Owns the way through the containers before the last. It must never know how the last one's answer is framed, nor a client's connection.
AWS's page: "Run Real-time Predictions with an Inference Pipeline".
"""

from __future__ import annotations

from typing import Protocol

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.door import Door
from penstock.gateway.leg import Answer, Leg
from penstock.gateway.routing import VariantRoute, choose
from penstock.gateway.upstream import Failure, Target
from penstock.routes import Endpoint

_LINE = b"POST /invocations HTTP/1.1\r\nHost: "
_REPLACED = (b"content-length", b"content-type")
_LAST_ONLY = b"accept"


class Owner(Protocol):
    """The invocation on its way."""

    def stage(self, variant: VariantRoute, leg: Leg) -> None:
        """That container is asked now; `leg` is to be cancelled when the client leaves."""

    def arrived(self, variant: VariantRoute, head: bytes, body: bytes) -> None:
        """The last container's turn, with that head and body."""

    def failed(self, error: AwsError, status: int) -> None:
        """A container failed; `status` is its answer's, 0 where it gave none."""


class Pipeline:
    """One request's way. `head` is what the first container gets, as `headers.to_container` made it."""

    def __init__(
        self, door: Door, endpoint: Endpoint, route: VariantRoute, head: bytes, body: bytes, owner: Owner
    ) -> None:
        self._door, self._endpoint, self._owner = door, endpoint, owner
        self._head, self._body = head, body
        *self._before, self._last = route.containers.values()
        self._tried: list[Target] = []

    def run(self) -> None:
        """Asks the next container, or hands over to the last."""
        if not self._before:
            self._owner.arrived(self._last, self._head, self._body)
            return
        route = self._before[0]
        target = choose(route, self._door.rng, self._tried)
        if target is None:
            self._owner.failed(failures.no_response(self._endpoint), 0)
            return
        request = (_LINE, without_accept(self._head), self._body)
        self._owner.stage(
            route,
            Leg(self._door.loop, target, request, self._door.limits.body_bytes, lambda it: self._done(target, it)),
        )

    def _done(self, target: Target, outcome: Answer | Failure) -> None:
        name = self._before[0].variant.container
        if isinstance(outcome, Failure):
            self._door.unreachable(target)
            if outcome is Failure.REFUSED:
                self._tried.append(target)
                self.run()
            else:
                self._owner.failed(failures.no_response(self._endpoint), 0)
        elif not 200 <= outcome.status < 300:
            error = failures.from_container(self._endpoint, name, outcome.status, _bounded(outcome.body))
            self._owner.failed(error, outcome.status)
        elif outcome.body is None:
            self._owner.failed(failures.from_container(self._endpoint, name, 500, None), 500)
        else:
            self._tried = []
            del self._before[0]
            self._body = outcome.body
            type_ = outcome.headers.get("content-type", "application/octet-stream")
            self._head = of_type(self._head, type_, len(outcome.body))
            self.run()


def _bounded(body: bytes | None) -> bytes | None:
    return body if body is None or len(body) <= failures.MAX_ORIGINAL else None


def without_accept(head: bytes) -> bytes:
    """What the client accepts is about the last answer."""
    return _kept(head, (_LAST_ONLY,))


def of_type(head: bytes, type_: str, length: int) -> bytes:
    """The head for another body."""
    return f"Content-Length: {length}\r\nContent-Type: {type_}\r\n".encode("latin-1") + _kept(head, _REPLACED)


def _kept(head: bytes, dropped: tuple[bytes, ...]) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in dropped)
