"""Waiting for conditions, never for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, deadline_s: float = 10.0, every_s: float = 0.02, what: str = "") -> T:
    """The first truthy value of `condition`. Raises AssertionError when `deadline_s` have passed."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {what or condition}"
        time.sleep(every_s)
    return value


async def until_async(
    condition: Callable[[], T | Awaitable[T]], *, deadline_s: float = 10.0, every_s: float = 0.01, what: str = ""
) -> T:
    """Like `until`, on the event loop; `condition` may be a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what or condition}"
        await asyncio.sleep(every_s)
