"""Text generation with rolling batch: one request, one prompt, one stream.

Owns the way from a request to formatted pieces, and which failure gets which shape before and after the first piece. It must never
know bytes of a format (`formatters.py`), nor how tokens are made (`servers/generation.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from penstock.engines.base import EngineError, EngineFull, Feature, Sampling
from penstock.engines.chattemplate import ChatTemplate
from penstock.engines.tokenizer import TokenizerError
from penstock.servers.apart import Apart, NotRead, heavy
from penstock.servers.deadline import Patience
from penstock.servers.generation import Generation, Prefill, RequestRefused, TextToken
from penstock.servers.lmi import asking, formatters, requests, sessions
from penstock.servers.lmi.asking import Ask
from penstock.servers.lmi.djl_python.session_manager import SessionManager
from penstock.servers.lmi.errors import CapacityExceeded, StreamBroken, TimedOut, TooLarge, Untranslatable
from penstock.servers.lmi.formatterhost import FormatterFailed, FormatterHost, Writer
from penstock.servers.lmi.formatters import Asked, Formatter, Make, Step, TopToken
from penstock.servers.lmi.loras import Adapters
from penstock.servers.lmi.parameters import BadInput, Stated, TextParameters
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Document, Invocation
from penstock.servers.lmi.settings import ModelSettings


@dataclass(slots=True)
class TextModel:
    """What the three ways of generating text share: the model, its settings, and a source of seeds."""

    settings: ModelSettings
    generation: Generation
    rng: random.Random
    apart: Apart = field(default_factory=Apart, kw_only=True)

    @property
    def state(self) -> Literal["Healthy", "Unhealthy", "FAILED"]:
        return "Healthy" if self.generation.engine.ready else "Unhealthy"

    @property
    def parallel(self) -> int:
        return self.settings.max_rolling_batch_size

    @property
    def adapters(self) -> Adapters | None:
        return None

    async def scale(self, least: int, most: int) -> None:
        """One engine serves every request; there are no workers to add."""

    async def close(self) -> None:
        await self.generation.engine.close()

    async def look_at(self, request: Invocation) -> None:
        """Have a heavy body read where nobody else waits for it."""
        media = (request.attribute("content-type") or "").lower()
        if media.startswith("text/") or not heavy(request.data):
            return
        try:
            request.told(await self.apart.read(requests.APART, request.data))
        except NotRead as error:
            request.told(Document(error=TooLarge(f"The body can't be read: {error}.")))

    async def encode(self, text: str, given: TextParameters, *, special: bool = True) -> tuple[int, ...]:
        """The prompt's ids. Raises BadInput where it has no room for an answer."""
        try:
            ids = await self.generation.tokenizer.encode_async(text, special=special)
        except TokenizerError as error:
            raise BadInput(str(error)) from error
        prompt = ids[-given.truncate :] if given.truncate else ids
        if not prompt:
            raise BadInput("inputs is empty: there is no token to go on from")
        if len(prompt) >= (most := self.generation.engine.info.max_positions):
            raise BadInput(f"inputs has {len(prompt)} tokens, and the model takes fewer than {most}")
        return prompt

    def sampling(self, prompt: tuple[int, ...], given: TextParameters) -> Sampling:
        """The engine's rules; the answer is cut to what the model's positions allow."""
        self._refuse_what_the_engine_lacks(given)
        told = "top_n_tokens" in self.generation.engine.info.features
        if given.adapter and given.adapter not in self.generation.engine.info.adapters:
            raise BadInput(self._not_registered(given.adapter))
        if given.grammar is not None and "grammar" not in self.generation.engine.info.features:
            raise BadInput("this model's engine can't hold an answer to a JSON schema: leave out what asks for one")
        wanted = given.max_new_tokens or max(1, given.max_length - len(prompt))
        return Sampling(
            max_new_tokens=min(wanted, self.generation.engine.info.max_positions - len(prompt)),
            do_sample=given.do_sample,
            temperature=given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
            repetition_penalty=given.repetition_penalty,
            frequency_penalty=given.frequency_penalty,
            presence_penalty=given.presence_penalty,
            seed=self.rng.randrange(1, 2**32) if given.seed is None else given.seed,
            ignore_eos=given.ignore_eos,
            prompt_logprobs=given.decoder_input_details,
            grammar=given.grammar,
            logprobs=given.logprobs,
            adapter=given.adapter,
            typical_p=given.typical_p,
            top_n_tokens=given.top_n_tokens or (given.top_logprobs if told else 0),
        )

    def _not_registered(self, adapter: str) -> str:
        """In the original's words."""
        if self.settings.version < (0, 34):
            return f"Adapter {adapter} is not registered"
        known = list(self.generation.engine.info.adapters)
        return f"Input parsing failed: LoRA adapter {adapter} not found in registry. Available adapters: {known}"

    def _refuse_what_the_engine_lacks(self, given: TextParameters) -> None:
        """Raises BadInput rather than answer as if a parameter had not been there."""
        info = self.generation.engine.info
        # An encoder-decoder's prefill is one token, which needs no engine.
        prefill = given.decoder_input_details and not self.generation.tokenizer.config.encoder_decoder
        asked: tuple[tuple[str, bool, Feature], ...] = (
            ("typical_p", given.typical_p != 1.0, "typical_p"),
            ("decoder_input_details", prefill, "prompt_logprobs"),
            ("top_n_tokens", given.top_n_tokens > 0, "top_n_tokens"),
        )
        for name, is_asked, feature in asked:
            if is_asked and feature not in info.features:
                raise BadInput(
                    f"{name} is not supported by the {info.name} engine, which serves this model: leave it out"
                )


@dataclass(slots=True)
class RollingBatch(TextModel):
    """`option.rolling_batch`: what the blog's endpoint runs."""

    sessions: SessionManager | None = None
    template: ChatTemplate | None = None
    """In place of the tokenizer's own."""
    host: FormatterHost | None = None
    """The user's own formatters."""
    loras: Adapters | None = None

    @property
    def adapters(self) -> Adapters | None:
        return self.loras

    async def close(self) -> None:
        if self.host is not None:
            await self.host.close()
        await self.generation.engine.close()

    async def predict(self, request: Invocation) -> Reply:
        writer = self.host.writer() if self.host is not None else None
        reply: Reply | None = None
        try:
            reply = await self._predict(request, writer)
            return reply
        finally:
            if writer is not None and (reply is None or isinstance(reply.body, bytes)):
                writer.close()  # else its pieces do

    async def _predict(self, request: Invocation, writer: Writer | None) -> Reply:
        await self.look_at(request)
        ask: Ask | None = None
        try:
            if self.settings.version >= (0, 34) and (reply := await sessions.serve(request, self.sessions)):
                return reply
            if writer is not None:
                request = await writer.read(request)
                await self.look_at(request)
            template = self.template or self.generation.tokenizer.chat_template
            ask = asking.read(request, self.settings, template, self.generation.engine.info.adapters)
            prompt = await self.encode(ask.inputs, ask.parameters, special=ask.special)
            sampling = self.sampling(prompt, ask.parameters)
            if writer is not None:  # whose formatter may tell anything
                sampling = replace(sampling, logprobs=True)
        except BadInput as error:
            return self._refused(error, parsing=ask is None)
        asked = Asked(
            inputs=ask.inputs,
            prompt_tokens=len(prompt),
            seed=sampling.seed if sampling.do_sample else None,
            details=ask.parameters.details,
            return_full_text=ask.parameters.return_full_text,
        )
        steps = self.generation.stream(prompt, sampling, stop=ask.parameters.stop_sequences)
        return await self._answer(ask.formatter, asked, steps, request, writer)

    def _refused(self, error: Exception, *, parsing: bool = False) -> Reply:
        """`parsing`: it was refused before it was known what it asks for."""
        before = (
            "Input parsing failed: "
            if parsing and self.settings.version >= (0, 33) and not isinstance(error, Stated)
            else ""
        )
        text = f"{before}{error}"
        return Reply(424, {"Content-Type": formatters.JSON}, formatters.refusal(text, self.settings.version))

    async def _answer(
        self,
        make: Make,
        asked: Asked,
        steps: AsyncGenerator[Prefill | TextToken, None],
        request: Invocation | None = None,
        writer: Writer | None = None,
    ) -> Reply:
        """Wait for the first step, so that a failure until then is a status, and hand over the rest."""
        try:
            first = await self._next(steps, self.settings.predict_timeout_s)
            asked = replace(asked, prefill=_prefill(first))
            formatter = make(asked)
            if writer is not None and request is not None:
                writer.begin(asked, request)
            pieces = Pieces(formatter, steps, first, self.settings.chunk_timeout_s, writer)
            headers = {"Content-Type": formatter.content_type}
            if formatter.streams or (writer is not None and writer.writes in ("object", "legacy")):
                return Reply(200, headers, await pieces.ready())
            async with aclosing(pieces):
                return Reply(200, headers, b"".join([piece async for piece in pieces]))
        except TimeoutError:
            raise TimedOut(self.settings.predict_timeout_s) from None
        except StreamBroken as broken:  # of an answer that is sent whole, nothing is sent yet
            raise Untranslatable(str(broken)) from None
        except EngineFull as error:
            raise CapacityExceeded(str(error)) from error
        except (RequestRefused, FormatterFailed) as error:
            return self._refused(error)
        except EngineError as error:
            if self.settings.version < (0, 28):
                return Reply(500, {"Content-Type": formatters.JSON}, formatters.failure(str(error)))
            formatter = make(asked)
            body = formatters.failed28(str(error)) if formatter.streams else formatter.failed(str(error))
            return Reply(400, {"Content-Type": formatters.JSON}, body)

    async def _next(self, steps: AsyncGenerator[Prefill | TextToken, None], deadline_s: float) -> Prefill | TextToken:
        try:
            async with asyncio.timeout(deadline_s):
                return await anext(steps)
        except BaseException:
            await steps.aclose()
            raise


class Pieces:
    """A response's body: one piece a step. Closing it at any time ends the generation."""

    def __init__(
        self,
        formatter: Formatter,
        steps: AsyncGenerator[Prefill | TextToken, None],
        first: Prefill | TextToken,
        gap_s: float,
        writer: Writer | None = None,
    ) -> None:
        self._formatter = formatter
        self._writer = writer if writer is not None and writer.writes else None
        self._reader = writer
        self._begun: bytes | None = None
        self._first_is_out = False
        self._steps = steps
        self._waiting: Prefill | TextToken | None = first
        self._gap_s = gap_s
        self._patience = Patience(gap_s)
        self._over = False

    def __aiter__(self) -> Pieces:
        return self

    async def ready(self) -> Pieces:
        """With its first piece made where a formatter of the user's makes it, so that its failure is a status. Raises FormatterFailed."""
        if self._writer is not None:
            try:
                self._begun = await anext(self)
            except BaseException:
                await self.aclose()
                raise
        return self

    async def __anext__(self) -> bytes:
        """Raises StreamBroken when the next token takes longer than the gap that is allowed."""
        if self._begun is not None:
            piece, self._begun, self._first_is_out = self._begun, None, True
            return piece
        if self._over:
            raise StopAsyncIteration
        step, self._waiting = self._waiting, None
        try:
            while not isinstance(step, TextToken):
                step = await self._patience.wait(anext(self._steps))
        except TimeoutError:
            raise StreamBroken(f"no token for {self._gap_s:g} s") from None
        except EngineError as error:
            self._over = True
            if not self._formatter.streams:
                raise
            return self._formatter.failed(str(error))
        self._over = step.finish is not None
        reason = step.finish.reason if step.finish else ""
        top: tuple[TopToken, ...] = ()
        if step.top:
            top = tuple(TopToken(each.id, each.text, each.logprob, each.special) for each in step.top)
        told = Step(step.id, step.text, step.logprob, step.special, reason, top)
        if self._writer is None:
            return self._formatter.step(told)
        try:
            return await self._writer.write(self._formatter, told)
        except FormatterFailed as error:
            self._over = True
            if not self._first_is_out:
                raise
            return formatters.failure(str(error), 424)

    async def aclose(self) -> None:
        self._patience.close()
        await self._steps.aclose()
        if self._reader is not None:
            self._reader.close()


def _prefill(first: Prefill | TextToken) -> tuple[tuple[int, str, float], ...]:
    return tuple((token.id, token.text, token.logprob) for token in first.tokens) if isinstance(first, Prefill) else ()
