"""What a gateway worker does every so often, whatever else goes wrong in it."""

from __future__ import annotations

import asyncio

import pytest

from penstock.config import Settings
from penstock.gateway import door as gateway
from penstock.gateway.door import Door
from penstock.gateway.upstream import Target


async def test_a_defect_in_a_sweep_does_not_end_the_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "SWEEP_S", 0.01)
    monkeypatch.setattr(gateway, "TELL_S", 0.0)
    loop = asyncio.get_running_loop()
    told, reported, third = 0, 0, asyncio.Event()

    def broken() -> None:
        nonlocal told
        told += 1
        if told == 3:
            third.set()
        raise RuntimeError("a defect")

    def report(_loop: asyncio.AbstractEventLoop, _context: object) -> None:
        nonlocal reported
        reported += 1

    loop.set_exception_handler(report)
    door = Door(loop, Settings(), control=Target("/nowhere"), notify=lambda event: None)
    monkeypatch.setattr(door, "tell", broken)
    door.start()
    try:
        await asyncio.wait_for(third.wait(), 10)
    finally:
        assert door._sweeper is not None
        door._sweeper.cancel()
    assert reported >= 2
