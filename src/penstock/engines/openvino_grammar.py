"""Grammars for OpenVINO GenAI: JSON schemas and regular expressions that the tokens of an answer keep to.

Owns the vocabulary in the form in which the library wants it, and trying a grammar before it meets other requests: the library compiles it
inside the step of all, and a broken one would end that step. It runs only in an engine process.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from openvino import opset13 as op

from penstock.engines.base import Grammar
from penstock.engines.process import last_line
from penstock.engines.vocabulary import read_vocabulary

MAX_REPEATED = 10_000
"""So many letters and groups may repeats such as `{2,50}` add when they are written out: more takes the library seconds."""
MAX_DEPTH = 100
MAX_LETTERS = 16_384
"""The longest regular expression, for the same reason."""
_SOURCE = re.compile(r"^\[[\d:]+\] \S+:\d+: (?:Check failed: .* is false: )?")
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")


class GrammarError(Exception):
    """A grammar that can't be kept to; the message is one line."""


class Grammars:
    """The grammars of one model. `tokenizer` goes to the model's pipeline."""

    def __init__(self, model: Path, vocab_size: int, eos: int) -> None:
        """Raises VocabularyError when the tokenizer does not tell its bytes."""
        self._vocabulary = read_vocabulary(model, vocab_size)
        self._eos = eos
        with TemporaryDirectory(prefix="penstock-vocabulary-") as name:
            self.save_tokenizer(Path(name))
            self.tokenizer = genai.Tokenizer(name)
        self._trial: Any = None

    def save_tokenizer(self, directory: Path) -> None:
        """Write a tokenizer of nothing but a vocabulary: the library reads it from the constants of a node named VocabDecoder."""
        openvino.save_model(_vocabulary_model(self._vocabulary), directory / "openvino_detokenizer.xml")
        save_no_tokenizer(directory, self._eos)

    def config(self, grammar: Grammar) -> Any:
        """The library's form of a grammar, once it was compiled. Raises GrammarError."""
        if grammar.kind == "regex" and len(grammar.text) > MAX_LETTERS:
            raise GrammarError(f"the regular expression has more than {MAX_LETTERS} letters")
        try:
            added = repeated(grammar.text) if grammar.kind == "regex" else repeated_by(json.loads(grammar.text))
        except RecursionError:
            raise GrammarError("the JSON schema is nested too deeply") from None
        if added > MAX_REPEATED:
            raise GrammarError(f"its repeats, written out, add more than {MAX_REPEATED} letters and groups")
        config = genai.StructuredOutputConfig(**{grammar.kind: grammar.text})
        if self._trial is None:
            self._trial = _trial(self.tokenizer, len(self._vocabulary))
        generation = genai.GenerationConfig()
        generation.max_new_tokens = 1
        generation.set_eos_token_id(self._eos)
        generation.structured_output_config = config
        try:
            # The tokenizer keeps what it compiles, so the model's own pipeline finds it done.
            self._trial.generate(openvino.Tensor(np.array([[0]], dtype=np.int64)), generation)
        except RuntimeError as error:
            raise GrammarError(_SOURCE.sub("", last_line(error))) from error
        return config


def _vocabulary_model(vocabulary: tuple[bytes, ...]) -> Any:
    ends = np.cumsum([len(piece) for piece in vocabulary]).astype(np.int32)
    letters = np.frombuffer(b"".join(vocabulary), dtype=np.uint8).astype(np.int32)
    ids = op.parameter([-1, -1], np.int64, name="ids")
    flat = op.convert(op.reshape(ids, np.array([-1]), False), "i32")
    begins = np.concatenate([np.zeros(1, dtype=np.int32), ends[:-1]])
    node = op.concat([flat, op.constant(begins), op.constant(ends), op.constant(letters)], 0)
    node.set_friendly_name("VocabDecoder")
    return openvino.Model([op.result(node)], [ids])


def save_no_tokenizer(directory: Path, eos: int) -> None:
    """Write what the library takes for a tokenizer, which makes one token of any text: with a draft model it insists on encoding one."""
    texts = op.parameter([-1], openvino.Type.string, name="string_input")
    shape = op.concat([op.shape_of(texts), op.constant(np.array([1]))], 0)
    outputs = {"input_ids": op.broadcast(op.constant(np.int64(0)), shape)}
    outputs["attention_mask"] = op.broadcast(op.constant(np.int64(1)), shape)
    for name, node in outputs.items():
        node.output(0).set_names({name})
    model = openvino.Model([op.result(node) for node in outputs.values()], [texts])
    openvino.save_model(model, directory / "openvino_tokenizer.xml")
    (directory / "config.json").write_text(json.dumps({"eos_token_id": eos, "pad_token_id": eos}))
    # Names that nobody uses, so that the library does not try to decode the ids.
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": "</s>"}))


def _trial(tokenizer: Any, vocab_size: int) -> Any:
    """A pipeline over a model that likes all tokens alike, and costs nothing."""
    kinds = {"input_ids": 2, "attention_mask": 2, "position_ids": 2, "beam_idx": 1}
    inputs = {
        name: op.parameter([-1] * rank, np.int32 if name == "beam_idx" else np.int64, name=name)
        for name, rank in kinds.items()
    }
    for name, node in inputs.items():
        node.output(0).set_names({name})
    shape = op.concat([op.shape_of(inputs["input_ids"]), np.array([vocab_size])], 0)
    logits = op.broadcast(op.constant(np.float32(0)), shape)
    logits.output(0).set_names({"logits"})
    with TemporaryDirectory(prefix="penstock-trial-") as name:
        model = openvino.Model([op.result(logits)], list(inputs.values()))
        openvino.save_model(model, Path(name) / "openvino_model.xml")
        (Path(name) / "config.json").write_text("{}")
        return genai.LLMPipeline(name, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")


def repeated_by(schema: Any, depth: int = 0) -> int:
    """About what the bounds and patterns of a JSON schema add: lengths count letters, and an array's bound counts its items again.

    Raises RecursionError beyond MAX_DEPTH: the library's time grows with its cube.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(schema, list):
        return sum(repeated_by(part, depth + 1) for part in schema)
    if not isinstance(schema, dict):
        return 0
    pattern = schema.get("pattern")
    own = repeated(pattern) if isinstance(pattern, str) else _bound(schema, "minLength", "maxLength")
    items = _bound(schema, "minItems", "maxItems")
    return own + items + max(items, 1) * sum(repeated_by(part, depth + 1) for part in schema.values())


def _bound(schema: dict[str, Any], *names: str) -> int:
    return max((value for name in names if isinstance(value := schema.get(name), int)), default=0)


def repeated(regex: str) -> int:
    """About how many letters and groups a regular expression has more once its `{m,n}` are written out."""
    totals, last, at, letters = [0], 0, 0, 0
    while at < len(regex):
        if repeat := _REPEAT.match(regex, at):
            times = max(int(repeat[1]), int(repeat[2] or 0), 1)
            totals[-1] += last * (times - 1)
            last, at = last * times, repeat.end()
            continue
        letter = regex[at]
        at += 2 if letter == "\\" else 1
        if letter == "(":
            totals.append(0)
        elif letter == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] += last
        elif letter not in "?*+|":
            at = _class_end(regex, at) if letter == "[" else at
            last = 1
            totals[-1] += 1
            letters += 1
    return sum(totals) - letters


def _class_end(regex: str, at: int) -> int:
    while at < len(regex) and regex[at] != "]":
        at += 2 if regex[at] == "\\" else 1
    return at + 1
