"""What every engine owes its front, whatever the architecture."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from penstock.engines.base import EngineGone, Grammar, Sampling, Token
from penstock.engines.client import EngineProcess
from tests.engines.asking import ask
from tests.engines.claims import FEW, Claim, name_of
from tests.engines.families import END, NEW_TOKENS, VOCABULARY, Oracle
from tests.waiting import until_async

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("case", FEW, indirect=True, ids=map(name_of, FEW)),
]
GREEDY = Sampling(max_new_tokens=NEW_TOKENS, ignore_eos=True)
LIVELY = Sampling(max_new_tokens=24, ignore_eos=True, do_sample=True, temperature=1.5, seed=11)


async def test_it_says_what_it_can_do(engine: EngineProcess, case: tuple[Claim, str], oracle: Oracle) -> None:
    claim, _ = case
    assert engine.info.name == claim.engine
    assert frozenset(engine.info.features) == claim.features
    assert engine.info.dtype == "torch.float32"
    assert engine.info.max_positions == 2048
    assert engine.info.eos_token_ids == (END, oracle.end)


async def test_an_end_token_ends(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    count = right.tokens.index(oracle.end) + 1
    answer = await ask(engine, right.prompt, Sampling(max_new_tokens=NEW_TOKENS + 5))
    assert answer.tokens == right.tokens[:count]
    assert answer.finish.reason == "eos_token"
    answer = await ask(engine, right.prompt, Sampling(max_new_tokens=count))
    assert answer.tokens == right.tokens[:count]
    assert answer.finish.reason == "length", "the length wins"
    answer = await ask(engine, right.prompt, Sampling(max_new_tokens=count + 3, ignore_eos=True))
    assert len(answer.tokens) == count + 3


async def test_log_probabilities_that_nobody_is_told_change_no_token(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    answer = await ask(engine, right.prompt, replace(GREEDY, logprobs=False))
    assert answer.tokens == right.tokens


async def test_cancelling_one_changes_nothing_for_its_neighbour(engine: EngineProcess, oracle: Oracle) -> None:
    neighbour = asyncio.create_task(ask(engine, oracle.plain[0].prompt, GREEDY))
    async with aclosing(
        engine.generate(oracle.plain[1].prompt, Sampling(max_new_tokens=1500, ignore_eos=True))
    ) as events:
        count = 0
        async for event in events:
            assert isinstance(event, Token)
            count += 1
            if count == 5:
                break
    third = asyncio.create_task(ask(engine, oracle.plain[2].prompt, GREEDY))
    assert (await neighbour).tokens == oracle.plain[0].tokens
    assert (await third).tokens == oracle.plain[2].tokens
    assert engine.load == (0, 0)


async def test_a_seed_repeats_whatever_runs_beside_it(engine: EngineProcess, oracle: Oracle) -> None:
    prompt = oracle.plain[0].prompt
    alone = await ask(engine, prompt, LIVELY)
    again, other, _ = await asyncio.gather(
        ask(engine, prompt, LIVELY),
        ask(engine, prompt, replace(LIVELY, seed=2**64 - 1)),
        ask(engine, oracle.plain[1].prompt, GREEDY),
    )
    assert again.tokens == alone.tokens
    assert other.tokens != alone.tokens


async def test_penalties_change_what_they_must(engine: EngineProcess, oracle: Oracle) -> None:
    prompt = oracle.plain[0].prompt
    long = Sampling(max_new_tokens=60, ignore_eos=True)
    plain = (await ask(engine, prompt, long)).tokens
    for penalised in (replace(long, frequency_penalty=1.8), replace(long, presence_penalty=1.8)):
        less = (await ask(engine, prompt, penalised)).tokens
        assert len(set(less)) > len(set(plain)), penalised
        assert less[0] == plain[0], "the first token repeats none of the answer"


async def test_sampling_keeps_to_what_the_rules_leave(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    assert (await ask(engine, right.prompt, replace(LIVELY, top_k=1))).tokens[:NEW_TOKENS] == right.tokens
    assert (await ask(engine, right.prompt, replace(LIVELY, top_p=1e-6))).tokens[:NEW_TOKENS] == right.tokens
    firsts = {
        (await ask(engine, right.prompt, replace(LIVELY, max_new_tokens=1, top_k=3, seed=seed))).tokens[0]
        for seed in range(20)
    }
    assert firsts <= {token for token, _ in right.top[0][:3]}
    assert len(firsts) > 1


async def test_what_it_lacks_is_not_among_its_features(engine: EngineProcess, case: tuple[Claim, str]) -> None:
    features = case[0].features
    if "grammar" not in features:
        sampling = Sampling(max_new_tokens=2, grammar=Grammar("regex", "a"))
        assert (await ask(engine, (5, 6), sampling)).finish.reason == "refused"
    if "watermark" in features:
        marked = await ask(engine, (5, 6, 7), Sampling(max_new_tokens=40, ignore_eos=True, watermark=True))
        plain = await ask(engine, (5, 6, 7), Sampling(max_new_tokens=40, ignore_eos=True))
        assert marked.tokens != plain.tokens
    if "typical_p" in features:
        narrow = {
            (await ask(engine, (5, 6), replace(LIVELY, max_new_tokens=1, typical_p=0.05, seed=seed))).tokens
            for seed in range(20)
        }
        wide = {(await ask(engine, (5, 6), replace(LIVELY, max_new_tokens=1, seed=seed))).tokens for seed in range(20)}
        assert len(narrow) < len(wide)


@pytest.mark.parametrize(
    ("prompt", "new_tokens", "reason"),
    [((), 1, "no tokens"), ((2,) * 2040, 9, "positions"), ((VOCABULARY,), 1, "vocabulary")],
)
async def test_what_can_not_be_generated_is_an_error(
    engine: EngineProcess, prompt: tuple[int, ...], new_tokens: int, reason: str
) -> None:
    answer = await ask(engine, prompt, Sampling(max_new_tokens=new_tokens))
    assert not answer.tokens
    assert answer.finish.reason == "error"
    assert reason in answer.finish.error


async def test_a_killed_process_fails_its_requests_and_is_replaced(
    engine: EngineProcess, case: tuple[Claim, str], oracle: Oracle
) -> None:
    running = engine.generate(oracle.plain[0].prompt, Sampling(max_new_tokens=1500, ignore_eos=True))
    await anext(running)
    assert engine.pid is not None
    killed = time.monotonic()
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineGone, match="SIGKILL"):
        async for _ in running:
            pass
    await until_async(lambda: engine.ready, deadline_s=120, what="another engine process is ready")
    print(f"{name_of(case)}: healthy {time.monotonic() - killed:.1f} s after the kill")
    assert (await ask(engine, oracle.plain[0].prompt, GREEDY)).tokens == oracle.plain[0].tokens
