"""Adapters that come and go while an engine runs, over a real engine process that is killed in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.engines.base import EngineError, EngineGone, Finish, Sampling, Token
from penstock.engines.client import EngineProcess
from penstock.engines.options import EngineOptions
from tests import adaptable_engine
from tests.adaptable_engine import PLAIN, write_adapter
from tests.waiting import until_async

ONE = Sampling(max_new_tokens=1)
COMMAND = (sys.executable, adaptable_engine.__file__)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EngineProcess]:
    startup = {name: str(write_adapter(tmp_path / name, token)) for name, token in (("first", 11), ("second", 12))}
    options = EngineOptions(model=tmp_path, engine="vllm", adapters=json.dumps(startup), lora=True)
    engine = await EngineProcess.start(options, command=COMMAND)
    yield engine
    await engine.close()


async def said(engine: EngineProcess, adapter: str) -> int | str:
    """The token of an adapter, or why there is none."""
    events = [event async for event in engine.generate((1,), replace(ONE, adapter=adapter))]
    assert isinstance(events[-1], Finish)
    return events[0].token if isinstance(events[0], Token) else events[-1].error


def names(engine: EngineProcess) -> tuple[str, ...]:
    return engine.info.adapters


async def restarted(engine: EngineProcess) -> None:
    before = engine.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until_async(lambda: engine.pid not in (before, None))


async def test_an_adapter_comes_and_goes(engine: EngineProcess, tmp_path: Path) -> None:
    assert names(engine) == ("first", "second")
    assert "adapters" in engine.info.features
    await engine.add_adapter("third", str(write_adapter(tmp_path / "third", 13)))
    assert names(engine) == ("first", "second", "third")
    assert [await said(engine, name) for name in ("", "first", "third")] == [PLAIN, 11, 13]
    await engine.remove_adapter("first")
    assert names(engine) == ("second", "third")
    assert await said(engine, "first") == "there is no adapter named first"


async def test_what_the_engine_refuses_is_told_and_changes_nothing(engine: EngineProcess, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="LoRA rank 64 is greater than max_lora_rank 16"):
        await engine.add_adapter("big", str(write_adapter(tmp_path / "big", 14, rank=64)))
    with pytest.raises(EngineError, match="there is no adapter named nobody"):
        await engine.remove_adapter("nobody")
    assert names(engine) == ("first", "second")


async def test_a_restarted_engine_has_what_it_had(engine: EngineProcess, tmp_path: Path) -> None:
    await engine.remove_adapter("first")
    await engine.add_adapter("second", str(write_adapter(tmp_path / "new", 22)), pin=True)
    await engine.add_adapter("third", str(write_adapter(tmp_path / "third", 13)), preload=False)
    for _ in range(2):
        await restarted(engine)
        assert names(engine) == ("second", "third")
        assert [await said(engine, name) for name in ("second", "third", "")] == [22, 13, PLAIN]
        assert await said(engine, "first") == "there is no adapter named first"


async def test_one_whose_files_are_gone_is_not_there_after_a_restart(engine: EngineProcess, tmp_path: Path) -> None:
    await engine.add_adapter("third", str(write_adapter(tmp_path / "third", 13)))
    shutil.rmtree(tmp_path / "third")
    await restarted(engine)
    assert await said(engine, "third") == "there is no adapter named third"
    assert names(engine) == ("first", "second")
    await engine.add_adapter("third", str(write_adapter(tmp_path / "third", 33)))
    assert await said(engine, "third") == 33


async def test_without_an_engine_there_is_nothing_to_change(engine: EngineProcess, tmp_path: Path) -> None:
    await engine.close()
    with pytest.raises(EngineGone, match="closed"):
        await engine.add_adapter("third", str(write_adapter(tmp_path / "third", 13)))


async def test_an_engine_that_takes_none_says_so(tiny_model: Path) -> None:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model))
    try:
        with pytest.raises(EngineError, match="the openvino engine takes no adapters"):
            await engine.add_adapter("any", "/nowhere")
        assert (await anext(aiter(engine.generate((5,), ONE)))).id
    finally:
        await engine.close()
