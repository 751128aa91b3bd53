"""Invocations under a fault plan: the usual ones, with an executor between container and client.

Owns how a plan's actions reach the two connections. It must never decide what happens (`faults.py`) or when (`executor.py`).
Without a plan nothing of this module is called.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.authenticate import Admission
from penstock.gateway.exchange import Client
from penstock.gateway.head import Head
from penstock.gateway.hostile.executor import Executor
from penstock.gateway.hostile.faults import Ending
from penstock.gateway.hostile.inforce import HEADER, SEED_HEADER, of_request
from penstock.gateway.hostile.refusals import refusal
from penstock.gateway.invocation import Invocation
from penstock.gateway.streamed import StreamedInvocation
from penstock.gateway.trace import instant
from penstock.gateway.unary import UnaryInvocation
from penstock.wire.eventstream import exception_frame


class _Hostile(Invocation):
    """What both calls share: which plan it is, refusals, and the client's leaving."""

    plain: bool

    def __init__(self, client: Client, head: Head, request_id: str, admission: Admission, endpoint_name: str) -> None:
        super().__init__(client, head, request_id, admission, endpoint_name)
        self.executor: Executor | None = None

    def _route_verified(self, body: bytes) -> None:
        """Also finds the plan, and strikes where a rule refuses the request. Raises AwsError."""
        own = self.head.headers.get(HEADER)
        super()._route_verified(body)
        assert self.route is not None
        in_force, door = self.route.in_force, self.client.door
        if own is not None:
            in_force = of_request(own, in_force)
        if in_force is None or in_force.plan.off:
            return
        stream = in_force.stream(door.rng, self.container, plain=self.plain)
        self.marks = ((SEED_HEADER, str(stream.seed)),)
        self.returned += self.marks
        if fault := stream.refusal():
            raise refusal(fault, self.route.endpoint, self.container, self.session)
        self.executor = Executor(door.loop, stream, self, door.loop.time())

    def _refuse(self, error: AwsError) -> None:
        self._cancel()
        super()._refuse(error)

    def _give_back(self) -> None:
        self._cancel()
        super()._give_back()

    def _cancel(self) -> None:
        if self.executor is not None:
            self.executor.cancel()

    def pause(self) -> None:
        if self.executor is None:
            super().pause()

    def resume(self) -> None:
        if self.executor is None:
            super().resume()
        else:
            self.executor.run()

    # --- what the executor plays on

    @property
    def blocked(self) -> bool:
        return self.client.write_paused

    def begin(self) -> None:
        raise NotImplementedError

    def send(self, frames: list[bytes]) -> None:
        raise NotImplementedError

    def finish(self, how: Ending) -> None:
        """The replica is left, whatever it is doing: nobody wants the rest."""
        self._give_back()
        if how == "reset":
            self.client.reset()
        else:
            self._finish()

    def _finish(self) -> None:
        raise NotImplementedError

    def feed_me(self, more: bool) -> None:
        if self.upstream is not None:
            if more:
                self.upstream.resume()
            else:
                self.upstream.pause()


class HostileStreamed(_Hostile, StreamedInvocation):
    """InvokeEndpointWithResponseStream under a plan."""

    plain = False
    _headers: Mapping[str, str] = {}

    def accepted(self, headers: dict[str, str]) -> None:
        if self.executor is None:
            super().accepted(headers)
        else:
            self._headers = headers
            self.executor.open()

    def upstream_parts(self, parts: list[bytes]) -> None:
        if self.executor is None or self._status >= 300:
            super().upstream_parts(parts)
        else:
            self.executor.chunks(parts)

    def upstream_read(self, data: bytes) -> bool:
        return self.executor is None and super().upstream_read(data)

    def finished(self) -> None:
        if self.executor is None:
            super().finished()
        else:
            self.executor.close()

    def broken(self) -> None:
        if self.executor is None:
            super().broken()
        else:
            self.executor.close(exception_frame(failures.stream_broken(self.container)))

    def begin(self) -> None:
        if not self.begun:  # a rule may strike before the container has said anything
            self.open(dict(self._headers))

    def send(self, frames: list[bytes]) -> None:
        self.begin()
        self._count(frames)
        self.trace.first = self.trace.first or instant()
        if self.head.http11:
            frames = [b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames]
        self.client.write(b"".join(frames))

    def _finish(self) -> None:
        self.begin()
        self._end(b"")


class HostileUnary(_Hostile, UnaryInvocation):
    """InvokeEndpoint under a plan."""

    plain = True
    _left = 0

    def finished(self) -> None:
        if self.executor is None:
            super().finished()
        else:
            self._left = self._answer_size
            self.executor.body(b"".join(self._answer))

    def begin(self) -> None:
        if not self.begun:
            self.begun = True
            self.client.write(self.answer_head())

    def send(self, frames: list[bytes]) -> None:
        self.begin()
        for frame in frames:
            self._left -= len(frame)
            self.client.write(frame)

    def expired(self) -> None:
        if not self.begun:
            super().expired()
            return
        self._give_back()
        self.client.break_off()

    def _finish(self) -> None:
        if self.begun and self._left == 0:
            self.client.done()
        else:
            self.client.close_early()
