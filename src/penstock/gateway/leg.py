"""A request whose answer the client does not see: to a container of a pipeline, or to control.

Owns sending it, sending it again where a kept connection was gone before, and collecting its answer up to a limit. It must never know what
it is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from penstock.gateway.upstream import Dial, Failure, Target, Upstream, reach


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `body` is None where it was longer than the limit."""

    status: int
    headers: dict[str, str]
    body: bytes | None


class Leg:
    """A `Sink`. `request` is its bytes but for the Host header, whose value goes after the first. `done` is called once, later."""

    __slots__ = (
        "_dial",
        "_done",
        "_headers",
        "_limit",
        "_loop",
        "_parts",
        "_request",
        "_resent",
        "_size",
        "_status",
        "_upstream",
        "target",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        request: tuple[bytes, ...],
        limit: int,
        done: Callable[[Answer | Failure], None],
    ) -> None:
        self._loop, self.target, self._request, self._limit, self._done = loop, target, request, limit, done
        self._dial: Dial | None = None
        self._upstream: Upstream | None = None
        self._resent = False
        self._status = self._size = 0
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        target.outstanding += 1
        self._reach(fresh=False)

    def _reach(self, *, fresh: bool) -> None:
        dial = reach(self._loop, self.target, self, fresh=fresh)
        if dial is not None:
            self._dial = dial

    def cancel(self) -> None:
        """Gives it up, whatever it is doing. `done` is not called. After its end this is nothing."""
        if self._dial is not None:
            self._dial.cancel()
        if self._upstream is not None:
            self._upstream.abort()
        if self._dial is not None or self._upstream is not None:
            self._leave()

    def _leave(self) -> None:
        self._dial = self._upstream = None
        self.target.outstanding -= 1

    def upstream_ready(self, upstream: Upstream) -> None:
        self._dial, self._upstream = None, upstream
        line, *rest = self._request
        upstream.begin(self, whole_chunks=False)
        upstream.write(b"".join((line, upstream.target.host, b"\r\n", *rest)))

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        self._status, self._headers = status, headers

    def upstream_parts(self, parts: list[bytes]) -> None:
        self._parts += parts
        self._size += sum(map(len, parts))
        if self._size > self._limit and self._upstream is not None:
            self._upstream.abort()
            self._finish(Answer(self._status, self._headers, None))

    def upstream_read(self, data: bytes) -> bool:
        return False

    def upstream_end(self) -> None:
        self._finish(Answer(self._status, self._headers, b"".join(self._parts)))

    def upstream_failed(self, failure: Failure) -> None:
        if failure is Failure.UNTOUCHED and not self._resent:
            self._resent, self._upstream = True, None
            self._reach(fresh=True)
        else:
            self._finish(failure)

    def _finish(self, outcome: Answer | Failure) -> None:
        self._leave()
        self._done(outcome)

    def upstream_continue(self) -> None:
        """The body is whole, and went with its head."""

    def upstream_paused(self) -> None:
        """The body is whole; nothing is to be held back."""

    def upstream_resumed(self) -> None:
        pass
