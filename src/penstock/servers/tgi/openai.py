"""The OpenAI routes: chat and text completions, streamed or whole.

Owns the course of an answer: which generation follows which, what each token becomes, and how a stream tells of a failure. Their meaning in
native terms is in `chat.py`, their JSON in `chat_shapes.py`. It must never know HTTP routes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from penstock.servers.generation import TextToken
from penstock.servers.tgi import chat_shapes, tools
from penstock.servers.tgi.chat import Turn, completions, next_call_id, turn, without_tools
from penstock.servers.tgi.chat_schema import ChatRequest, CompletionRequest, Function
from penstock.servers.tgi.chat_shapes import Stamp
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.schema import Request
from penstock.servers.tgi.service import Answer, Service, Whole
from penstock.servers.tgi.shapes import event

_SUMMED = (
    "x-compute-characters",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed answer that can begin. `characters` is the length of its prompts."""

    characters: int
    events: AsyncGenerator[bytes, None]


class OpenAi:
    """OpenAI's routes over `service`."""

    def __init__(self, service: Service, now: Callable[[], float]) -> None:
        """`now` is the time in seconds since 1970."""
        self._service = service
        self._now = now

    async def chat(self, chat: ChatRequest) -> Answer:
        """A whole answer. Raises TgiError."""
        ready = self.turn(chat)
        whole = await self._service.whole(ready.request)
        content: str | Function = whole.best.finish.generated_text
        if ready.using_tools:
            call = tools.parse_output(whole.best.finish.generated_text)
            if call is None:
                whole = await self._service.whole(self.turn(without_tools(chat)).request)
            content = call or whole.best.finish.generated_text
        body = chat_shapes.chat_completion(
            self._stamp(chat.model), content, whole.best.tokens, whole.best.finish, logprobs=chat.logprobs
        )
        return Answer(body, whole.headers)

    def chat_stream(self, chat: ChatRequest) -> Stream:
        """Raises TgiError while it is not too late for a status."""
        ready = self.turn(chat)
        return Stream(len(ready.request.inputs), self._chat_events(chat, ready))

    async def complete(self, given: CompletionRequest) -> Answer:
        """A whole answer to each prompt. Raises TgiError: the first one's."""
        requests = self._completions(given)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._service.whole(request)) for request in requests]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        wholes = [task.result() for task in tasks]
        body = chat_shapes.completion(self._stamp(None), [whole.best.finish for whole in wholes])
        return Answer(body, _summed(wholes))

    def complete_stream(self, given: CompletionRequest) -> Stream:
        """Raises TgiError while it is not too late for a status."""
        requests = self._completions(given)
        return Stream(sum(len(request.inputs) for request in requests), self._completion_events(requests))

    def turn(self, chat: ChatRequest) -> Turn:
        """The native request that a conversation is. Raises TgiError."""
        try:
            template, level = self._service.generation.tokenizer.chat_template, self._service.settings.level
            return turn(chat, template, level, self._adapter(chat.model))
        except TgiError as error:
            raise self._service.refused(error) from error.__cause__

    async def _chat_events(self, chat: ChatRequest, ready: Turn) -> AsyncGenerator[bytes, None]:
        try:
            chosen_none = False
            async with aclosing(self._turn_events(chat, ready)) as events:
                async for each in events:
                    chosen_none = each is None
                    if each is not None:
                        yield self._event(each)
            if chosen_none:
                plain = without_tools(chat)
                async with aclosing(self._turn_events(plain, self.turn(plain))) as events:
                    async for each in events:
                        if each is not None:
                            yield self._event(each)
        except TgiError as error:
            yield self._event(chat_shapes.stream_error(error))
        yield self._event(chat_shapes.DONE)

    async def _turn_events(self, chat: ChatRequest, ready: Turn) -> AsyncGenerator[str | None, None]:
        """The events of one generation; None, the last one, when the model chose no tool."""
        call_id, reader = next_call_id(chat.messages), tools.CallReader() if ready.using_tools else None
        async with aclosing(self._service.tokens(ready.request)) as tokens:
            async for token in tokens:
                stamp, said = self._stamp(chat.model), "" if token.special else token.text
                delta = reader.push(said) if reader else said
                if delta == "no_tool" and reader:
                    yield None
                    return
                if delta is None and token.finish is not None:
                    delta = ""  # nothing more of the call, but how it ended
                if delta is not None:
                    yield chat_shapes.chat_chunk(stamp, token, delta, call_id=call_id, logprobs=chat.logprobs)
                if token.finish is not None and chat.include_usage:
                    yield chat_shapes.usage_chunk(stamp, token.finish)

    async def _completion_events(self, requests: Sequence[Request]) -> AsyncGenerator[bytes, None]:
        """The events of all prompts as they come."""
        queue: asyncio.Queue[tuple[int, TextToken | TgiError | None]] = asyncio.Queue(maxsize=64)

        async def generate(index: int, request: Request) -> None:
            try:
                async with aclosing(self._service.tokens(request)) as tokens:
                    async for token in tokens:
                        await queue.put((index, token))
            except TgiError as error:
                await queue.put((index, error))
            await queue.put((index, None))

        running = [asyncio.create_task(generate(*each)) for each in enumerate(requests)]
        try:
            left = len(running)
            while left:
                index, item = await queue.get()
                if isinstance(item, TextToken):
                    yield self._event(chat_shapes.completion_chunk(self._stamp(None), index, item))
                elif item is not None:
                    yield self._event(chat_shapes.stream_error(item))
                else:
                    left -= 1
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        yield self._event(chat_shapes.DONE)

    def _completions(self, given: CompletionRequest) -> tuple[Request, ...]:
        settings = self._service.settings
        try:
            return completions(given, settings.level, settings.max_client_batch_size, self._adapter(given.model))
        except TgiError as error:
            raise self._service.refused(error) from None

    def _adapter(self, model: str | None) -> str | None:
        """The adapter that `model` names. A name of none means the model itself, as in the original."""
        known = self._service.generation.engine.info.adapters
        return model if self._service.settings.level.model_names_adapter and model in known else None

    def _stamp(self, model: str | None) -> Stamp:
        """`model` as the client named it; its own name for nobody's, and for `tgi`."""
        settings = self._service.settings
        name = settings.model_id if model in (None, "tgi") else model
        return Stamp(int(self._now()), name or "", f"{settings.level}-{settings.docker_label or 'native'}")

    def _event(self, payload: str) -> bytes:
        return event(payload, self._service.settings.level)


def _summed(wholes: Sequence[Whole]) -> dict[str, str]:
    """The headers of several answers as one: times and counts are added up."""
    totals: Counter[str] = Counter()
    for whole in wholes:
        totals.update({name: int(whole.headers[name]) for name in _SUMMED if name in whole.headers})
    return {"x-compute-type": wholes[0].headers["x-compute-type"]} | {name: str(totals[name]) for name in totals}
