"""Waits that are bounded without a timer each."""

from __future__ import annotations

import asyncio

import pytest

from penstock.servers.deadline import Patience, within


async def forever(seen: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


async def test_what_is_ready_needs_no_timer() -> None:
    async def ready() -> str:
        return "here"

    loop = asyncio.get_running_loop()
    before = loop.call_at
    try:
        loop.call_at = None  # type: ignore[method-assign,assignment]  # whoever sets a timer fails
        assert await within(1, ready()) == "here"
    finally:
        loop.call_at = before  # type: ignore[method-assign]


async def test_what_waits_goes_on_where_it_was() -> None:
    async def slow() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return "here"

    assert await within(10, slow()) == "here"


async def test_what_takes_too_long_is_cancelled() -> None:
    seen: list[str] = []
    with pytest.raises(TimeoutError):
        await within(0.01, forever(seen))
    assert seen == ["cancelled"]


async def test_what_fails_at_once_or_later_says_so() -> None:
    async def fails(*, later: bool) -> None:
        if later:
            await asyncio.sleep(0)
        raise ValueError("no")

    for later in (False, True):
        with pytest.raises(ValueError, match="no"):
            await within(10, fails(later=later))


async def test_what_heeds_no_cancelling_still_gives_its_result() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "late"

    patience, task = Patience(0.01), asyncio.current_task()
    assert task is not None
    for wait in (within(0.01, stubborn()), patience.wait(stubborn())):
        assert await wait == "late"
        assert task.cancelling() == 0
    patience.close()


async def test_a_wait_that_is_cancelled_from_outside_is_cancelled() -> None:
    for patience in (None, Patience(10)):
        seen: list[str] = []
        task = asyncio.create_task(patience.wait(forever(seen)) if patience else within(10, forever(seen)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]


async def test_patience_ends_a_wait_and_the_next_one_too() -> None:
    patience, seen = Patience(0.01), list[str]()
    for count in (1, 2):
        with pytest.raises(TimeoutError):
            await patience.wait(forever(seen))
        assert seen == ["cancelled"] * count
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    patience.close()


async def test_patience_counts_from_the_beginning_of_each_wait() -> None:
    patience = Patience(0.1)
    for _ in range(30):  # three times as long together as any may take
        await patience.wait(asyncio.sleep(0.01))
    seen: list[str] = []
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await patience.wait(forever(seen))
    assert asyncio.get_running_loop().time() - begun >= 0.1


async def test_patience_sets_one_timer_for_many_waits() -> None:
    loop, timers = asyncio.get_running_loop(), 0
    before = loop.call_at

    def counted(*args: object, **given: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return before(*args, **given)  # type: ignore[arg-type]

    patience = Patience(60)
    try:
        loop.call_at = counted  # type: ignore[method-assign]
        for _ in range(100):
            await patience.wait(asyncio.sleep(0))
    finally:
        loop.call_at = before  # type: ignore[method-assign]
    assert timers == 1
    patience.close()


async def test_patience_without_a_wait_ends_nobody() -> None:
    patience = Patience(0.01)
    await patience.wait(asyncio.sleep(0))
    await asyncio.sleep(0.05)  # the timer finds nobody
    seen: list[str] = []
    with pytest.raises(TimeoutError):
        await patience.wait(forever(seen))
