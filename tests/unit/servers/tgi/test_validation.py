"""The table of checks (order and texts), row by row."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.engines.base import Feature
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import Generation
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.schema import Parameters, Request
from penstock.servers.tgi.settings import Settings
from penstock.servers.tgi.validation import check_before_permit, validate
from tests.unit.servers.test_generation import Scripted

SETTINGS = Settings(level=Level.parse("1.0.3"), model_id="/m", max_input_length=10, max_total_tokens=20)


@pytest.fixture(scope="module")
def generation(tiny_model: Path) -> Generation:
    return Generation(TextTokenizer.load(tiny_model), Scripted([]))


def request_of(inputs: str = " one two three", **parameters: Any) -> Request:
    return Request(inputs=inputs, parameters=Parameters(**{"max_new_tokens": 5, **parameters}))


@pytest.mark.parametrize(
    ("stream", "parameters", "text"),
    [
        (True, {"best_of": 2}, "`best_of` != 1 is not supported when streaming tokens"),
        (True, {"best_of": 0}, "`best_of` != 1 is not supported when streaming tokens"),
        (
            True,
            {"decoder_input_details": True},
            "`decoder_input_details` == true is not supported when streaming tokens",
        ),
        (False, {"best_of": 3}, "`best_of` must be > 0 and <= 2. Given: 3"),
    ],
)
def test_row_0(stream: bool, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check_before_permit(request_of(**parameters), SETTINGS, stream=stream)
    assert caught.value.text == "Input validation error: " + text
    assert (caught.value.status, caught.value.kind) == (422, "validation")


def test_row_0_of_an_endpoint_without_best_of() -> None:
    with pytest.raises(ValidationError, match="`best_of` != 1 is not allowed for this endpoint"):
        check_before_permit(request_of(best_of=2), replace(SETTINGS, max_best_of=1), stream=False)


def test_permits() -> None:
    assert check_before_permit(request_of(best_of=2), SETTINGS, stream=False) == 2
    assert check_before_permit(request_of(best_of=0), SETTINGS, stream=False) == 1
    assert check_before_permit(request_of(), SETTINGS, stream=True) == 1


ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("1", {"best_of": 2}, "you must use sampling when `best_of` is > 1"),
    ("2", {"temperature": 0.0}, "`temperature` must be strictly positive"),
    ("3", {"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
    ("3b", {"frequency_penalty": -2.5}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
    ("4", {"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
    ("5", {"typical_p": 1.0}, "`typical_p` must be > 0.0 and < 1.0"),
    ("6", {"top_k": 0}, "`top_k` must be strictly positive"),
    ("7", {"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
    ("8", {"stop": ("a", "b", "c", "d", "e")}, "`stop` supports up to 4 stop sequences. Given: 5"),
    ("9", {"seed": 1, "best_of": 2, "do_sample": True}, "`seed` must not be set when `best_of` > 1"),
    ("10", {"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
    ("11", {"inputs": ""}, "`inputs` cannot be empty"),
    ("12", {"truncate": 11}, "`truncate` must be strictly positive and less than 10. Given: 11"),
    (
        "14",
        {"inputs": " one" * 11, "max_new_tokens": 10},
        "`inputs` tokens + `max_new_tokens` must be <= 20. Given: 11 `inputs` tokens and 10 `max_new_tokens`",
    ),
    ("15", {"inputs": " one" * 11}, "`inputs` must have less than 10 tokens. Given: 11"),
    ("engine", {"typical_p": 0.5}, "`typical_p` is not supported by the scripted engine"),
    ("engine", {"watermark": True}, "`watermark` is not supported by the scripted engine"),
    ("engine", {"top_n_tokens": 1}, "`top_n_tokens` is not supported by the scripted engine"),
    ("engine", {"adapter_id": "mine"}, "`adapter_id` must be one of LORA_ADAPTERS, which names none. Given: mine"),
]


@pytest.mark.parametrize(("row", "given", "text"), ROWS)
async def test_each_row(generation: Generation, row: str, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await validate(request_of(**given), SETTINGS, generation, random.Random(1))
    assert caught.value.text == "Input validation error: " + text


@pytest.mark.parametrize("at", range(len(ROWS) - 1))
async def test_the_first_failing_row_wins(generation: Generation, at: int) -> None:
    """Each row together with every later one that does not undo it."""
    _, given, text = ROWS[at]
    merged: dict[str, Any] = {}
    for _, later, _ in reversed(ROWS[at + 1 :]):
        merged.update(later)
    if at > 0:  # row 1 is the only one that wants no sampling parameter
        merged.update(given)
        with pytest.raises(ValidationError) as caught:
            await validate(request_of(**merged), SETTINGS, generation, random.Random(1))
        assert caught.value.text == "Input validation error: " + text


async def test_what_is_exactly_allowed(generation: Generation) -> None:
    request = request_of(" one" * 10, max_new_tokens=10, truncate=10, stop=("a", "b", "c", "d"), best_of=1, seed=0)
    valid = await validate(request, SETTINGS, generation, random.Random(1))
    assert (len(valid.prompt), valid.stop, valid.best_of) == (10, ("a", "b", "c", "d"), 1)


async def test_truncate_keeps_the_last_tokens(generation: Generation) -> None:
    valid = await validate(request_of(" one two three", truncate=2), SETTINGS, generation, random.Random(1))
    assert generation.tokenizer.decode(valid.prompt) == " two three"


async def test_without_max_new_tokens_there_is_as_much_as_fits(generation: Generation) -> None:
    valid = await validate(request_of(max_new_tokens=None), SETTINGS, generation, random.Random(1))
    assert valid.sampling.max_new_tokens == 17


@pytest.mark.parametrize(
    ("given", "sample"),
    [
        ({}, False),
        ({"temperature": 1.0}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.5}, True),
        ({"top_k": 1}, True),
        ({"top_p": 0.9}, True),
    ],
)
async def test_when_sampling_is_on(generation: Generation, given: dict[str, Any], sample: bool) -> None:
    valid = await validate(request_of(**given), SETTINGS, generation, random.Random(1))
    assert valid.sampling.do_sample is sample


async def test_a_seed_is_drawn_where_none_is_given(generation: Generation) -> None:
    valid = await validate(request_of(do_sample=True), SETTINGS, generation, random.Random(1))
    assert valid.sampling.seed == random.Random(1).getrandbits(64)
    assert (await validate(request_of(seed=0), SETTINGS, generation, random.Random(1))).sampling.seed == 0


ABLE: tuple[Feature, ...] = ("prompt_logprobs", "typical_p", "watermark", "top_n_tokens")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"typical_p": 0.5}, {"typical_p": 0.5, "do_sample": True}),
        ({"watermark": True}, {"watermark": True, "do_sample": False}),
        ({"top_n_tokens": 5}, {"top_n_tokens": 5}),
        ({"top_n_tokens": 0}, {"top_n_tokens": 0}),
        ({"adapter_id": "mine"}, {"adapter": "mine"}),
        ({"adapter_id": ""}, {"adapter": ""}),
        ({"decoder_input_details": True}, {"prompt_logprobs": True}),
        ({}, {"typical_p": 1.0, "watermark": False, "top_n_tokens": 0, "adapter": "", "prompt_logprobs": False}),
    ],
)
async def test_what_an_able_engine_is_told(
    generation: Generation, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    able = Generation(generation.tokenizer, Scripted([], features=ABLE, adapters=("mine", "yours")))
    valid = await validate(request_of(**given), SETTINGS, able, random.Random(1))
    assert {name: getattr(valid.sampling, name) for name in expected} == expected


async def test_an_adapter_that_is_not_there_is_refused(generation: Generation) -> None:
    able = Generation(generation.tokenizer, Scripted([], features=ABLE, adapters=("mine", "yours")))
    with pytest.raises(ValidationError) as caught:
        await validate(request_of(adapter_id="ours"), SETTINGS, able, random.Random(1))
    text = "`adapter_id` must be one of LORA_ADAPTERS, which names mine, yours. Given: ours"
    assert caught.value.text == "Input validation error: " + text


async def test_prompt_logprobs_are_refused_where_they_would_be_given_and_the_engine_has_none(
    generation: Generation,
) -> None:
    request = request_of(decoder_input_details=True)
    with pytest.raises(ValidationError, match="`decoder_input_details` is not supported by the scripted engine"):
        await validate(request, SETTINGS, generation, random.Random(1))
    await validate(request, replace(SETTINGS, prefill_logprobs=False), generation, random.Random(1))
    await validate(request, replace(SETTINGS, encoder_decoder=True), generation, random.Random(1))


@pytest.mark.parametrize(
    ("version", "asked", "outcome"),
    [
        ("2.4.1", 1024, "Given: 3 `inputs` tokens and 1024 `max_new_tokens`"),
        ("3.0.0", 1023, 1023),
        ("3.0.0", 2000, 1027),
        ("3.0.0", None, 1027),
    ],
)
async def test_what_is_more_than_fits(
    generation: Generation, version: str, asked: int | None, outcome: int | str
) -> None:
    settings = replace(
        SETTINGS, level=Level.parse(version), max_input_length=100, max_total_tokens=1030 if version > "3" else 1026
    )
    given = request_of(" one two three", max_new_tokens=asked)
    if isinstance(outcome, int):
        valid = await validate(given, settings, generation, random.Random(1))
        assert valid.sampling.max_new_tokens == outcome
    else:
        with pytest.raises(ValidationError) as caught:
            await validate(given, settings, generation, random.Random(1))
        assert caught.value.text.endswith(outcome)


async def test_a_piece_that_does_not_fit_is_what_the_refusal_tells_of(generation: Generation) -> None:
    settings = replace(SETTINGS, level=Level.parse("3.3.7"), max_input_length=100, max_total_tokens=1026)
    with pytest.raises(ValidationError) as caught:
        await validate(request_of(" one two three", max_new_tokens=9000), settings, generation, random.Random(1))
    assert caught.value.text.endswith("must be <= 1026. Given: 3 `inputs` tokens and 1024 `max_new_tokens`")
