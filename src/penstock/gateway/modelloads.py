"""The models of multi-model variants, as one worker knows them: what control is asked to load, and which were used.

Owns who waits for a load and the calls to control, one for each model however many wait. Which replica has a model loaded is noted on its
`Target`; that may be wrong any time, since containers and other workers do as they like, and is found out by asking. It must never touch
a file, nor wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from penstock import modelcalls
from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.leg import Answer, Leg
from penstock.gateway.upstream import Failure, Target
from penstock.modelcalls import ModelAnswer, ModelWanted
from penstock.routes import HEADER_INTERNAL, GatewayEvent, ModelUse

log = logging.getLogger("penstock.gateway")

MAX_CALLS = 256
"""Calls to control at a time, of all workers together: it must have connections left for everybody else."""
MAX_WAITING = 1024
"""Requests that wait for one model."""
MAX_ANSWER = 1024 * 1024
SPREAD_S = 10.0
"""How long no further copy of a model is asked for."""
MAX_SPREAD = 1024
TELL_S = 0.05
"""How often control hears of uses at the most."""

Held = tuple[str, str]
"""A replica and the name of a model on it."""


class Waiter(Protocol):
    """A request that waits for its model. `model_answered` is called once, later."""

    def model_answered(self, answer: ModelAnswer | AwsError) -> None: ...


@dataclass(slots=True)
class _Call:
    waiting: dict[Waiter, None]
    leg: Leg | None = None


@dataclass(slots=True)
class _Lease:
    """A model that is not cached, in use: how often control was asked for it, and by how many requests it is used."""

    asked: int = 0
    using: int = 0


@dataclass(slots=True)
class _News:
    used: dict[Held, float] = field(default_factory=dict)
    ended: dict[Held, int] = field(default_factory=dict)


class ModelLoads:
    """One worker's. `control` is where the control process listens; `notify` sends it an event."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        control: Target,
        notify: Callable[[GatewayEvent], None],
        worker: int,
        workers: int = 1,
    ) -> None:
        self._loop, self._control, self._notify, self._worker = loop, control, notify, worker
        self._most = max(1, MAX_CALLS // max(1, workers))
        self._telling: asyncio.TimerHandle | None = None
        self._calls: dict[ModelWanted, _Call] = {}
        self._leases: dict[Held, _Lease] = {}
        self._news = _News()
        self._spread: dict[ModelWanted, float] = {}

    # --- asking

    def want(self, wanted: ModelWanted, waiter: Waiter) -> None:
        """Has `waiter` told what control answers. Raises AwsError (ModelNotReadyException) where too many wait already."""
        call = self._calls.get(wanted)
        if call is None:
            if len(self._calls) >= self._most:
                raise failures.model_not_ready()
            call = self._calls[wanted] = _Call({waiter: None})
            call.leg = Leg(
                self._loop, self._control, self._request(wanted), MAX_ANSWER, lambda it: self._done(wanted, it)
            )
        elif len(call.waiting) >= MAX_WAITING:
            raise failures.model_not_ready()
        else:
            call.waiting[waiter] = None

    def spread(self, wanted: ModelWanted, waiter: Waiter) -> None:
        """Likewise, for requests to come: nothing where that was asked a moment ago, or there is no room to ask."""
        now = self._loop.time()
        if self._spread.get(wanted, 0.0) > now or len(self._calls) >= self._most // 2:
            return
        if len(self._spread) >= MAX_SPREAD:
            self._spread.clear()
        self._spread[wanted] = now + SPREAD_S
        if wanted not in self._calls:
            self.want(wanted, waiter)

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer. The load goes on: the next request finds it done."""
        for call in self._calls.values():
            call.waiting.pop(waiter, None)

    def _request(self, wanted: ModelWanted) -> tuple[bytes, ...]:
        body = modelcalls.encode(replace(wanted, used=self._take_news()))
        head = f"{HEADER_INTERNAL}: 1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return f"POST {modelcalls.PATH} HTTP/1.1\r\nHost: ".encode(), head.encode(), body

    def _done(self, wanted: ModelWanted, outcome: Answer | Failure) -> None:
        call = self._calls.pop(wanted)
        answer = _read(outcome)
        if isinstance(answer, ModelAnswer) and answer.outcome == "loaded" and not answer.cached:
            held = answer.replica, modelcalls.model_name(wanted.target_model)
            lease = self._leases.setdefault(held, _Lease())
            lease.asked += 1
            lease.using += len(call.waiting)
            if not lease.using:
                self._give_up(held, lease)
        for waiter in call.waiting:
            waiter.model_answered(answer)

    # --- using

    def use(self, target: Target, name: str) -> None:
        """A request for that model goes to `target` now."""
        self._news.used[target.name, name] = self._loop.time()
        self._tell_soon()

    def ended(self, replica: str, name: str) -> None:
        """A request that was told that the model is loaded there, and not cached, needs it no more."""
        held = replica, name
        lease = self._leases.get(held)
        if lease is not None:
            lease.using -= 1
            if lease.using <= 0:
                self._give_up(held, lease)

    def _give_up(self, held: Held, lease: _Lease) -> None:
        del self._leases[held]
        self._news.ended[held] = self._news.ended.get(held, 0) + lease.asked
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self._loop.call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if news := self._take_news():
            self._notify(GatewayEvent("models", self._worker, used=news))

    def _take_news(self) -> tuple[ModelUse, ...]:
        news, now = self._news, self._loop.time()
        if not (news.used or news.ended):
            return ()
        self._news = _News()
        return tuple(
            ModelUse(*held, max(0.0, now - news.used.get(held, now)), news.ended.get(held, 0))
            for held in {**news.used, **news.ended}
        )


def holder(targets: Collection[Target], name: str, tried: Collection[Target]) -> Target | None:
    """The replica that is thought to have the model; of several the one with the fewest requests in flight."""
    found = [target for target in targets if name in target.models and target not in tried]
    return min(found, key=lambda target: target.outstanding, default=None)


def note(target: Target, name: str) -> None:
    """`target` has the model, as far as we know."""
    target.models |= {name}


def forget(target: Target, name: str) -> None:
    target.models -= {name}


def _read(outcome: Answer | Failure) -> ModelAnswer | AwsError:
    away = failures.unavailable("The control process does not answer. Send the request again.")
    if isinstance(outcome, Failure):
        return away
    try:
        if outcome.status != 200:
            raise ValueError(f"status {outcome.status}")
        return modelcalls.decode_answer(outcome.body or b"")
    except (ValueError, msgspec.MsgspecError) as error:
        log.error("control's answer about a model makes no sense: %s", error)
        return away
