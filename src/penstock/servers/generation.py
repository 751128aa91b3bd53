"""Generation in terms of text: what TGI's and LMI's formats are both built on.

Owns the way from a prompt's text to an engine and back: tokenising, incremental decoding, stop strings, the reason why it ended. It
must never know a wire format: each server words its own events and errors.

How a server uses it:

    service = Generation(tokenizer, engine)
    prompt = await service.encode(text, truncate=1000)          # ids; raises TokenizerError
    async with aclosing(service.stream(prompt, sampling, stop=("User:",))) as steps:
        async for step in steps:                                # Prefill first if asked for, then TextTokens
            ...                                                 # the last TextToken has `.finish` set

Leaving the `async with` early, by `break`, an exception or the cancellation of the task, cancels the request in the engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from penstock.engines.base import Engine, EngineError, Finish, PromptLogprobs, Sampling, Token
from penstock.engines.detokenizer import Detokenizer
from penstock.engines.tokenizer import TextTokenizer

Reason = Literal["length", "eos_token", "stop_sequence"]
StopRule = Literal["anywhere", "suffix"]


@dataclass(frozen=True, slots=True)
class PromptToken:
    """A token of the prompt. `logprob` is natural, NaN where it is not known (the first one always)."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompt, token by token: the first item of a stream whose sampling asks for `prompt_logprobs`."""

    tokens: tuple[PromptToken, ...]


@dataclass(frozen=True, slots=True)
class TopToken:
    """One of the likeliest tokens of a step, by itself: its text knows nothing of those before it."""

    id: int
    text: str
    logprob: float
    special: bool


@dataclass(frozen=True, slots=True)
class TextFinish:
    """How a generation ended.

    `generated_text` is all text without special tokens; a stop string stays in it, as both servers have it. `seed` is None for greedy.
    """

    reason: Reason
    generated_text: str
    generated_tokens: int
    prompt_tokens: int
    seed: int | None


class TextToken(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """One generated token. `text` is empty while a character is unfinished; a special token's text is its name ("<|endoftext|>").

    `finish` is set on the last one.
    """

    id: int
    text: str
    logprob: float
    special: bool
    finish: TextFinish | None = None
    top: tuple[TopToken, ...] = ()
    """The likeliest tokens of this step, likeliest first, where the sampling asks for them."""


class GenerationFailed(EngineError):
    """The engine ended a request with an error; the message is its reason."""


class RequestRefused(GenerationFailed):
    """The engine does not take the request as it is: its grammar is broken, or its adapter is not there."""


class Generation:
    """An engine and the tokenizer of its model."""

    def __init__(self, tokenizer: TextTokenizer, engine: Engine) -> None:
        self.tokenizer = tokenizer
        self.engine = engine
        self.text_s = 0.0
        """Seconds that it took so far to make text of tokens, of all requests together."""

    async def encode(self, text: str, *, truncate: int | None = None, special: bool = True) -> tuple[int, ...]:
        """The prompt's token ids; the last `truncate` of them. A long text never holds up other requests. Raises TokenizerError.

        `special` adds the sequence's own tokens; a chat template has written them already.
        """
        ids = await self.tokenizer.encode_async(text, special=special)
        return ids if truncate is None else ids[-truncate:]

    async def stream(
        self,
        prompt: tuple[int, ...],
        sampling: Sampling,
        *,
        stop: Sequence[str] = (),
        stop_rule: StopRule = "anywhere",
    ) -> AsyncGenerator[Prefill | TextToken, None]:
        """Generate. The last item is a TextToken with its `finish`. Raises EngineError (EngineGone, EngineFull, GenerationFailed).

        The end is checked after each token in the order length, end-of-sequence token, stop string. `stop_rule` "anywhere" finds a stop
        string wherever it ends and cuts the last token's text after it; "suffix" is the original TGI's rule: the text so far
        must end with it when a token does (one newline after it is let pass).

        An encoder-decoder's answer goes on from its decoder's start token alone: that one is then the Prefill.
        """
        config = self.tokenizer.config
        texts = _Texts(
            self.tokenizer, (config.decoder_start,) if config.encoder_decoder else prompt, StopStrings(stop, stop_rule)
        )
        prefill: Prefill | None = None
        if config.encoder_decoder and sampling.prompt_logprobs:
            sampling = replace(sampling, prompt_logprobs=False)
            prefill = self._prefill((config.decoder_start,), (math.nan,))
        async with aclosing(self.engine.generate(prompt, sampling)) as events:
            async for event in events:
                match event:
                    case Token():  # first, as the others come once
                        if prefill is not None:
                            yield prefill
                            prefill = None
                        token, began = event.token, time.monotonic()
                        text, special, stopped = texts.push(token)
                        self.text_s += time.monotonic() - began
                        reason = self._reason(token, texts.count, stopped, sampling)
                        finish = None
                        if reason is not None:
                            seed = sampling.seed if sampling.do_sample else None
                            finish = TextFinish(reason, texts.generated, texts.count, len(prompt), seed)
                        top = self._top(event.top) if event.top else ()
                        yield TextToken(token, text, event.logprob, special, finish, top)
                        if finish is not None:
                            return
                    case PromptLogprobs(logprobs=logprobs):
                        yield self._prefill(prompt, logprobs)
                    case Finish(error=error, reason="refused"):
                        raise RequestRefused(error)
                    case Finish(error=error, reason=why):
                        raise GenerationFailed(error or f"the engine ended the request ({why})")

    def _reason(self, token: int, count: int, stopped: bool, sampling: Sampling) -> Reason | None:
        if count >= sampling.max_new_tokens:
            return "length"
        if token in self.engine.info.eos_token_ids and not sampling.ignore_eos:
            return "eos_token"
        return "stop_sequence" if stopped else None

    def _top(self, top: Sequence[tuple[int, float]]) -> tuple[TopToken, ...]:
        return tuple(
            TopToken(number, self.tokenizer.decode((number,)), logprob, self.tokenizer.is_special(number))
            for number, logprob in top
        )

    def _prefill(self, prompt: tuple[int, ...], logprobs: Sequence[float]) -> Prefill:
        return Prefill(
            tuple(
                PromptToken(number, self.tokenizer.decode((number,)), logprob)
                for number, logprob in zip(prompt, logprobs, strict=True)
            )
        )


class StopStrings:
    """Finds stop strings in a text that grows, looking only at its end.

    All requests share the loop that calls it, so a step costs little however many strings there are, and however long they are: of each
    length that occurs, one piece of the text is looked up.
    """

    def __init__(self, stop: Sequence[str], rule: StopRule) -> None:
        by_length: dict[int, set[str]] = {}
        for text in stop:
            if text:
                by_length.setdefault(len(text), set()).add(text)
        self._by_length = sorted(by_length.items())
        self._rule = rule
        self._keep = max(by_length, default=0) + 1
        self._tail = ""

    def cut(self, piece: str) -> int | None:
        """How much of `piece` to keep if a stop string ends in it, else None."""
        if not self._by_length or not piece:
            return None
        text = self._tail + piece
        before = len(self._tail)
        self._tail = text[-self._keep :]
        if self._rule == "suffix":
            ended = self._ends(text, len(text)) or (text.endswith("\n") and self._ends(text, len(text) - 1))
            return len(piece) if ended else None
        return next((end - before for end in range(before + 1, len(text) + 1) if self._ends(text, end)), None)

    def _ends(self, text: str, end: int) -> bool:
        for length, strings in self._by_length:
            if length > end:
                return False
            if text[end - length : end] in strings:
                return True
        return False


class _Texts:
    """One request's text so far, after the tokens that it goes on from."""

    def __init__(self, tokenizer: TextTokenizer, prompt: tuple[int, ...], stop: StopStrings) -> None:
        self._tokenizer = tokenizer
        self._first: int | None = None
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stop = stop
        self._pieces: list[str] = []
        self.count = 0

    @property
    def generated(self) -> str:
        text = "".join(self._pieces)
        if self._tokenizer.config.encoder_decoder and self._first is not None:
            # By itself, as the original decodes such an answer, its first word has no space before it.
            alone = self._tokenizer.decode((self._first,), skip_special=True)
            return text if alone.startswith(" ") else text.removeprefix(" ")
        return text

    def push(self, token: int) -> tuple[str, bool, bool]:
        """The token's text, whether it is special, whether a stop string ended in it."""
        self.count += 1
        text, special = self._detokenizer.push(token), self._tokenizer.is_special(token)
        cut = self._stop.cut(text)
        if cut is not None:
            text = text[:cut]
        if not special:
            self._first = token if self._first is None else self._first
            self._pieces.append(text)
        return text, special, cut is not None
