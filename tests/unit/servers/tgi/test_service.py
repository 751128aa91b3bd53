"""Streams over an engine that says what the test wrote, through the whole application."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.engines.base import Finish, PromptLogprobs, Sampling, Token
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.generation import Generation
from penstock.servers.tgi.app import App
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.schema import Parameters, Request
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.settings import read
from tests.unit.servers.test_generation import Scripted
from tests.waiting import until_async

WORD = 5


class Broken(Scripted):
    """It stops without an end, which no engine may."""

    async def generate(
        self, prompt: tuple[int, ...], sampling: Sampling
    ) -> AsyncGenerator[PromptLogprobs | Token | Finish, None]:
        yield Token(1, WORD, -0.5)


class Slow(Scripted):
    """Between two tokens it waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__([])
        self.go_on = asyncio.Event()

    async def generate(
        self, prompt: tuple[int, ...], sampling: Sampling
    ) -> AsyncGenerator[PromptLogprobs | Token | Finish, None]:
        yield Token(1, WORD, -0.5)
        await self.go_on.wait()
        yield Token(1, WORD, -0.5)


def service(tiny_model: Path, engine: Scripted, version: str) -> Service:
    settings = read({"HF_MODEL_ID": str(tiny_model)}, version).within(100)
    return Service(Generation(TextTokenizer.load(tiny_model), engine), settings, random.Random(1))


@pytest.mark.parametrize(
    ("version", "last"),
    [
        ("1.0.3", b'data:{"error":"Incomplete generation","error_type":"incomplete_generation"}\n\n'),
        ("3.3.7", b'data: {"error":"Incomplete generation stream","error_type":"incomplete_generation_stream"}\n\n'),
    ],
)
async def test_a_stream_without_an_end_is_an_error(tiny_model: Path, version: str, last: bytes) -> None:
    it = service(tiny_model, Broken([]), version)
    request = Request(inputs=" one", parameters=Parameters(max_new_tokens=2))
    assert [event async for event in it.events(request)][-1] == last
    page = it.metrics.render().decode()
    assert 'tgi_request_failure{err="incomplete"} 1' in page
    assert "tgi_request_success" not in page


@pytest.mark.parametrize(("version", "comment"), [("1.0.3", b":\n\n"), ("3.3.7", b": \n\n")])
async def test_a_silent_stream_sends_comments(tiny_model: Path, version: str, comment: bytes) -> None:
    engine = Slow()
    sent: list[bytes] = []

    async def start() -> Service:
        return service(tiny_model, engine, version)

    async def send(message: Any) -> None:
        if body := message.get("body"):
            sent.append(body)
            if sent.count(comment) == 2:
                engine.go_on.set()

    app = App(start, keep_alive_s=0.01)
    stop = asyncio.Event()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, _starting(stop), _nothing))
    await until_async(lambda: app._service is not None, what="the server has begun")
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/generate_stream",
        "headers": [(b"content-type", b"application/json")],
    }
    body = b'{"inputs":" one","parameters":{"max_new_tokens":2}}'
    async with asyncio.timeout(30):
        await app(scope, _asking(body), send)
    stop.set()
    await lifespan
    tokens = [part for part in sent if part != comment]
    assert [part.startswith(b"data:") for part in tokens] == [True, True]
    assert sent[0] == tokens[0]
    assert sent[-1] == tokens[1]
    assert sent.count(comment) >= 2


async def _nothing(message: Any) -> None: ...


def _starting(stop: asyncio.Event) -> Any:
    first = True

    async def receive() -> Any:
        nonlocal first
        if not first:
            await stop.wait()
        first = False
        return {"type": "lifespan"}

    return receive


def _asking(body: bytes) -> Any:
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        return None

    return receive


class Unequal(Scripted):
    """Each answer is as likely as the next of a list."""

    def __init__(self, logprobs: list[float]) -> None:
        super().__init__([])
        self.logprobs = logprobs

    async def generate(
        self, prompt: tuple[int, ...], sampling: Sampling
    ) -> AsyncGenerator[PromptLogprobs | Token | Finish, None]:
        yield Token(1, WORD, self.logprobs.pop(0))
        yield Finish(1, "length")


async def test_the_likeliest_of_several_comes_first_and_the_others_as_they_were_made(tiny_model: Path) -> None:
    it = service(tiny_model, Unequal([-0.5, -0.125, -0.25, -0.125]), "1.0.3")
    it.settings = replace(it.settings, max_best_of=4)
    parameters = Parameters(max_new_tokens=1, best_of=4, do_sample=True)
    whole = await it.whole(Request(inputs=" one", parameters=parameters))
    assert whole.best.mean_logprob == -0.125
    assert [other.mean_logprob for other in whole.others] == [-0.5, -0.25, -0.125]


async def test_what_a_refused_request_counts_for(tiny_model: Path) -> None:
    it = service(tiny_model, Unequal([-0.5]), "3.3.7")
    with pytest.raises(TgiError):
        await it.whole(Request(inputs="", parameters=Parameters(max_new_tokens=1)))
    await it.whole(Request(inputs=" one", parameters=Parameters(max_new_tokens=1)))
    page = it.metrics.render().decode()
    assert "tgi_request_count 2\n" in page
    assert 'tgi_request_failure{err="validation"} 1\n' in page
    for name in ("duration", "validation_duration", "queue_duration", "inference_duration", "input_length"):
        assert f"tgi_request_{name}_count 1.0\n" in page, name
