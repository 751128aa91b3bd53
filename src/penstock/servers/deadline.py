"""Deadlines for waits that mostly do not wait, or that come by the thousand.

Owns how such a wait is bounded without a timer of its own: `asyncio.timeout` sets one and takes it back each time, which costs a
front more than what it does for a token. It must never know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` returns; a timer is set only if it does not return at once. Raises TimeoutError."""
    steps = work.__await__()
    try:
        waiting = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _Rest(steps, waiting)


class _Rest(Awaitable[T]):
    """What is left of an awaitable that waits for `waiting`."""

    def __init__(self, steps: Generator[Any, Any, T], waiting: Any) -> None:
        self._steps = steps
        self._waiting = waiting

    def __await__(self) -> Generator[Any, Any, T]:
        waiting = self._waiting
        while True:
            try:
                yield waiting
            except BaseException as error:
                try:
                    waiting = self._steps.throw(error)
                except StopIteration as done:
                    result: T = done.value
                    return result
            else:
                return (yield from self._steps)


class Patience:
    """Bounds each of many waits of one task, one after another, by the same time. One timer looks after all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = 0.0
        self._task: asyncio.Task[Any] | None = None
        """Who waits now."""
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    async def wait(self, work: Awaitable[T]) -> T:
        """Raises TimeoutError, with `work` cancelled."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._until, self._task, self._over = loop.time() + self._seconds, task, False
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._look)
        try:
            return await work
        except asyncio.CancelledError as error:
            if self._over:
                self._over = False
                if task.uncancel() <= cancelling:
                    raise TimeoutError from error
            raise
        finally:
            self._task = None
            if self._over:  # `work` took the cancelling for itself
                self._over = False
                task.uncancel()

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return  # the next wait sets the timer again
        loop = self._task.get_loop()
        if loop.time() < self._until:
            self._timer = loop.call_at(self._until, self._look)
        elif not self._over:
            self._over = True
            self._task.cancel()
