"""Carries out what a plan decided, one action after another.

Owns the order, the timers and the bounded backlog of one answer. It must never decide anything, nor know how bytes are framed: a `Stage`
writes them. It never awaits: all is done in callbacks of the loop, and `cancel` leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from penstock.gateway.hostile.faults import Action, Begin, End, Ending, HostileStream, Send, Wait

BACKLOG = 64 * 1024
"""Bytes of the container's that may wait for their turn before it is paused; what one read of its socket brings may come on top."""
BATCH = 32 * 1024
"""Bytes that go out in one write at most."""


class Stage(Protocol):
    """The client and the container, as far as actions touch them."""

    @property
    def blocked(self) -> bool:
        """Whether the client reads too slowly to be sent more now."""
        ...

    def begin(self) -> None:
        """The answer's head, unless it is sent already."""

    def send(self, frames: list[bytes]) -> None:
        """Bytes, and before the first of them the head."""

    def finish(self, how: Ending) -> None:
        """The answer is over. Nothing more is called."""

    def feed_me(self, more: bool) -> None:
        """Whether the container may send on."""


class Executor:
    """One answer under a plan. `began` is the request's moment on the loop's clock."""

    __slots__ = (
        "_actions",
        "_alarm",
        "_backlog",
        "_began",
        "_chunks",
        "_closed",
        "_full",
        "_loop",
        "_open",
        "_over",
        "_parts",
        "_running",
        "_stage",
        "_stream",
        "_waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: HostileStream, stage: Stage, began: float) -> None:
        self._loop, self._stream, self._stage, self._began = loop, stream, stage, began
        self._chunks: deque[bytes] = deque()
        self._backlog = 0
        self._parts: Iterator[bytes] = iter(())
        self._actions: deque[Action] = deque()
        self._closed: bytes | None = None
        self._waiting: asyncio.TimerHandle | bool = False
        self._alarm: asyncio.TimerHandle | None = None
        self._open = self._full = self._running = self._over = False
        self._set_alarm()

    def _elapsed_ms(self) -> float:
        return (self._loop.time() - self._began) * 1000

    def open(self) -> None:
        """The container has begun its answer."""
        self._open = True
        self._actions += self._stream.begin()
        self.run()

    def body(self, content: bytes) -> None:
        """The container's plain answer, whole."""
        self._actions += self._stream.body(content, self._elapsed_ms())
        self.run()

    def chunks(self, chunks: list[bytes]) -> None:
        """What the container sent."""
        self._chunks += chunks
        self._backlog += sum(map(len, chunks))
        self.run()

    def close(self, last: bytes = b"") -> None:
        """The container has ended its answer; `last` is a frame to end the stream with, where it did not end well."""
        self._closed = last
        self.run()

    def cancel(self) -> None:
        """Does nothing more."""
        self._over = True
        for timer in (self._waiting, self._alarm):
            if isinstance(timer, asyncio.TimerHandle):
                timer.cancel()
        self._waiting, self._alarm = False, None
        self._actions.clear()
        self._chunks.clear()

    def run(self) -> None:
        """Goes on as far as it may now."""
        if self._running:
            return
        self._running = True
        try:
            self._run()
        finally:
            self._running = False
        if not self._over:
            self._throttle()

    def _run(self) -> None:
        batch: list[bytes] = []
        size = 0
        while not self._over and not self._waiting and not self._stage.blocked:
            if not self._actions and not self._more():
                break
            action = self._actions.popleft()
            if isinstance(action, Send):
                batch.append(action.frame)
                size += len(action.frame)
                if size < BATCH:
                    continue
            if batch:
                self._stage.send(batch)
                batch, size = [], 0
            if isinstance(action, Begin):
                self._stage.begin()
            elif isinstance(action, Wait):
                self._wait(action.ms)
            elif isinstance(action, End):
                self._end(action.how)
        if batch and not self._over:
            self._stage.send(batch)

    def _more(self) -> bool:
        """Takes what comes next from the container's bytes. False when there is nothing now."""
        if not self._open:
            return False
        while (part := next(self._parts, None)) is None:
            if self._chunks:
                chunk = self._chunks.popleft()
                self._backlog -= len(chunk)
                self._parts = self._stream.slicer.feed(chunk)
            elif self._closed is None:
                return False
            elif rest := self._stream.slicer.flush():
                self._parts = iter(rest)
            else:
                self._actions += self._stream.finish(self._elapsed_ms())
                if self._closed and isinstance(last := self._actions[-1], End) and last.how == "clean":
                    self._actions.insert(len(self._actions) - 1, Send(self._closed))
                return True
        self._actions += self._stream.deliver(part, self._elapsed_ms())
        return True

    def _wait(self, ms: int | None) -> None:
        self._waiting = True if ms is None else self._loop.call_later(ms / 1000, self._waited)

    def _waited(self) -> None:
        self._waiting = False
        self.run()

    def _end(self, how: Ending) -> None:
        self.cancel()
        self._stage.finish(how)

    def _throttle(self) -> None:
        full = self._backlog > BACKLOG or (self._full and self._backlog > 0)
        if full != self._full:
            self._full = full
            self._stage.feed_me(not full)

    # --- rules that strike by the time alone

    def _set_alarm(self) -> None:
        elapsed = self._elapsed_ms()
        due = self._stream.next_due_ms(elapsed)
        if due is not None:
            self._alarm = self._loop.call_later((due - elapsed) / 1000, self._ring, due)

    def _ring(self, due: int) -> None:
        self._alarm = None
        struck = self._stream.tick(max(self._elapsed_ms(), due))
        if any(isinstance(action, End) for action in struck):
            if isinstance(self._waiting, asyncio.TimerHandle):
                self._waiting.cancel()
            self._waiting = False
            self._actions = deque(struck)
        else:
            self._actions.extendleft(reversed(struck))
        self._set_alarm()
        self.run()
