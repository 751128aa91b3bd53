"""Text generation without rolling batch: whole answers, and lines of tokens.

Owns those two shapes of 0.23's default handlers. It must never share a request's state with another's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from penstock.engines.base import EngineError, EngineFull, Sampling
from penstock.servers.generation import Prefill, TextToken
from penstock.servers.lmi import formatters, parameters
from penstock.servers.lmi.errors import CapacityExceeded, StreamBroken, TimedOut
from penstock.servers.lmi.parameters import BadInput, TextParameters, Unreadable
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.text import TextModel


def output_json(value: object) -> bytes:
    """JSON as a handler's Output writes it: two spaces, no blank after commas and colons, UTF-8."""
    return json.dumps(value, indent=2, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def handler_error(error: str) -> Reply:
    """What a handler that raises gives."""
    body = {"code": 424, "message": "prediction failure", "error": error}
    return Reply(424, {"Content-Type": "application/json"}, output_json(body))


class WholeAnswer(TextModel):
    """Neither rolling batch nor streaming: `[{"generated_text": …}]`, the prompt included."""

    async def predict(self, request: Invocation) -> Reply:
        await self.look_at(request)
        try:
            text = parameters.parse(request)
            work = await prepare(self, text.inputs, parameters.generate(text.parameters))
        except Unreadable as error:
            return unreadable(error)
        except BadInput as error:
            return handler_error(str(error))
        try:
            async with asyncio.timeout(self.settings.predict_timeout_s), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._generate(prompt, sampling)) for prompt, sampling in work]
        except TimeoutError:
            raise TimedOut(self.settings.predict_timeout_s) from None
        answers = [task.result() for task in tasks]
        for answer in answers:
            if isinstance(answer, EngineFull):
                raise CapacityExceeded(str(answer))
            if isinstance(answer, EngineError):
                return handler_error(str(answer))
        texts = [{"generated_text": f"{prompt}{answer}"} for prompt, answer in zip(text.inputs, answers, strict=True)]
        return Reply(200, {"Content-Type": "application/json"}, output_json(texts))

    async def _generate(self, prompt: tuple[int, ...], sampling: Sampling) -> str | EngineError:
        """The new text. An error is returned, not raised: a task group would wrap it."""
        try:
            async with aclosing(self.generation.stream(prompt, sampling)) as steps:
                async for step in steps:
                    if isinstance(step, TextToken) and step.finish is not None:
                        return step.finish.generated_text
        except EngineError as error:
            return error
        return EngineError("the generation ended without a last token")


class Stepped(TextModel):
    """`option.enable_streaming` without rolling batch: a line a step, `{"outputs": […]}` with a text for each prompt."""

    async def predict(self, request: Invocation) -> Reply:
        await self.look_at(request)
        try:
            text = parameters.parse(request)
            work = await prepare(self, text.inputs, parameters.stepped(text.parameters))
        except Unreadable as error:
            return unreadable(error)
        except BadInput as error:
            return handler_error(str(error))
        rows = [_Row(self.generation.stream(prompt, sampling)) for prompt, sampling in work]
        lines = Lines(rows, self.settings.chunk_timeout_s)
        try:
            async with asyncio.timeout(self.settings.predict_timeout_s):
                await lines.begin()
        except EngineFull as error:
            raise CapacityExceeded(str(error)) from error
        except TimeoutError:
            raise TimedOut(self.settings.predict_timeout_s) from None
        return Reply(200, {"Content-Type": formatters.JSON_LINES}, lines)


@dataclass(slots=True)
class _Row:
    """One prompt's stream. `filler` is what it shows once it has ended: its last special token, as padding would."""

    steps: AsyncGenerator[Prefill | TextToken, None]
    over: bool = False
    filler: str = ""

    async def next(self) -> str | EngineError:
        if self.over:
            return self.filler
        try:
            step = await anext(self.steps)
        except EngineError as error:
            return error
        assert isinstance(step, TextToken), "no prompt log-probabilities were asked for"
        self.over = step.finish is not None
        self.filler = step.text if step.special else ""
        return step.text


class Lines:
    """A response's body: one line a step over all rows. Closing it at any time ends every generation."""

    def __init__(self, rows: list[_Row], gap_s: float) -> None:
        self._rows = rows
        self._gap_s = gap_s
        self._first: list[str | EngineError] = []
        self._failed = False

    def __aiter__(self) -> Lines:
        return self

    async def begin(self) -> None:
        """Make the first step, so that a full engine is still a status. Raises EngineFull, with everything closed."""
        try:
            self._first = await self._step()
            for text in self._first:
                if isinstance(text, EngineFull):
                    raise text
        except BaseException:
            await self.aclose()
            raise

    async def __anext__(self) -> bytes:
        """Raises StreamBroken when a step takes longer than the gap that is allowed."""
        if self._failed or (not self._first and all(row.over for row in self._rows)):
            raise StopAsyncIteration
        if not (texts := self._first):
            try:
                async with asyncio.timeout(self._gap_s):
                    texts = await self._step()
            except TimeoutError:
                raise StreamBroken(f"no token for {self._gap_s:g} s") from None
        self._first = []
        for text in texts:
            if isinstance(text, EngineError):
                self._failed = True
                return str(text).encode()
        return json.dumps({"outputs": texts}).encode() + b"\n"

    async def aclose(self) -> None:
        for row in self._rows:
            await row.steps.aclose()

    async def _step(self) -> list[str | EngineError]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(row.next()) for row in self._rows]
        return [task.result() for task in tasks]


async def prepare(
    model: TextModel, inputs: tuple[str, ...], given: TextParameters
) -> list[tuple[tuple[int, ...], Sampling]]:
    """Every prompt's ids and rules, before anything is generated. Raises BadInput."""
    prompts = [await model.encode(text, given) for text in inputs]
    return [(prompt, model.sampling(prompt, given)) for prompt in prompts]


def unreadable(error: Unreadable) -> Reply:
    """A body that is no JSON: the original answers 200, and only the body tells."""
    return Reply(200, {}, formatters.failure(str(error), 424))
