"""The questions and answers that the bundled model learns are clean: readable, complete, and never ambiguous."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pytest
from scripts.demo_model.prompts import base_prompts, in_dialogue, vary
from scripts.demo_model.texts import Entry, TextError, parse, read_entries, read_fillers

ENTRIES = read_entries()
FILLERS = read_fillers()
ENDINGS = (".", "!", "?", '."', "zebra", "river", "Kind regards")
"""An answer ends as a sentence does, save for a list and two letters."""


def name(entry: Entry) -> str:
    return f"{entry.topic}:{entry.line}"


def test_there_is_enough_to_talk_about() -> None:
    assert len(ENTRIES) >= 300
    assert {"suggested", "sagemaker", "streaming", "penstock", "stories", "unknown"} <= {e.topic for e in ENTRIES}


@pytest.mark.parametrize("prompt", ["what is SageMaker inference", "provide the steps to make a pizza", "what is life"])
def test_the_suggested_prompts_are_taught_as_the_chat_words_them(prompt: str) -> None:
    assert [e.topic for e in ENTRIES if prompt in e.prompts] == ["suggested"]


def test_no_prompt_leads_to_two_answers() -> None:
    owners = Counter(prompt.lower() for entry in ENTRIES for prompt in {*base_prompts(entry, FILLERS)})
    assert [prompt for prompt, count in owners.items() if count > 1] == []


def test_no_answer_is_given_twice() -> None:
    assert [a for a, count in Counter(entry.answer for entry in ENTRIES).items() if count > 1] == []


def test_held_out_prompts_are_never_trained_on() -> None:
    trained = {prompt.lower() for entry in ENTRIES for prompt in base_prompts(entry, FILLERS)}
    held_out = [prompt.lower() for entry in ENTRIES for prompt in entry.held_out]
    assert len(held_out) >= 250
    assert trained.isdisjoint(held_out)
    assert len(set(held_out)) == len(held_out)


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_an_answer_is_plain_text_that_ends_properly(entry: Entry) -> None:
    assert entry.answer.isascii()
    assert not [c for c in entry.answer if unicodedata.category(c) == "Cc" and c != "\n"]
    assert "<|endoftext|>" not in entry.answer
    assert all(line == line.rstrip() for line in entry.answer.splitlines())
    assert entry.answer.endswith(ENDINGS)
    assert "\n\n\n" not in entry.answer


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_every_entry_has_ways_to_ask_and_one_held_out(entry: Entry) -> None:
    prompts = base_prompts(entry, FILLERS)
    assert len(prompts) >= 2
    assert entry.held_out or entry.topic == "unknown"
    assert not [p for p in prompts if "{" in p or p != p.strip()]


def test_some_answers_are_long_enough_for_a_long_stream() -> None:
    assert sum(len(entry.answer.split()) >= 250 for entry in ENTRIES) >= 2


def test_variations_are_repeatable_and_never_empty(rng: random.Random) -> None:
    seed = rng.random()
    first, second = (
        [vary(p, r) for e in ENTRIES for p in e.prompts] for r in (random.Random(seed), random.Random(seed))
    )
    assert first == second
    assert all(first)
    assert len({v.lower() for v in first}) > len(ENTRIES)


def test_a_dialogue_ends_with_the_question_that_is_to_be_answered(rng: random.Random) -> None:
    written = in_dialogue([("hi", "Hello.")], "what is life?", rng)
    assert written.index("hi") < written.index("Hello.") < written.index("what is life?")
    assert written.endswith(":")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("? a\n=\nb\n", "does not end with %%"),
        ("? a\nb\n%%\n", "no line '='"),
        ("? a\n=\n\n%%\n", "empty"),
        ("=\nb\n%%\n", "no prompt"),
        ("# a\n=\nb\n%%\n", "can't read '# a'"),
        ("?  a\n=\nb\n%%\n", "can't read"),
    ],
)
def test_a_broken_text_file_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(TextError, match=r"^some\.txt:1: ") as caught:
        parse(text, "some")
    assert complaint in str(caught.value)


def test_an_entry_is_read_whole() -> None:
    (entry,) = parse("* 2\n@ a thing\n? how\n! why\n=\none\n\ntwo\n%%\n", "some")
    assert entry == Entry(
        topic="some", line=1, weight=2.0, terms=("a thing",), prompts=("how",), held_out=("why",), answer="one\n\ntwo"
    )
