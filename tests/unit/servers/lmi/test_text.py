"""Answers of a rolling batch whose engine stops talking in the middle."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.engines.base import Feature, Sampling
from penstock.engines.chattemplate import ChatTemplate
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import Generation, Prefill, TextToken
from penstock.servers.lmi import asking
from penstock.servers.lmi.errors import StreamBroken, Untranslatable
from penstock.servers.lmi.formatters import Asked, Json28, JsonLines28, Make
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.lmi.text import Pieces, RollingBatch
from tests.unit.servers.test_generation import Scripted


class Silent:
    """One token, and then nothing more; `closed` once the generation has been ended."""

    def __init__(self) -> None:
        self.closed = False

    async def steps(self) -> AsyncGenerator[Prefill | TextToken, None]:
        try:
            yield TextToken(1, "a", -0.5, False)
            await asyncio.Event().wait()
        finally:
            self.closed = True


async def answer(make: Make, engine: Silent) -> Any:
    settings = ModelSettings(name="m", directory=Path(), version=(0, 28), chunk_timeout_s=1)
    model = RollingBatch(settings, cast(Any, None), random.Random(1))
    return await model._answer(make, Asked(), engine.steps())


async def test_a_whole_answer_that_stops_is_an_error_and_not_half_an_answer() -> None:
    engine = Silent()
    with pytest.raises(Untranslatable, match="no token for 1 s"):
        await answer(Json28, engine)
    assert engine.closed


async def test_a_stream_that_stops_is_cut() -> None:
    engine = Silent()
    pieces: Pieces = (await answer(JsonLines28, engine)).body
    assert await anext(pieces) == b'{"token": {"id": 1, "text": "a", "log_prob": -0.5}}\n'
    with pytest.raises(StreamBroken, match="no token for 1 s"):
        await anext(pieces)
    await pieces.aclose()
    assert engine.closed


ABLE: tuple[Feature, ...] = ("prompt_logprobs", "typical_p", "top_n_tokens")


async def answered(
    tiny_model: Path,
    body: dict[str, Any],
    features: tuple[Feature, ...],
    version: tuple[int, int] = (0, 29),
    adapters: tuple[str, ...] = (),
    header: str = "",
) -> tuple[Sampling | None, Reply]:
    """What the engine was asked for a body, and the answer. `header` names an adapter."""
    tokenizer = TextTokenizer.load(tiny_model)
    engine = Scripted(tokenizer.encode(" one two"), features=features, adapters=adapters)
    settings = ModelSettings(name="m", directory=Path(), version=version, rolling_batch="auto")
    model = RollingBatch(settings, Generation(tokenizer, engine), random.Random(1))
    data = json.dumps({"inputs": " zero", **body}).encode()
    if "messages" in body or "prompt" in body:
        data = json.dumps(body).encode()
    headers = (("Content-Type", "application/json"), *(((asking.ADAPTER, header),) if header else ()))
    reply = await model.predict(Invocation(headers, (("data", data),)))
    return engine.asked, reply


@pytest.mark.parametrize(
    ("parameters", "version", "expected"),
    [
        ({"typical_p": 0.5}, (0, 23), {"typical_p": 0.5, "do_sample": True}),
        ({"typical_p": 0.5}, (0, 29), {"typical_p": 0.5}),
        ({"top_n_tokens": 3, "details": True}, (0, 29), {"top_n_tokens": 3}),
        ({"top_n_tokens": 3}, (0, 29), {"top_n_tokens": 0}),
        ({"top_n_tokens": 3, "details": True}, (0, 28), {"top_n_tokens": 0}),
        ({"top_n_tokens": 3, "details": True}, (0, 33), {"top_n_tokens": 0}),
        ({"decoder_input_details": True, "details": True}, (0, 29), {"prompt_logprobs": True}),
        ({}, (0, 23), {"logprobs": False}),
        ({}, (0, 26), {"logprobs": True}),
    ],
)
async def test_what_an_able_engine_is_told(
    tiny_model: Path, parameters: dict[str, Any], version: tuple[int, int], expected: dict[str, Any]
) -> None:
    parameters = {"max_new_tokens": 2, **parameters}
    sampling, reply = await answered(tiny_model, {"parameters": parameters}, ABLE, version)
    assert reply.status == 200
    assert {name: getattr(sampling, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"typical_p": 0.5}, "typical_p"),
        ({"decoder_input_details": True}, "decoder_input_details"),
        ({"top_n_tokens": 1, "details": True}, "top_n_tokens"),
    ],
)
async def test_what_the_engine_lacks_is_refused(tiny_model: Path, parameters: dict[str, Any], name: str) -> None:
    sampling, reply = await answered(tiny_model, {"parameters": parameters}, ())
    assert sampling is None
    assert reply.status == 424
    error = f"{name} is not supported by the scripted engine, which serves this model: leave it out"
    assert reply.body == f'{{"error":"{error}","code":424}}'.encode()


async def test_more_of_the_likeliest_tokens_than_the_original_gives_are_refused(tiny_model: Path) -> None:
    _, reply = await answered(tiny_model, {"parameters": {"top_n_tokens": 21, "details": True}}, ABLE)
    assert json.loads(cast(bytes, reply.body))["error"] == "top_n_tokens must be at most 20, not 21"


async def test_the_likeliest_tokens_of_an_answer(tiny_model: Path) -> None:
    parameters = {"max_new_tokens": 2, "details": True, "top_n_tokens": 2}
    _, reply = await answered(tiny_model, {"parameters": parameters}, ABLE)
    details = json.loads(cast(bytes, reply.body))["details"]
    assert [[top["text"] for top in step] for step in details["top_tokens"]] == [[" one", " two"], [" two", " three"]]


@pytest.mark.parametrize(("more", "told"), [({}, False), ({"logprobs": True}, True)])
async def test_a_chat_asks_for_log_probabilities_only_where_it_tells_them(
    tiny_model: Path, more: dict[str, Any], told: bool
) -> None:
    body = {"messages": [{"role": "user", "content": "zero"}], "max_tokens": 2, **more}
    sampling, reply = await answered(tiny_model, body, (), (0, 33))
    assert reply.status == 200
    assert sampling is not None
    assert sampling.logprobs is told


@pytest.mark.parametrize(
    ("version", "features", "texts"),
    [((0, 33), ABLE, [" one", " two"]), ((0, 33), (), [" one"]), ((0, 29), ABLE, [" one"])],
)
async def test_top_logprobs_of_a_chat_are_as_many_as_the_engine_tells(
    tiny_model: Path, version: tuple[int, int], features: tuple[Feature, ...], texts: list[str]
) -> None:
    chat = {"messages": [{"role": "user", "content": "count"}], "logprobs": True, "top_logprobs": 2, "max_tokens": 2}
    _, reply = await answered(tiny_model, chat, features, version)
    first = json.loads(cast(bytes, reply.body))["choices"][0]["logprobs"]["content"][0]
    assert [top["token"] for top in first["top_logprobs"]] == texts


TURN = [{"role": "user", "content": "one"}]
ECHO = "{{ messages[-1]['content'] }}"
BOTH = ("sql", "chat")


@pytest.mark.parametrize(
    ("body", "version", "header", "adapter"),
    [
        ({}, (0, 36), "", ""),
        ({"adapters": "sql"}, (0, 27), "", "sql"),
        ({"adapters": ["chat"]}, (0, 29), "", "chat"),
        ({"adapters": "sql"}, (0, 36), "chat", "chat"),
        ({"adapters": "sql"}, (0, 26), "", ""),
        ({"prompt": "one", "model": "sql"}, (0, 36), "", "sql"),
        ({"prompt": "one", "model": "sql"}, (0, 36), "chat", "chat"),
        ({"prompt": "one", "model": "lmi"}, (0, 36), "", ""),
        ({"prompt": "one", "model": "sql"}, (0, 33), "", ""),
    ],
)
async def test_which_adapter_answers(
    tiny_model: Path, body: dict[str, Any], version: tuple[int, int], header: str, adapter: str
) -> None:
    body = {"parameters": {"max_new_tokens": 2}, "max_tokens": 2, **body}
    sampling, reply = await answered(tiny_model, body, (), version, BOTH, header)
    assert reply.status == 200, reply.body
    assert sampling is not None
    assert sampling.adapter == adapter


@pytest.mark.parametrize(
    ("version", "known", "error"),
    [
        ((0, 29), BOTH, "Adapter mine is not registered"),
        ((0, 33), (), "Adapter mine is not registered"),
        ((0, 36), BOTH, "LoRA adapter mine not found in registry. Available adapters: ['sql', 'chat']"),
        ((0, 36), (), "LoRA adapter mine not found in registry. Available adapters: []"),
    ],
)
async def test_an_adapter_that_is_not_there_is_told_in_the_originals_words(
    tiny_model: Path, version: tuple[int, int], known: tuple[str, ...], error: str
) -> None:
    sampling, reply = await answered(tiny_model, {}, (), version, known, "mine")
    assert sampling is None
    assert reply.status == 424
    prefix = "Input parsing failed: " if version >= (0, 34) else ""
    assert json.loads(cast(bytes, reply.body)) == {"code": 424, "error": prefix + error}


async def test_a_chats_model_may_be_an_adapter(tiny_model: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_model)
    engine = Scripted(tokenizer.encode(" one two"), adapters=BOTH)
    settings = ModelSettings(name="m", directory=Path(), version=(0, 36), rolling_batch="auto")
    template = ChatTemplate(ECHO, {})
    model = RollingBatch(settings, Generation(tokenizer, engine), random.Random(1), template=template)
    for name, adapter in (("chat", "chat"), ("gpt", "")):
        data = json.dumps({"messages": TURN, "model": name, "max_tokens": 2}).encode()
        reply = await model.predict(Invocation((("Content-Type", "application/json"),), (("data", data),)))
        assert json.loads(cast(bytes, reply.body))["model"] == name
        assert engine.asked is not None
        assert engine.asked.adapter == adapter


async def told(tiny_model: Path, data: bytes, version: tuple[int, int], **headers: str) -> tuple[int, dict[str, Any]]:
    tokenizer = TextTokenizer.load(tiny_model)
    settings = ModelSettings(name="m", directory=Path(), version=version, rolling_batch="auto")
    engine = Scripted(tokenizer.encode(" one two"))
    model = RollingBatch(settings, Generation(tokenizer, engine), random.Random(1), template=ChatTemplate(ECHO, {}))
    properties = (("Content-Type", "application/json"), *headers.items())
    reply = await model.predict(Invocation(properties, (("data", data),)))
    return reply.status, json.loads(cast(bytes, reply.body))


@pytest.mark.parametrize(
    ("data", "old", "new"),
    [
        (b"{", "Expecting property name", "Input parsing failed: Expecting property name"),
        (b'{"input": "a"}', "inputs must be a string", "Input parsing failed: invalid payload. must contain prompt, inputs, or messages"),
        (b'{"inputs": 5}', "inputs must be a string", "Input parsing failed: inputs must be a string"),
        (b'{"inputs": "a", "parameters": {"top_p": 7}}', "top_p is out of range: 7", "Input parsing failed: top_p is out of range: 7"),
        (b'{"messages": []}', "messages must be a list", "Input parsing failed: messages must be a list"),
        # Read, and then found to be too much: the engine's affair.
        (b'{"inputs": "' + b" one" * 200 + b'"}', "inputs has 200 tokens", "inputs has 200 tokens"),
    ],
)  # fmt: skip
async def test_how_a_refusal_begins(tiny_model: Path, data: bytes, old: str, new: str) -> None:
    for version, text in (((0, 32), old), ((0, 33), new), ((0, 36), new)):
        status, body = await told(tiny_model, data, version)
        assert (status, list(body), body["code"]) == (424, ["error", "code"], 424)
        assert body["error"].startswith(text), (version, body)


async def test_a_session_that_is_none_is_refused_like_what_can_not_be_read(tiny_model: Path) -> None:
    status, body = await told(tiny_model, b'{"inputs": "a"}', (0, 36), **{"X-Amzn-SageMaker-Session-Id": "x"})
    header = "X-Amzn-SageMaker-Session-Id header"
    assert (status, body["error"]) == (
        424,
        f"Input parsing failed: invalid payload. stateful sessions not enabled, {header} not supported",
    )


async def test_from_033_a_prompt_comes_before_inputs_and_those_before_messages(tiny_model: Path) -> None:
    everything = {
        "prompt": "one",
        "inputs": "one",
        "messages": TURN,
        "parameters": {"max_new_tokens": 2},
        "max_tokens": 2,
    }
    _, body = await told(tiny_model, json.dumps(everything).encode(), (0, 33))
    assert body["object"] == "text_completion"
    del everything["prompt"]
    for version in ((0, 28), (0, 33)):
        _, body = await told(tiny_model, json.dumps(everything).encode(), version)
        assert list(body) == ["generated_text"]
    _, body = await told(tiny_model, json.dumps({"prompt": "one", "messages": TURN, "max_tokens": 2}).encode(), (0, 28))
    assert body["object"] == "chat.completion"
