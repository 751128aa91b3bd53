"""From a request to its answer, streamed or whole.

Owns permits, the order of checks, `best_of`, the times that headers and metrics report, and the shape of failures in a stream. It must
never know HTTP routes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass, replace

from penstock.engines.base import EngineError, EngineFull
from penstock.engines.steps import Observable
from penstock.servers.generation import (
    Generation,
    Prefill,
    PromptToken,
    RequestRefused,
    StopRule,
    TextFinish,
    TextToken,
)
from penstock.servers.tgi.errors import (
    GenerationError,
    Incomplete,
    IncompleteStream,
    Overloaded,
    TemplateFailed,
    TgiError,
    ValidationError,
)
from penstock.servers.tgi.metrics import Metrics
from penstock.servers.tgi.schema import Parameters, Request
from penstock.servers.tgi.settings import Settings
from penstock.servers.tgi.shapes import GeneratedSequence, error_json, event, generation_json, stream_event
from penstock.servers.tgi.validation import Valid, check_before_permit, validate


@dataclass(slots=True)
class Times:
    """When a request's phases began and ended, in seconds of `clock`."""

    clock: Callable[[], float]
    start: float = 0.0
    validated: float = 0.0
    first: float = 0.0
    """The first token: what comes before it since `validated` is queue and prefill together."""
    end: float = 0.0

    def __post_init__(self) -> None:
        self.start = self.validated = self.first = self.end = self.clock()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and its response headers."""

    json: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Whole:
    """A finished generation, the likeliest sequence first, and the headers that tell of it."""

    best: GeneratedSequence
    others: tuple[GeneratedSequence, ...]
    headers: dict[str, str]


class Service:
    """One model behind TGI's contract."""

    def __init__(
        self,
        generation: Generation,
        settings: Settings,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = generation
        self.settings = settings
        self.metrics = Metrics(settings, lambda: generation.engine.load, lambda: generation.text_s)
        self._rng = rng
        self._clock = clock
        self._permits = settings.max_concurrent_requests

    async def answer(self, request: Request) -> Answer:
        """Generate the whole. Raises TgiError."""
        whole = await self.whole(request)
        given = request.parameters
        prompt = request.inputs if given.return_full_text else ""
        details = given.details or given.decoder_input_details
        return Answer(generation_json(whole.best, whole.others, prompt=prompt, details=details), whole.headers)

    async def events(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Generate as server-sent events, one a token. A failure is the last event. Closing it early cancels."""
        level, given = self.settings.level, request.parameters
        prompt = request.inputs if given.return_full_text else ""
        index = 0
        try:
            async with aclosing(self.tokens(request)) as tokens:
                async for token in tokens:
                    index += 1
                    yield stream_event(token, index, prompt=prompt, details=given.details, level=level)
        except TgiError as error:
            yield event(error_json(error), level)

    async def whole(self, request: Request) -> Whole:
        """Generate the whole. Raises TgiError."""
        times = Times(self._clock)
        with self._counted():
            permits = check_before_permit(request, self.settings, stream=False)
            with self._permit(permits):
                valid = await self._validate(request, times)
                sequences = await self._all(valid, times)
        times.end = self._clock()
        best = max(sequences, key=lambda sequence: sequence.mean_logprob)
        others = [sequence for sequence in sequences if sequence is not best]
        self._observe(valid, best.finish, times)
        return Whole(best, tuple(others), self._headers(request, best.finish, times))

    async def tokens(self, request: Request) -> AsyncGenerator[TextToken, None]:
        """Generate token by token. Closing it early cancels. Raises TgiError."""
        times = Times(self._clock)
        with self._counted(), self._permit(check_before_permit(request, self.settings, stream=True)):
            valid, waiting, ended = await self._validate(request, times), True, False
            with _worded(valid), self._reserved(valid):
                async with aclosing(self._steps(valid)) as steps:
                    async for step in steps:
                        if waiting:
                            waiting, times.first = False, self._clock()
                        if not isinstance(step, TextToken):
                            continue
                        if step.finish is not None:
                            ended, times.end = True, self._clock()
                            self._observe(valid, step.finish, times)
                        yield step
            if not ended:
                raise IncompleteStream if self.settings.level.words_incomplete_streams else Incomplete

    def refused(self, error: TgiError) -> TgiError:
        """Count a request that was refused before anything could be generated."""
        self.metrics.count("request_count")
        self.metrics.count("request_failure", "template" if isinstance(error, TemplateFailed) else "validation")
        return error

    async def warm_up(self) -> None:
        """One token, so that what can't work is known before the port is open; it counts for no metric. Raises TgiError."""
        request = Request(inputs="liveness", parameters=Parameters(max_new_tokens=1))
        valid = await validate(request, self.settings, self.generation, self._rng)
        await self._all(valid, Times(self._clock))
        if isinstance(engine := self.generation.engine, Observable):
            engine.observe(self.metrics.batches)

    async def _validate(self, request: Request, times: Times) -> Valid:
        valid = await validate(request, self.settings, self.generation, self._rng)
        times.validated = times.first = self._clock()
        self.metrics.input_length.observe(len(valid.prompt))
        self.metrics.max_new_tokens.observe(valid.sampling.max_new_tokens)
        return valid

    async def _all(self, valid: Valid, times: Times) -> list[GeneratedSequence]:
        """`best_of` sequences, generated at once."""
        variants = [valid] + [
            replace(valid, sampling=replace(valid.sampling, seed=self._rng.getrandbits(64)))
            for _ in range(1, valid.best_of)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._whole(variant, times)) for variant in variants]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _whole(self, valid: Valid, times: Times) -> GeneratedSequence:
        prefill: tuple[PromptToken, ...] = ()
        tokens: list[TextToken] = []
        waiting = True
        with _worded(valid), self._reserved(valid):
            async with aclosing(self._steps(valid)) as steps:
                async for step in steps:
                    if waiting:
                        waiting, times.first = False, self._clock()
                    if isinstance(step, Prefill):
                        prefill = step.tokens
                    else:
                        tokens.append(step)
        if not tokens or tokens[-1].finish is None:
            raise Incomplete
        return GeneratedSequence(prefill, tuple(tokens), tokens[-1].finish)

    def _reserved(self, valid: Valid) -> AbstractContextManager[None]:
        return self.metrics.reserved(len(valid.prompt) + valid.sampling.max_new_tokens)

    def _steps(self, valid: Valid) -> AsyncGenerator[Prefill | TextToken, None]:
        rule: StopRule = "suffix" if self.settings.stop_rule_original else "anywhere"
        return self.generation.stream(valid.prompt, valid.sampling, stop=valid.stop, stop_rule=rule)

    @contextmanager
    def _permit(self, count: int) -> Iterator[None]:
        """Taken without waiting. Raises Overloaded."""
        if self._permits < count:
            raise Overloaded
        self._permits -= count
        try:
            yield
        finally:
            self._permits += count

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request and how it ended; one that is left before its end is dropped."""
        self.metrics.count("request_count")
        try:
            yield
        except TgiError as error:
            kind = "incomplete" if error.kind.startswith("incomplete") else error.kind
            self.metrics.count("request_failure", kind)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.count("request_failure", "dropped")
            raise
        self.metrics.count("request_success")

    def _observe(self, valid: Valid, finish: TextFinish, times: Times) -> None:
        metrics = self.metrics
        metrics.duration.observe(times.end - times.start)
        metrics.validation_duration.observe(times.validated - times.start)
        metrics.queue_duration.observe(times.first - times.validated)
        metrics.inference_duration.observe(times.end - times.first)
        metrics.mean_time_per_token_duration.observe((times.end - times.first) / finish.generated_tokens)
        metrics.generated_tokens.observe(finish.generated_tokens)

    def _compute_time(self, seconds: float) -> str:
        if self.settings.level.compute_time_in_seconds:
            return f"{seconds:.9f}".rstrip("0").rstrip(".")
        return str(int(seconds * 1000))

    def _headers(self, request: Request, finish: TextFinish, times: Times) -> dict[str, str]:
        def milliseconds(seconds: float) -> str:
            return str(int(seconds * 1000))

        inference = times.end - times.first
        headers = {
            "x-compute-type": self.settings.compute_type,
            "x-compute-time": self._compute_time(times.end - times.start),
            "x-compute-characters": str(len(request.inputs)),
            "x-total-time": milliseconds(times.end - times.start),
            "x-validation-time": milliseconds(times.validated - times.start),
            "x-queue-time": milliseconds(times.first - times.validated),
            "x-inference-time": milliseconds(inference),
            "x-time-per-token": milliseconds(inference / finish.generated_tokens),
        }
        if self.settings.level.counts_in_headers:
            headers["x-prompt-tokens"] = str(finish.prompt_tokens)
            headers["x-generated-tokens"] = str(finish.generated_tokens)
        return headers


@contextmanager
def _worded(valid: Valid) -> Iterator[None]:
    """What an engine raises, in the contract's words."""
    try:
        yield
    except EngineFull as error:
        raise Overloaded from error
    except RequestRefused as error:
        about = "grammar is not valid: " if valid.sampling.grammar else ""
        raise ValidationError(f"{about}{error}") from error
    except EngineError as error:
        raise GenerationError(str(error)) from error
