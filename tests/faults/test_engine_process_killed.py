"""The engine process is killed in the middle of a generation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.engines.base import EngineGone, Sampling, Token
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions
from penstock.engines.steps import Step
from tests.replicas import alive
from tests.waiting import until, until_async

LONG = Sampling(max_new_tokens=2000, ignore_eos=True)


class Told:
    """Keeps which steps failed."""

    def __init__(self) -> None:
        self.failures: list[bool] = []

    def done(self, step: Step) -> None: ...

    def failed(self, *, prefill: bool) -> None:
        self.failures.append(prefill)


async def test_its_requests_fail_and_another_is_healthy_within_seconds(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model))
    try:
        told = Told()
        engine.observe(told)
        running = [engine.generate((5,), LONG) for _ in range(3)]
        for generator in running:
            assert isinstance(await anext(generator), Token)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        killed = time.monotonic()
        for generator in running:
            with pytest.raises(EngineGone, match=r"the engine process died \(SIGKILL\)"):
                async for _ in generator:
                    pass
        assert engine.load == (0, 0)
        assert told.failures == [False], "one step failed, and all of its requests had begun"
        await until_async(lambda: engine.ready, what="the engine is there again")
        assert time.monotonic() - killed < 10
        assert isinstance(await anext(engine.generate((5,), LONG)), Token)
        assert "died (SIGKILL); starting another" in capfd.readouterr().err
    finally:
        await engine.close()


async def test_requests_in_between_are_told_at_once(tiny_model: Path) -> None:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model))
    try:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until_async(lambda: not engine.ready, every_s=0.001, what="the death is seen")
        with pytest.raises(EngineGone, match="restarted"):
            await anext(engine.generate((5,), LONG))
    finally:
        await engine.close()


async def test_a_stopped_engine_is_taken_for_hung_and_replaced(tiny_model: Path) -> None:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model), stall_s=1.0)
    try:
        assert engine.pid is not None
        running = engine.generate((5,), LONG)
        await anext(running)
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineGone, match="said nothing for 1 s"):
            async for _ in running:
                pass
        await until_async(lambda: engine.ready, deadline_s=20, what="the engine is there again")
    finally:
        await engine.close()


def test_the_engine_dies_with_its_front(tiny_model: Path, tmp_path: Path) -> None:
    """However the front ends: here by SIGKILL, with the engine in the middle of its steps."""
    report = tmp_path / "pid"
    program = f"""
import asyncio, pathlib
from penstock.engines.base import Sampling
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions

async def main():
    engine = await EngineProcess.start(EngineOptions(model=pathlib.Path({str(tiny_model)!r})))
    async for _ in engine.generate((5,), Sampling(max_new_tokens=2000, ignore_eos=True)):
        pathlib.Path({str(report)!r}).write_text(str(engine.pid))

asyncio.run(main())
"""
    front = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": "src"})
    until(lambda: report.exists() and report.read_text(), deadline_s=30, what="the engine runs")
    engine = int(report.read_text())
    front.kill()
    front.wait(10)
    until(lambda: not alive(engine), what="the engine has gone with its front")
