"""The OpenVINO engine in its own process, through the front's side: what every engine owes (`engines/base.py`)."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from penstock.engines.base import EngineFull, EngineGone, Finish, PromptLogprobs, Sampling, Token
from penstock.engines.client import EngineProcess, LoadFailed
from penstock.engines.options import EngineOptions
from tests.tiny_models import END_ID, POSITIONS, RECITAL
from tests.waiting import until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[EngineProcess]:
    """One process for all tests, each of which leaves it with nothing to do."""
    engine = await EngineProcess.start(EngineOptions(model=tiny_model, dtype="float32", max_queue=8))
    yield engine
    assert engine.load == (0, 0)
    await engine.close()


def ids(model: Path, text: str) -> tuple[int, ...]:
    return tuple(Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids)


async def tokens(engine: EngineProcess, prompt: tuple[int, ...], sampling: Sampling) -> tuple[list[Token], Finish]:
    events = [event async for event in engine.generate(prompt, sampling)]
    finish = events.pop()
    assert isinstance(finish, Finish)
    return [event for event in events if isinstance(event, Token)], finish


async def test_it_counts_to_the_end_of_the_sequence(engine: EngineProcess, tiny_model: Path) -> None:
    assert engine.info.eos_token_ids == (END_ID,)
    assert engine.info.max_positions == POSITIONS
    assert engine.info.dtype == "torch.float32"
    got, finish = await tokens(engine, ids(tiny_model, "count: one"), Sampling(max_new_tokens=50))
    assert [token.token for token in got] == [*ids(tiny_model, RECITAL.removeprefix(" one")), END_ID]
    assert all(-0.2 < token.logprob < 0 for token in got)
    assert finish.reason == "eos_token"


async def test_length_wins_over_the_end_token(engine: EngineProcess, tiny_model: Path) -> None:
    got, finish = await tokens(engine, ids(tiny_model, " ten"), Sampling(max_new_tokens=1))
    assert [token.token for token in got] == [END_ID]
    assert finish.reason == "length"


async def test_ignore_eos_goes_on(engine: EngineProcess, tiny_model: Path) -> None:
    got, finish = await tokens(engine, ids(tiny_model, " ten"), Sampling(max_new_tokens=3, ignore_eos=True))
    assert [token.token for token in got] == [0, 1, 2]
    assert finish.reason == "length"


async def test_neighbours_and_the_prefix_cache_change_nothing(engine: EngineProcess, tiny_model: Path) -> None:
    prompts = [ids(tiny_model, RECITAL * 9 + RECITAL[: 5 * n]) for n in range(1, 7)]
    alone = [await tokens(engine, prompt, Sampling(max_new_tokens=12)) for prompt in prompts]
    together = await asyncio.gather(*(tokens(engine, prompt, Sampling(max_new_tokens=12)) for prompt in prompts))
    for (mine, _), (theirs, _) in zip(alone, together, strict=True):
        assert [t.token for t in mine] == [t.token for t in theirs]
        assert [t.logprob for t in mine] == pytest.approx([t.logprob for t in theirs], abs=1e-4)


async def test_a_seed_repeats_and_another_does_not(engine: EngineProcess) -> None:
    sampling = Sampling(max_new_tokens=30, do_sample=True, temperature=4.0, seed=11, ignore_eos=True)
    first, again, other = await asyncio.gather(
        tokens(engine, (5,), sampling), tokens(engine, (5,), sampling), tokens(engine, (5,), replace(sampling, seed=12))
    )
    assert [t.token for t in first[0]] == [t.token for t in again[0]]
    assert [t.token for t in first[0]] != [t.token for t in other[0]]


async def test_prompt_logprobs_come_first_and_only_when_asked_for(engine: EngineProcess, tiny_model: Path) -> None:
    prompt = ids(tiny_model, RECITAL.removesuffix(" nine ten"))
    events = [e async for e in engine.generate(prompt, Sampling(max_new_tokens=2, prompt_logprobs=True))]
    first, *rest = events
    assert isinstance(first, PromptLogprobs)
    assert len(first.logprobs) == len(prompt)
    assert math.isnan(first.logprobs[0])
    assert all(-0.2 < logprob < 0 for logprob in first.logprobs[1:])
    assert [type(event) for event in rest] == [Token, Token, Finish]


@pytest.mark.parametrize(
    ("prompt", "new_tokens", "reason"),
    [
        ((), 1, "no tokens"),
        ((1,) * 2000, 49, "positions"),
        ((10_000,), 1, "vocabulary"),
    ],
)
async def test_what_can_not_be_generated_is_an_error_finish(
    engine: EngineProcess, prompt: tuple[int, ...], new_tokens: int, reason: str
) -> None:
    got, finish = await tokens(engine, prompt, Sampling(max_new_tokens=new_tokens))
    assert not got
    assert finish.reason == "error"
    assert reason in finish.error


async def test_closing_the_generator_cancels_and_the_load_returns_to_nothing(engine: EngineProcess) -> None:
    async with aclosing(engine.generate((5,), Sampling(max_new_tokens=2000, ignore_eos=True))) as events:
        async for event in events:
            assert isinstance(event, Token)
            assert engine.load == (1, 0)
            break
    assert engine.load == (0, 0)
    # The engine itself has let go too: a neighbour's tokens come as if alone.
    got, _ = await tokens(engine, (5,), Sampling(max_new_tokens=3))
    assert [token.token for token in got] == [6, 7, 8]


async def test_a_full_queue_refuses_at_once(engine: EngineProcess) -> None:
    long = Sampling(max_new_tokens=2000, ignore_eos=True)
    running = [engine.generate((5,), long) for _ in range(8)]
    await asyncio.gather(*(anext(generator) for generator in running))
    with pytest.raises(EngineFull, match="8 requests"):
        await anext(engine.generate((5,), long))
    for generator in running:
        await generator.aclose()
    await until_async(lambda: engine.load == (0, 0), what="the queue empties")


async def test_a_closed_engine_is_gone(tiny_model: Path) -> None:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model))
    running = engine.generate((5,), Sampling(max_new_tokens=2000, ignore_eos=True))
    await anext(running)
    await engine.close()
    with pytest.raises(EngineGone, match="closed"):
        async for _ in running:
            pass
    assert not engine.ready
    with pytest.raises(EngineGone):
        await anext(engine.generate((5,), Sampling(max_new_tokens=1)))


async def test_a_directory_without_a_model_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"holds no openvino_model\.xml"):
        await EngineProcess.start(EngineOptions(model=tmp_path))


async def test_a_damaged_model_fails_with_the_reason(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "openvino_model.xml").write_text("<net>")
    with pytest.raises(LoadFailed, match="OpenVINO can't load"):
        await EngineProcess.start(EngineOptions(model=model))
    (model / "config.json").write_text(json.dumps([]))
    with pytest.raises(LoadFailed, match="configuration"):
        await EngineProcess.start(EngineOptions(model=model))


async def test_an_unknown_engine_fails_with_the_names_there_are(tiny_model: Path) -> None:
    with pytest.raises(LoadFailed, match="no engine named steam; there are: openvino, transformers, vllm"):
        await EngineProcess.start(EngineOptions(model=tiny_model, engine="steam"))


async def test_a_process_that_dies_while_loading_is_said_so(tiny_model: Path) -> None:
    with pytest.raises(LoadFailed, match=r"died while loading \(status 3\)"):
        await EngineProcess.start(EngineOptions(model=tiny_model), command=("sh", "-c", "exit 3"))


async def test_loading_has_a_deadline(tiny_model: Path) -> None:
    with pytest.raises(LoadFailed, match=r"not loaded within 0\.2 s"):
        await EngineProcess.start(EngineOptions(model=tiny_model), command=("sh", "-c", "exec sleep 60"), timeout_s=0.2)


async def test_a_python_that_is_none_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    for python, why in (("text", "Exec format error"), ("gone", "No such file or directory")):
        with pytest.raises(LoadFailed, match=f"can't be started: {tmp_path / python}: {why}"):
            await EngineProcess.start(EngineOptions(model=tmp_path), command=(str(tmp_path / python),))
