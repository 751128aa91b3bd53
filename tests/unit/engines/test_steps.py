"""What the front hears of an engine's steps: from frames that the test writes, and from a real engine process."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from penstock.engines.base import Finish, PromptLogprobs, Sampling, Token
from penstock.engines.client import EngineProcess
from penstock.engines.messages import Message, Took
from penstock.engines.options import EngineOptions
from penstock.engines.steps import Observable, Step, Steps
from tests.waiting import until_async


class Kept:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.failures: list[bool] = []

    def done(self, step: Step) -> None:
        self.steps.append(step)

    def failed(self, *, prefill: bool) -> None:
        self.failures.append(prefill)


def token(request: int) -> Token:
    return Token(request, 5, -0.5)


def test_a_frame_of_tokens_is_a_step_and_nothing_else_is() -> None:
    now, kept = 10.0, Kept()
    steps = Steps(kept, lambda: now)
    now = 12.0
    steps.woken()
    now = 12.5
    steps.frame([], (), now)
    steps.frame([Finish(1, "refused", "a grammar that is none")], [1], now)
    steps.frame([Finish(1, "error", "no room in the cache"), Took(0.25, 0.0)], [1], now)
    assert not kept.steps
    first: list[Message] = [PromptLogprobs(2, (-1.0,)), token(2), Took(0.25, 0.125)]
    steps.frame(first, [2], 12.25)
    now = 12.75
    steps.frame([Finish(9, "cancelled"), token(2), token(3), Finish(3, "length"), Took(0.125, 0.0625)], [3], 12.75)
    now = 13.0
    # Two requests go on, one of which got two tokens; another was refused in the meantime.
    steps.frame([Finish(4, "error", "too long"), token(2), token(2), Took(0.125, 0.0)], [4], 12.875)
    assert [(step.seconds, step.began, step.joined) for step in kept.steps] == [
        (0.5, 1, False),
        (0.25, 1, True),
        (0.25, 0, False),
    ]
    assert [(step.forward, step.decode, step.handing_out) for step in kept.steps] == [
        (0.25, 0.125, 0.25),
        (0.125, 0.0625, 0.0),
        (0.125, 0.0, 0.125),
    ]
    assert kept.steps[0].messages is first


async def test_a_real_engine_tells_each_step_once(tiny_model: Path) -> None:
    engine, kept = await EngineProcess.start(EngineOptions(model=tiny_model)), Kept()
    try:
        assert isinstance(engine, Observable)
        await _answer(engine, 3)
        engine.observe(kept)
        await _answer(engine, 4)
        assert [(step.began, step.joined) for step in kept.steps] == [(1, False), *[(0, False)] * 3]
        for step in kept.steps:
            assert min(step.forward, step.decode, step.handing_out) > 0
            assert step.handing_out < step.seconds
        # An idle engine's time is nobody's.
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0.3)
        idle = asyncio.get_running_loop().time()
        await _answer(engine, 1)
        assert kept.steps[-1].seconds <= asyncio.get_running_loop().time() - idle
        assert kept.steps[-1].seconds > 0
        assert idle - before >= 0.3
        kept.steps.clear()
        long = asyncio.create_task(_answer(engine, 400))
        await until_async(lambda: kept.steps, every_s=0.0, what="the first request has begun")
        await _answer(engine, 2)
        await long
        assert sum(step.began for step in kept.steps) == 2
        assert [step.joined for step in kept.steps if step.began] == [False, True]
        assert len(kept.steps) == 400, "the second request's steps were the first one's too"
        assert not kept.failures
    finally:
        await engine.close()
    assert not kept.failures, "an engine that is told to end fails no step"


FAILING = """
import sys
from pathlib import Path
from penstock.engines.base import EngineInfo, Token
from penstock.engines.process import inherited_socket, run

class Failing:
    info, busy, steps = EngineInfo("failing", "cpu", "torch.float32", 100, (), 8), False, 0
    forward_s = 0.0
    def submit(self, request):
        self.id, self.busy = request.id, True
    def cancel(self, request_id):
        raise AssertionError
    def step(self):
        self.steps += 1
        if self.steps == STEPS:
            raise RuntimeError("no memory is left")
        return [Token(self.id, 5, -0.5)]

told = dict(word.removeprefix("--").split("=") for word in sys.argv[1:] if "=" in word)
sys.exit(run(inherited_socket(int(told["fd"]), int(told["parent"])), Failing))
"""


@pytest.mark.parametrize("steps", [1, 3])
async def test_a_step_that_fails_is_told_once(tmp_path: Path, steps: int) -> None:
    command = (sys.executable, "-c", FAILING.replace("STEPS", str(steps)))
    engine, kept = await EngineProcess.start(EngineOptions(model=tmp_path), command=command), Kept()
    try:
        engine.observe(kept)
        events = [event async for event in engine.generate((5,), Sampling(max_new_tokens=9))]
        assert events[-1] == Finish(1, "error", "the engine failed in a step: no memory is left")
        await until_async(lambda: not engine.ready, every_s=0.001, what="the death is seen")
        await until_async(lambda: engine.ready, what="the engine is there again")
        assert (len(kept.steps), kept.failures) == (steps - 1, [steps == 1])
    finally:
        await engine.close()


async def _answer(engine: EngineProcess, tokens: int) -> None:
    async for _ in engine.generate((5,), Sampling(max_new_tokens=tokens, ignore_eos=True)):
        pass
