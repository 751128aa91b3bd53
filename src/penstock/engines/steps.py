"""An engine's steps, as its front hears of them: the tokens that come in one frame are one step's.

Owns what such a frame says of its step, and the time that it took. It must never know what that is counted for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from penstock.engines.base import Token
from penstock.engines.messages import Message, Took


@dataclass(frozen=True, slots=True)
class Step:
    """One step that gave tokens. One that only read a part of a long prompt is not heard of: its time is the next one's."""

    seconds: float
    """Since the step before, or since the request that woke an idle engine."""
    began: int
    """Requests that got their first token."""
    joined: bool
    """Whether some began while others went on in the same step."""
    messages: Sequence[Message]
    """The frame. To walk over it costs time for each token."""
    forward: float
    """Of these seconds, the model's own."""
    decode: float
    """The engine process's, from the model's numbers to messages."""
    handing_out: float
    """The front's, to give each request what is its."""


class Observer(Protocol):
    """Who is told of an engine's steps. Called in the front's loop, once a step."""

    def done(self, step: Step) -> None: ...

    def failed(self, *, prefill: bool) -> None:
        """The engine died under its requests. `prefill`: some of them still waited for their first token."""
        ...


@runtime_checkable
class Observable(Protocol):
    """An engine whose steps can be heard of."""

    def observe(self, observer: Observer) -> None: ...


class Steps:
    """Tells an observer of one engine's steps."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self.failed = observer.failed
        self._done = observer.done
        self.now = clock
        self._since = clock()

    def woken(self) -> None:
        """An idle engine was given a request."""
        self._since = self.now()

    def frame(self, messages: Sequence[Message], first: Collection[int], came: float) -> None:
        """One frame, when it came, and the requests that nothing had come for before it: some may be refusals."""
        took = messages[-1] if messages else None
        if not isinstance(took, Took) or not any(isinstance(message, Token) for message in messages):
            return  # a sign of life, or the end of what was refused or cancelled
        since, self._since = self._since, self.now()
        began, joined = 0, False
        if first:
            answered = {message.id for message in messages if isinstance(message, Token)}
            began = len(answered.intersection(first))
            joined = 0 < began < len(answered)
        self._done(Step(self._since - since, began, joined, messages, took.forward, took.decode, self._since - came))
