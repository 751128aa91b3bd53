"""Answers that keep to a grammar: the real engine process, and the vocabulary that it needs."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.engines.base import Finish, Grammar, Sampling, Token
from penstock.engines.client import EngineProcess
from penstock.engines.openvino_grammar import repeated, repeated_by
from penstock.engines.options import EngineOptions
from penstock.engines.tokenizer import TextTokenizer
from penstock.engines.vocabulary import VocabularyError, read_vocabulary


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[EngineProcess]:
    engine = await EngineProcess.start(EngineOptions(model=tiny_model, dtype="float32"), timeout_s=60)
    yield engine
    await engine.close()


async def generate(engine: EngineProcess, model: Path, grammar: Grammar | None) -> tuple[str, Finish]:
    tokenizer = TextTokenizer.load(model)
    sampling = Sampling(max_new_tokens=60, grammar=grammar)
    events = [event async for event in engine.generate(tokenizer.encode("count: one"), sampling)]
    assert isinstance(events[-1], Finish)
    tokens = [event.token for event in events if isinstance(event, Token)]
    return tokenizer.decode(tokens, skip_special=True), events[-1]


async def test_an_answer_keeps_to_its_grammar(engine: EngineProcess, tiny_model: Path) -> None:
    text, finish = await generate(engine, tiny_model, Grammar("regex", r"[a-c]{2} (yes|no)\d"))
    assert re.fullmatch(r"[a-c]{2} (yes|no)\d", text), text
    assert finish.reason == "eos_token"
    schema = {"type": "object", "properties": {"n": {"enum": ["one", "two"]}}, "required": ["n"]}
    text, _ = await generate(engine, tiny_model, Grammar("json_schema", json.dumps(schema)))
    assert json.loads(text)["n"] in {"one", "two"}


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (Grammar("regex", "((("), "Regex parsing error at position 4: The parenthesis is not closed."),
        (Grammar("regex", "a" * 16_385), "the regular expression has more than 16384 letters"),
        (Grammar("json_schema", '{"not":' * 700 + "{}" + "}" * 700), "the JSON schema is nested too deeply"),
        (Grammar("json_schema", '{"type": 5}'), "Type should be a string"),
        (Grammar("regex", "((a{1,99}){1,99}){1,99}"), "its repeats, written out, add more than 10000 letters and groups"),
        (
            Grammar("json_schema", '{"anyOf": [{"type": "string", "pattern": "(a{1,200}){1,200}"}]}'),
            "its repeats, written out, add more than 10000 letters and groups",
        ),
    ],
)  # fmt: skip
async def test_a_broken_grammar_is_refused_and_hurts_nobody(
    engine: EngineProcess, tiny_model: Path, grammar: Grammar, reason: str
) -> None:
    before = engine.pid
    _, finish = await generate(engine, tiny_model, grammar)
    assert (finish.reason, finish.error) == ("refused", reason)
    text, finish = await generate(engine, tiny_model, None)
    assert (text[:4], finish.reason) == (" two", "eos_token")
    assert engine.pid == before


async def test_a_model_without_an_end_keeps_to_no_grammar(endless_model: Path) -> None:
    engine = await EngineProcess.start(EngineOptions(model=endless_model, dtype="float32"), timeout_s=60)
    try:
        _, finish = await generate(engine, endless_model, Grammar("regex", "a"))
    finally:
        await engine.close()
    assert finish == Finish(finish.id, "refused", "the model has no end token, so no text of it is ever complete")


def test_the_bytes_of_a_byte_level_vocabulary(tiny_model: Path) -> None:
    tokenizer, vocabulary = TextTokenizer.load(tiny_model), read_vocabulary(tiny_model)
    text = "A line\n and 🙂 two"
    assert b"".join(vocabulary[number] for number in tokenizer.encode(text)) == text.encode()
    assert vocabulary[0] == b"", "special tokens add nothing"
    assert len(read_vocabulary(tiny_model, 5000)) == 5000


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"vocab": {"<s>": 0, "<0x0A>": 1, "▁so": 2, "é": 3}}, (b"", b"\n", b" so", "é".encode())),
        ({"vocab": [["<s>", 0.0], ["▁so", -1.5]]}, (b"", b" so")),
    ],
)
def test_the_bytes_of_a_sentence_piece_vocabulary(
    tmp_path: Path, model: dict[str, Any], expected: tuple[bytes, ...]
) -> None:
    write(tmp_path, model, {"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "ByteFallback"}]})
    assert read_vocabulary(tmp_path) == expected


def test_a_vocabulary_that_does_not_tell_its_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"vocab": {"a": 0}}, {"type": "WordPiece"})
    with pytest.raises(VocabularyError, match="decodes by WordPiece does not tell its bytes"):
        read_vocabulary(tmp_path)
    with pytest.raises(VocabularyError, match="can't be read: FileNotFoundError"):
        read_vocabulary(tmp_path / "gone")


def write(directory: Path, model: dict[str, Any], decoder: dict[str, Any]) -> None:
    added = [{"id": 0, "content": "<s>", "special": True}]
    document = {"model": model, "decoder": decoder, "added_tokens": added}
    (directory / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("regex", "count"),
    [("a[b]c?", 0), (r"\d{4}-\d{2}", 4), ("(ab){3}c", 4), ("((a{1,10}){2}[x\\]z]{0,5}){3,4}", 98), ("a{2,}(", 1)],
)
def test_how_much_the_repeats_of_a_regular_expression_add(regex: str, count: int) -> None:
    assert repeated(regex) == count


@pytest.mark.parametrize(
    ("schema", "count"),
    [
        ({"type": "string", "maxLength": 7}, 7),
        ({"items": {"type": "string", "pattern": "a{5}"}, "minItems": 2, "maxItems": 3}, 3 + 3 * 4),
        ({"anyOf": [{"minLength": 2}, {"properties": {"maxLength": {"const": "x"}}}]}, 2),
        (True, 0),
    ],
)
def test_how_much_the_bounds_of_a_schema_add(schema: Any, count: int) -> None:
    assert repeated_by(schema) == count
