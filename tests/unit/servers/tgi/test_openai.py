"""OpenAI's `model` as the name of an adapter, over an engine that remembers what it was asked."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import Generation
from penstock.servers.tgi import settings as launcher
from penstock.servers.tgi.chat_schema import CompletionRequest
from penstock.servers.tgi.openai import OpenAi
from penstock.servers.tgi.service import Service
from tests.unit.servers.test_generation import Scripted


@pytest.mark.parametrize(
    ("model", "version", "adapter"),
    [
        ("sql", "2.2.0", "sql"),
        ("sql", "3.3.7", "sql"),
        ("sql", "2.1.0", ""),
        ("tgi", "3.3.7", ""),
        ("gpt", "3.3.7", ""),
        (None, "3.3.7", ""),
    ],
)
async def test_which_adapter_answers(tiny_model: Path, model: str | None, version: str, adapter: str) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    engine = Scripted(tokenizer.encode(" one two"), adapters=("sql",))
    settings = launcher.read({"HF_MODEL_ID": "/m"}, version).within(100)
    openai = OpenAi(Service(Generation(tokenizer, engine), settings, random.Random(1)), lambda: 0.0)
    given = CompletionRequest(model=model, prompts=(" zero",), max_tokens=2)
    answer = await openai.complete(given)
    assert json.loads(answer.json)["choices"][0]["text"] == " one two"
    assert engine.asked is not None
    assert engine.asked.adapter == adapter
