"""Every engine answers like transformers in single precision, with every family that it claims."""

from __future__ import annotations

import asyncio
import math

import pytest

from penstock.engines.base import Sampling
from penstock.engines.client import EngineProcess
from tests.engines.asking import ask
from tests.engines.claims import CASES, Claim, name_of
from tests.engines.families import NEW_TOKENS, TOP, Oracle

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(900),  # the first test makes the models, and each first one of a family converts it
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("case", CASES, indirect=True, ids=map(name_of, CASES)),
]
GREEDY = Sampling(max_new_tokens=NEW_TOKENS, ignore_eos=True)


async def test_greedy_answers_are_the_oracles(engine: EngineProcess, oracle: Oracle) -> None:
    for expected in oracle.plain:
        answer = await ask(engine, expected.prompt, GREEDY)
        assert answer.tokens == expected.tokens
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-3)
        assert answer.finish.reason == "length"


async def test_a_long_prompt_is_read_as_the_oracle_reads_it(engine: EngineProcess, oracle: Oracle) -> None:
    answer = await ask(engine, oracle.long.prompt, GREEDY)
    assert answer.tokens == oracle.long.tokens
    assert answer.logprobs == pytest.approx(oracle.long.logprobs, abs=1e-3)


async def test_many_at_once_are_as_one_at_a_time(engine: EngineProcess, oracle: Oracle) -> None:
    # Of different lengths and different ends, and one so long that it is read while the others answer.
    expected = [*oracle.plain, oracle.long, *oracle.plain]
    limits = [NEW_TOKENS, 5, NEW_TOKENS, NEW_TOKENS, 1, NEW_TOKENS, 9]
    short = oracle.plain[0].prompt[:7]
    alone = await ask(engine, short, GREEDY)
    *answers, again = await asyncio.gather(
        *(
            ask(engine, answer.prompt, Sampling(max_new_tokens=limit, ignore_eos=True))
            for answer, limit in zip(expected, limits, strict=True)
        ),
        ask(engine, short, GREEDY),
    )
    for answer, right, limit in zip(answers, expected, limits, strict=True):
        assert answer.tokens == right.tokens[:limit]
        assert answer.logprobs == pytest.approx(right.logprobs[:limit], abs=1e-3)
    assert again.tokens == alone.tokens


async def test_a_repetition_penalty_is_the_oracles(
    engine: EngineProcess, case: tuple[Claim, str], oracle: Oracle
) -> None:
    penalised = Sampling(max_new_tokens=NEW_TOKENS, ignore_eos=True, repetition_penalty=1.5)
    answer = await ask(engine, oracle.repetition.prompt, penalised)
    assert answer.tokens == oracle.repetition.tokens
    if case[0].penalised_logprobs:
        assert answer.logprobs == pytest.approx(oracle.repetition.logprobs, abs=1e-3)
    else:
        own = dict(oracle.plain[0].top[0])[answer.tokens[0]]
        assert answer.logprobs[0] == pytest.approx(own, abs=1e-3)
        assert answer.logprobs[0] != pytest.approx(oracle.repetition.logprobs[0], abs=1e-3)


async def test_prompt_logprobs_are_the_oracles(engine: EngineProcess, case: tuple[Claim, str], oracle: Oracle) -> None:
    if "prompt_logprobs" not in case[0].features:
        assert "prompt_logprobs" not in engine.info.features
        return
    for expected in (oracle.plain[0], oracle.long):
        answer = await ask(engine, expected.prompt, Sampling(max_new_tokens=2, ignore_eos=True, prompt_logprobs=True))
        assert answer.tokens == expected.tokens[:2]
        assert len(answer.prompt_logprobs) == len(expected.prompt)
        if not expected.prompt_logprobs:  # an encoder's text has no probabilities
            assert all(math.isnan(logprob) for logprob in answer.prompt_logprobs)
            continue
        assert math.isnan(answer.prompt_logprobs[0])
        assert answer.prompt_logprobs[1:] == pytest.approx(expected.prompt_logprobs[1:], abs=1e-3)


async def test_the_likeliest_tokens_are_the_oracles(
    engine: EngineProcess, case: tuple[Claim, str], oracle: Oracle
) -> None:
    if "top_n_tokens" not in case[0].features:
        assert "top_n_tokens" not in engine.info.features
        return
    expected = oracle.plain[1]
    answer = await ask(engine, expected.prompt, Sampling(max_new_tokens=8, ignore_eos=True, top_n_tokens=TOP))
    assert [[token for token, _ in step] for step in answer.top] == [[t for t, _ in step] for step in expected.top[:8]]
    for step, right in zip(answer.top, expected.top, strict=False):
        assert [logprob for _, logprob in step] == pytest.approx([logprob for _, logprob in right], abs=1e-3)
