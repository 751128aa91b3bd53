"""What the OpenVINO engine does between two steps, in this process: guessing ahead, the prefix cache, cancels under load."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from penstock.engines.__main__ import load
from penstock.engines.base import Finish, Grammar, PromptLogprobs, Sampling, Submit, Token
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError
from tests.tiny_models import RECITAL, build

GUESSES = 4
Events = dict[int, list[Any]]


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    return load(EngineOptions(model=tiny_model, dtype="float32"))


@pytest.fixture(scope="module", params=["prompt lookup", "a draft model"])
def guessing(request: pytest.FixtureRequest, tiny_model: Path, careless_model: Path) -> Any:
    draft = str(careless_model) if request.param == "a draft model" else ""
    return load(EngineOptions(model=tiny_model, dtype="float32", speculate=GUESSES, draft_model=draft))


_numbers = iter(range(1, 1_000_000))


def run(engine: Any, prompts: Iterable[tuple[int, ...]], sampling: Sampling) -> tuple[list[list[Any]], int]:
    """The events of each prompt, all submitted at once, and the steps that they took."""
    events: Events = {}
    for prompt in prompts:
        number = next(_numbers)
        refused = engine.submit(Submit(number, prompt, sampling))
        events[number] = [refused] if refused else []
    steps = 0
    while engine.busy:
        steps += 1
        for event in engine.step():
            events[event.id].append(event)
    return list(events.values()), steps


def tokens(events: list[Any]) -> list[int]:
    return [event.token for event in events if isinstance(event, Token)]


def logprobs(events: list[Any]) -> list[float]:
    return [event.logprob for event in events if isinstance(event, Token)]


def ids(model: Path, text: str) -> tuple[int, ...]:
    return tuple(Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids)


WAYS = {
    "greedy": Sampling(max_new_tokens=40, ignore_eos=True),
    "to the end token": Sampling(max_new_tokens=40),
    "one token": Sampling(max_new_tokens=1),
    "fewer than are guessed": Sampling(max_new_tokens=3, ignore_eos=True),
    "repetition penalty": Sampling(max_new_tokens=40, ignore_eos=True, repetition_penalty=1.3),
    "frequency penalty": Sampling(max_new_tokens=40, ignore_eos=True, frequency_penalty=0.9, presence_penalty=0.4),
    "sampled": Sampling(max_new_tokens=40, ignore_eos=True, do_sample=True, temperature=1.5, top_k=20, seed=5),
    "a grammar": Sampling(max_new_tokens=40, grammar=Grammar("regex", "(one|two| three)+ [a-c]{20}")),
}


@pytest.mark.parametrize("way", WAYS)
def test_guessing_ahead_changes_no_token(plain: Any, guessing: Any, tiny_model: Path, way: str) -> None:
    prompts = [ids(tiny_model, text) for text in (RECITAL + "," + RECITAL[:9], RECITAL * 4, "x one", "one two one")]
    expected, _ = run(plain, prompts, WAYS[way])
    got, _ = run(guessing, prompts, WAYS[way])
    for mine, theirs in zip(got, expected, strict=True):
        assert tokens(mine) == tokens(theirs)
        assert logprobs(mine) == pytest.approx(logprobs(theirs), abs=1e-4)
        assert (mine[-1].reason, mine[-1].error) == (theirs[-1].reason, theirs[-1].error)


def test_log_probabilities_that_nobody_is_told_change_no_token(plain: Any, guessing: Any, tiny_model: Path) -> None:
    prompts = [ids(tiny_model, text) for text in (RECITAL * 2, "x one")]
    told, untold = Sampling(max_new_tokens=20), Sampling(max_new_tokens=20, logprobs=False)
    expected, _ = run(plain, prompts, told)
    for engine in (plain, guessing):
        got, _ = run(engine, prompts, untold)
        assert [tokens(events) for events in got] == [tokens(events) for events in expected]
        assert all(math.isnan(each) for events in got for each in logprobs(events))
    (with_prompts,), _ = run(plain, prompts[1:], replace(untold, prompt_logprobs=True))
    assert [type(event) for event in with_prompts[:2]] == [PromptLogprobs, Token]


def test_guesses_that_are_right_save_steps(plain: Any, guessing: Any, tiny_model: Path) -> None:
    prompt = ids(tiny_model, RECITAL * 2 + " one two three")
    sampling = Sampling(max_new_tokens=9)
    (slow,), steps = run(plain, [prompt], sampling)
    (fast,), fewer = run(guessing, [prompt], sampling)
    assert tokens(fast) == tokens(slow)
    assert fewer < steps == 9


def test_random_requests_and_cancels_while_guessing(plain: Any, guessing: Any) -> None:
    """Requests come and are cancelled between steps; those that stay get what they get alone."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    sampling = Sampling(max_new_tokens=30, ignore_eos=True)
    events: Events = {}
    prompts: dict[int, tuple[int, ...]] = {}
    cancelled: set[int] = set()
    for _ in range(60):
        for _ in range(rng.choice((0, 0, 1, 3))):
            number = next(_numbers)
            prompts[number] = tuple(rng.randrange(1, 250) for _ in range(rng.choice((1, 7, 60, 700))))
            events[number] = []
            assert guessing.submit(Submit(number, prompts[number], sampling)) is None
        running = [number for number, seen in events.items() if not seen or not isinstance(seen[-1], Finish)]
        if running and rng.random() < 0.4:
            victim = rng.choice(running)
            assert guessing.cancel(victim) == Finish(victim, "cancelled")
            events[victim].append(Finish(victim, "cancelled"))
            cancelled.add(victim)
        if guessing.busy:
            for event in guessing.step():
                assert event.id not in cancelled, "a cancelled request says nothing more"
                events[event.id].append(event)
    while guessing.busy:
        for event in guessing.step():
            events[event.id].append(event)
    stayed = [number for number in prompts if number not in cancelled]
    assert stayed
    assert cancelled
    expected, _ = run(plain, [prompts[number] for number in stayed], sampling)
    for number, theirs in zip(stayed, expected, strict=True):
        assert tokens(events[number]) == tokens(theirs)


def test_guesses_stay_within_the_models_positions(plain: Any, guessing: Any) -> None:
    assert guessing.info.max_positions == plain.info.max_positions - GUESSES
    full = guessing.info.max_positions - 30
    (events,), _ = run(guessing, [tuple(range(1, 251)) * 9][:1], Sampling(max_new_tokens=1))
    assert events[-1].reason == "error"
    (events,), _ = run(guessing, [(tuple(range(1, 251)) * 9)[:full]], Sampling(max_new_tokens=30, ignore_eos=True))
    assert len(tokens(events)) == 30


def test_a_draft_model_has_no_log_probabilities_of_the_prompt(tiny_model: Path, careless_model: Path) -> None:
    engine = load(EngineOptions(model=tiny_model, dtype="float32", speculate=GUESSES, draft_model=str(careless_model)))
    assert "prompt_logprobs" not in engine.info.features
    (events,), _ = run(engine, [(5, 6)], Sampling(max_new_tokens=1, prompt_logprobs=True))
    assert events[0].reason == "refused"
    assert "draft model" in events[0].error


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"speculate": 0}, "how many tokens it shall guess"),
        ({"draft_model": "/nowhere"}, "holds no openvino_model.xml"),
    ],
)
def test_a_draft_model_that_can_not_guess(
    tiny_model: Path, careless_model: Path, changes: dict[str, Any], reason: str
) -> None:
    options = EngineOptions(model=tiny_model, dtype="float32", speculate=GUESSES, draft_model=str(careless_model))
    with pytest.raises(LoadError, match=reason):
        load(replace(options, **changes))


def test_a_draft_model_with_another_vocabulary(tiny_model: Path, tmp_path: Path) -> None:
    other = build(tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    (other / "tokenizer.json").write_text(text.replace('"Ġten"', '"Ġzen"'), encoding="utf-8")
    with pytest.raises(LoadError, match="has another tokenizer"):
        load(EngineOptions(model=tiny_model, dtype="float32", speculate=GUESSES, draft_model=str(other)))


@pytest.mark.parametrize("kept", [True, False])
def test_a_beginning_that_was_seen_is_not_read_again(tiny_model: Path, kept: bool) -> None:
    """Counted twice: by the steps before the first token, and by the prompt's tokens that went through the model."""
    engine: Any = load(
        EngineOptions(model=tiny_model, dtype="float32", max_batched_tokens=100, prefix_cache=kept, max_queue=4)
    )
    rng = random.Random(1000)
    begin = tuple(rng.randrange(1, 250) for _ in range(1000))
    sampling = Sampling(max_new_tokens=1, prompt_logprobs=True, ignore_eos=True)
    work: list[tuple[int, int]] = []
    answers: list[list[int]] = []
    for end in (7, 9):
        (events,), steps = run(engine, [(*begin, end)], sampling)
        read = next(event for event in events if isinstance(event, PromptLogprobs))
        work.append((steps, sum(not math.isnan(logprob) for logprob in read.logprobs)))
        answers.append(tokens(events))
    assert answers == [[8], [10]]
    assert work[0] == (11, 1000), "all but the first have a log-probability"
    if kept:
        assert work[1][0] == 1
        assert work[1][1] <= 1000 % 32 + 32 + 1, "no more than what is left of a block"
    else:
        assert work[1] == work[0]


def test_cancels_between_steps_leave_the_others_alone(plain: Any) -> None:
    sampling = Sampling(max_new_tokens=60, ignore_eos=True)
    prompts = [(number, number + 1) for number in range(10, 42)]
    numbers = [next(_numbers) for _ in prompts]
    events: Events = {number: [] for number in numbers}
    for number, prompt in zip(numbers, prompts, strict=True):
        assert plain.submit(Submit(number, prompt, sampling)) is None
    for victim in numbers[::2]:
        for event in plain.step():
            events[event.id].append(event)
        before = len(events[victim])
        assert plain.cancel(victim) == Finish(victim, "cancelled")
        assert plain.cancel(victim) is None, "it is gone already"
        for event in plain.step():
            events[event.id].append(event)
        assert len(events[victim]) == before
    while plain.busy:
        for event in plain.step():
            events[event.id].append(event)
    for number, prompt in list(zip(numbers, prompts, strict=True))[1::2]:
        assert tokens(events[number]) == [(prompt[1] + 1 + n) % plain._config.vocab_size for n in range(60)]


def test_float32_keeps_the_cache_in_float32(tiny_model: Path) -> None:
    """Two heads of 8 numbers, keys and values, in blocks of 32 tokens: 4,096 bytes a block in single precision, 1,664 in 8 bits."""
    engine: Any = load(EngineOptions(model=tiny_model, dtype="float32"))
    run(engine, [tuple(range(1, 34))], Sampling(max_new_tokens=1))
    size = engine._pipeline.get_metrics().cache_size_in_bytes
    assert size in {blocks * 4096 for blocks in (2, 3, 4)}


def test_weights_that_are_not_as_asked_for(tiny_model: Path) -> None:
    with pytest.raises(LoadError, match="keeps its weights in 16 bits"):
        load(EngineOptions(model=tiny_model, quantize="int8"))
    with pytest.raises(LoadError, match="quantize=gptq is not for the OpenVINO engine"):
        load(EngineOptions(model=tiny_model, quantize="gptq"))
