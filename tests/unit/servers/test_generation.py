"""From text to text, over an engine that says what the test wrote."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from penstock.engines.base import EngineGone, EngineInfo, Feature, Finish, FinishReason, PromptLogprobs, Sampling, Token
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import (
    Generation,
    GenerationFailed,
    Prefill,
    PromptToken,
    StopRule,
    StopStrings,
    TextFinish,
    TextToken,
    TopToken,
)
from tests.tiny_models import EMOJI, END, END_ID


class Scripted:
    """A fake engine that says the same ids to everybody. It can have every feature, and remembers what it was asked.

    With `top_n_tokens` the likeliest tokens of each step are the one that it says, and as many after it as are asked for.
    """

    ready = True
    load = (0, 0)

    def __init__(
        self,
        ids: Sequence[int],
        end: FinishReason | EngineGone = "length",
        features: tuple[Feature, ...] = (),
        adapters: tuple[str, ...] = (),
    ) -> None:
        self.info = EngineInfo("scripted", "cpu", "torch.float32", 100, (END_ID,), 8, features, adapters)
        self.ids = ids
        self.end = end
        self.closed_after: int | None = None
        self.asked: Sampling | None = None

    async def generate(
        self, prompt: tuple[int, ...], sampling: Sampling
    ) -> AsyncGenerator[PromptLogprobs | Token | Finish, None]:
        count = 0
        self.asked = sampling
        try:
            if sampling.prompt_logprobs:
                yield PromptLogprobs(1, (math.nan,) * len(prompt))
            for number in self.ids:
                count += 1
                top = tuple((number + rank, -0.5 - rank) for rank in range(sampling.top_n_tokens))
                yield Token(1, number, -0.5, top)
                await asyncio.sleep(0)
            if isinstance(self.end, EngineGone):
                raise self.end
            yield Finish(1, self.end, "out of luck" if self.end == "error" else "")
        finally:
            self.closed_after = count

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer.load(tiny_model)


async def run(
    tokenizer: TextTokenizer,
    engine: Scripted,
    *,
    max_new_tokens: int = 100,
    stop: Sequence[str] = (),
    stop_rule: StopRule = "anywhere",
    sample: bool = False,
) -> list[TextToken]:
    sampling = Sampling(max_new_tokens=max_new_tokens, do_sample=sample, seed=7)
    service = Generation(tokenizer, engine)
    steps = [s async for s in service.stream((1, 2), sampling, stop=stop, stop_rule=stop_rule)]
    return [step for step in steps if isinstance(step, TextToken)]


async def test_text_until_the_end_token(tokenizer: TextTokenizer) -> None:
    engine = Scripted([*tokenizer.encode(f" four{EMOJI} five"), END_ID, 5, 6])
    steps = await run(tokenizer, engine, sample=True)
    assert [(s.text, s.special) for s in steps] == [
        (" four", False), ("", False), (EMOJI, False), (" five", False), (END, True),
    ]  # fmt: skip
    assert [s.finish for s in steps[:-1]] == [None] * 4
    assert steps[-1].finish == TextFinish("eos_token", f" four{EMOJI} five", 5, 2, 7)
    assert engine.closed_after == 5, "the engine was not told to stop"


async def test_the_likeliest_tokens_of_each_step(tokenizer: TextTokenizer) -> None:
    service = Generation(tokenizer, Scripted([*tokenizer.encode(" one two"), END_ID]))
    steps = [s async for s in service.stream((1, 2), Sampling(max_new_tokens=9, top_n_tokens=2))]
    one, two, three = (tokenizer.encode(text)[0] for text in (" one", " two", " three"))
    assert [step.top for step in steps if isinstance(step, TextToken)] == [
        (TopToken(one, " one", -0.5, False), TopToken(two, " two", -1.5, False)),
        (TopToken(two, " two", -0.5, False), TopToken(three, " three", -1.5, False)),
        (TopToken(END_ID, END, -0.5, True), TopToken(1, tokenizer.decode((1,)), -1.5, False)),
    ]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    """The tokenizer of an encoder-decoder, of T5's kind: words with a mark for the space before them."""
    directory = tmp_path_factory.mktemp("t5")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁rose", -1.0), ("s", -1.0), ("▁", -9.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<pad>", "</s>", "<unk>")])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"model_type": "t5", "is_encoder_decoder": True, "decoder_start_token_id": 0, "eos_token_id": 1}
    (directory / "config.json").write_text(json.dumps(config))
    return TextTokenizer.load(directory)


async def test_an_encoder_decoders_answer_begins_anew_and_its_prefill_is_the_start_token(
    translator: TextTokenizer,
) -> None:
    engine = Scripted([3, 4, 5, 1])
    engine.info = replace(engine.info, eos_token_ids=(1,))
    service = Generation(translator, engine)
    steps = [s async for s in service.stream((4, 5, 1), Sampling(max_new_tokens=9, prompt_logprobs=True))]
    assert isinstance(steps[0], Prefill)
    assert [(token.id, token.text) for token in steps[0].tokens] == [(0, "<pad>")]
    assert math.isnan(steps[0].tokens[0].logprob)
    assert engine.asked is not None
    assert not engine.asked.prompt_logprobs, "the engine has nothing to add"
    tokens = [step for step in steps if isinstance(step, TextToken)]
    assert [token.text for token in tokens] == [" a", " rose", "s", "</s>"]
    assert tokens[-1].finish == TextFinish("eos_token", "a roses", 4, 3, None)


async def test_the_last_allowed_token_is_length_whatever_it_is(tokenizer: TextTokenizer) -> None:
    steps = await run(tokenizer, Scripted([*tokenizer.encode(" one"), END_ID]), max_new_tokens=2)
    assert steps[-1].finish == TextFinish("length", " one", 2, 2, None)
    steps = await run(tokenizer, Scripted(tokenizer.encode(" one two")), max_new_tokens=2, stop=[" two"])
    assert steps[-1].finish == TextFinish("length", " one two", 2, 2, None)


async def test_a_stop_string_over_two_tokens(tokenizer: TextTokenizer) -> None:
    engine = Scripted(tokenizer.encode(" one two three four"))
    steps = await run(tokenizer, engine, stop=["zero", "e two"])
    assert steps[-1].finish == TextFinish("stop_sequence", " one two", 2, 2, None)
    assert engine.closed_after == 2


async def test_a_stop_string_inside_a_token_cuts_it(tokenizer: TextTokenizer) -> None:
    steps = await run(tokenizer, Scripted(tokenizer.encode(" one three four")), stop=["thr"])
    assert [s.text for s in steps] == [" one", " thr"]
    assert steps[-1].finish == TextFinish("stop_sequence", " one thr", 2, 2, None)


async def test_the_original_rule_does_not_see_inside_a_token(tokenizer: TextTokenizer) -> None:
    steps = await run(
        tokenizer, Scripted(tokenizer.encode(" one three four")), stop=["thr", "four"], stop_rule="suffix"
    )
    assert steps[-1].finish == TextFinish("stop_sequence", " one three four", 3, 2, None)


async def test_prefill_comes_first(tokenizer: TextTokenizer) -> None:
    service = Generation(tokenizer, Scripted([5]))
    prompt = await service.encode(" one two three", truncate=2)
    async with aclosing(service.stream(prompt, Sampling(max_new_tokens=1, prompt_logprobs=True))) as steps:
        first = await anext(steps)
    assert isinstance(first, Prefill)
    assert [token.text for token in first.tokens] == [" two", " three"]
    assert isinstance(first.tokens[0], PromptToken)


async def test_leaving_cancels(tokenizer: TextTokenizer) -> None:
    engine = Scripted(tokenizer.encode(" one two three four"))
    async with aclosing(Generation(tokenizer, engine).stream((1,), Sampling(max_new_tokens=9))) as steps:
        await anext(steps)
        await anext(steps)
    assert engine.closed_after == 2


async def test_a_task_that_is_cancelled_cancels(tokenizer: TextTokenizer) -> None:
    engine = Scripted([5] * 1000)
    seen = asyncio.Event()

    async def consume() -> None:
        async for _ in Generation(tokenizer, engine).stream((1,), Sampling(max_new_tokens=2000)):
            seen.set()

    task = asyncio.create_task(consume())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.closed_after is not None
    assert engine.closed_after < 1000


async def test_an_engine_that_fails(tokenizer: TextTokenizer) -> None:
    with pytest.raises(GenerationFailed, match="out of luck"):
        await run(tokenizer, Scripted([5], "error"))
    with pytest.raises(GenerationFailed, match=r"ended the request \(cancelled\)"):
        await run(tokenizer, Scripted([5], "cancelled"))
    with pytest.raises(EngineGone, match="SIGKILL"):
        await run(tokenizer, Scripted([5], EngineGone("SIGKILL")))


letters = st.text(alphabet="ab\n", max_size=5)


@given(st.lists(letters, max_size=20), st.lists(letters, max_size=3))
def test_stop_strings_anywhere_against_looking_at_all_of_the_text(pieces: list[str], stops: list[str]) -> None:
    finder, text = StopStrings(stops, "anywhere"), ""
    for piece in pieces:
        ends = [end for stop in stops if stop for end in range(len(text) + 1, len(text + piece) + 1)
                if (text + piece)[:end].endswith(stop)]  # fmt: skip
        assert finder.cut(piece) == (min(ends) - len(text) if ends else None)
        text += piece
        if ends:
            return


@given(st.lists(letters, max_size=20), st.lists(letters, max_size=3))
def test_stop_strings_as_a_suffix_against_looking_at_all_of_the_text(pieces: list[str], stops: list[str]) -> None:
    finder, text = StopStrings(stops, "suffix"), ""
    for piece in pieces:
        text += piece
        found = any(text.endswith((stop, stop + "\n")) for stop in stops if stop) and bool(piece)
        assert finder.cut(piece) == (len(piece) if found else None)
        if found:
            return


@pytest.mark.parametrize("rule", ["anywhere", "suffix"])
def test_stop_strings_cost_their_neighbours_little(rule: StopRule) -> None:
    """However long, and however many: the servers' one loop looks for them. A regular expression of these takes seconds to compile."""
    before = time.thread_time()
    finder = StopStrings(["ab" * 1_000_000, *(f"{number:06}" for number in range(200_000))], rule)
    assert all(finder.cut(" some words") is None for _ in range(100))
    assert finder.cut("199999") == 6
    assert time.thread_time() - before < 2.5
