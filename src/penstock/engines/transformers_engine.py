"""The transformers library, for whatever the other engines do not take: any causal decoder, encoder-decoders, code that comes with a model.

Owns the schedule: in each step every running request gets its next token, read together where the model can, and then prompts are
read, in pieces of at most `max_batched_tokens`. It runs only in an engine process, works on token ids alone, and must never see text.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from penstock.engines.base import EngineInfo, Finish, PromptLogprobs, Submit, Token
from penstock.engines.modelconfig import ModelConfig, read_model_config
from penstock.engines.options import EngineOptions
from penstock.engines.process import LoadError
from penstock.engines.torch_sampling import Chooser, Watermark
from penstock.engines.transformers_model import Row, TorchModel


@dataclass(slots=True, eq=False)
class _Request:
    submit: Submit
    row: Row
    chooser: Chooser
    produced: int = 0
    prompt_logprobs: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.submit.prompt) + self.submit.sampling.max_new_tokens


class Transformers:
    """A stepper over a model of the transformers library."""

    def __init__(self, options: EngineOptions) -> None:
        """Load the weights in `options.model`. Raises LoadError."""
        _refuse_options(options)
        self._options = options
        self._config = _read_config(options)
        try:
            self._watermark = Watermark.from_environment()
        except ValueError as error:
            raise LoadError(str(error)) from error
        self._model = TorchModel(options)
        self._waiting: dict[int, _Request] = {}
        self._running: dict[int, _Request] = {}
        self.forward_s = 0.0
        longest = self._config.max_positions
        self.info = EngineInfo(
            name="transformers",
            device=self._model.device.type,
            dtype=str(self._model.dtype),
            max_positions=min(longest, options.max_length) if options.max_length else longest,
            eos_token_ids=self._config.eos_token_ids,
            max_batch_size=options.max_batch_size,
            features=("prompt_logprobs", "typical_p", "watermark", "top_n_tokens"),
        )

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def submit(self, request: Submit) -> Finish | None:
        if request.sampling.grammar is not None:
            return Finish(request.id, "refused", "the transformers engine takes no grammars")
        if request.sampling.adapter:
            return Finish(request.id, "refused", "the transformers engine takes no adapters")
        if reason := self._refusal(request):
            return Finish(request.id, "error", reason)
        row = self._model.row(request.prompt)
        self._waiting[request.id] = _Request(request, row, Chooser(request.sampling, tuple(row.ids), self._watermark))
        return None

    def cancel(self, request_id: int) -> Finish | None:
        if self._waiting.pop(request_id, None) is None and self._running.pop(request_id, None) is None:
            return None
        self._tidy()
        return Finish(request_id, "cancelled")

    def step(self) -> Iterator[Token | Finish | PromptLogprobs]:
        running = list(self._running.values())
        self.forward_s = 0.0
        if running:
            began = time.monotonic()
            logits = self._model.read_together([request.row for request in running])
            self.forward_s = time.monotonic() - began
            for request, own in zip(running, logits, strict=True):
                yield from self._answer(request, own)
        yield from self._read_prompts(self._options.max_batched_tokens - len(running))
        self._tidy()

    def _read_prompts(self, budget: int) -> Iterator[Token | Finish | PromptLogprobs]:
        """Read prompts in order of arrival, at least one token, for as long as there is room."""
        for request in list(self._waiting.values()):
            if not self._room_for(request):
                return
            row, asked = request.row, request.submit.sampling.prompt_logprobs
            before, began = row.read, time.monotonic()
            logits = self._model.read(row, max(budget, 1), every=asked and not self._model.encoder)
            self.forward_s += time.monotonic() - began
            budget -= max(row.read - before, len(request.submit.prompt) if self._model.encoder else 0)
            if asked and not self._model.encoder:
                request.prompt_logprobs += _known(logits, row.ids[before + 1 : row.read + 1])
            if row.read == len(row.ids):
                del self._waiting[request.submit.id]
                self._running[request.submit.id] = request
                if asked:
                    yield PromptLogprobs(request.submit.id, self._of_prompt(request))
                yield from self._answer(request, logits[-1])
            if budget <= 0:
                return

    def _room_for(self, request: _Request) -> bool:
        if len(self._running) >= self._options.max_batch_size:
            return False
        begun = [other for other in self._waiting.values() if other.row.read and other is not request]
        taken = sum(other.size for other in (*self._running.values(), *begun))
        return self._fits(taken + request.size)

    def _fits(self, tokens: int) -> bool:
        return not self._options.kv_cache_gb or tokens * self._model.bytes_per_token <= self._options.kv_cache_gb << 30

    def _answer(self, request: _Request, logits: Tensor) -> Iterator[Token | Finish]:
        """The request's next token, and its end if it is the last one."""
        request_id, sampling = request.submit.id, request.submit.sampling
        if not request.produced and (forced := self._model.forced_first) is not None:
            only = logits.new_full(logits.shape, -math.inf)
            only[forced] = 0.0
            logits = only
        token, logprob, top = request.chooser.choose(logits)
        request.produced += 1
        request.row.ids.append(token)
        yield Token(request_id, token, logprob, top)
        reason: Finish | None = None
        if request.produced >= sampling.max_new_tokens:
            reason = Finish(request_id, "length")
        elif token in self._config.eos_token_ids and not sampling.ignore_eos:
            reason = Finish(request_id, "eos_token")
        if reason:
            del self._running[request_id]
            yield reason

    def _of_prompt(self, request: _Request) -> tuple[float, ...]:
        """An encoder gives its text no probabilities."""
        if self._model.encoder:
            return (math.nan,) * len(request.submit.prompt)
        return (math.nan, *request.prompt_logprobs)

    def _tidy(self) -> None:
        if not self._running:
            self._model.forget()

    def _refusal(self, request: Submit) -> str:
        """Why a request can't be taken, or nothing."""
        tokens, new = len(request.prompt), request.sampling.max_new_tokens
        if len(self._waiting) + len(self._running) >= self._options.max_queue:
            return "the engine's queue is full"
        if not request.prompt:
            return "the prompt has no tokens"
        if tokens + new > self.info.max_positions:
            return f"{tokens} prompt tokens and {new} new ones are more than the model's {self.info.max_positions} positions"
        if max(request.prompt) >= self._model.vocabulary:
            return f"token {max(request.prompt)} is outside of the model's vocabulary of {self._model.vocabulary}"
        if not self._fits(tokens + new):
            return "the key-value cache has no room for the request"
        return ""


def _known(logits: Tensor, tokens: list[int]) -> list[float]:
    """Log-probabilities of the tokens that follow; after the prompt's last one, none does yet."""
    known: list[float] = logits[: len(tokens)].log_softmax(-1)[range(len(tokens)), tokens].tolist()
    return known


def _refuse_options(options: EngineOptions) -> None:
    if options.quantize:
        raise LoadError(f"the transformers engine does not quantize ({options.quantize}): it keeps weights as they are")
    if options.tensor_parallel > 1:
        raise LoadError(f"the transformers engine runs on one device, not {options.tensor_parallel}")


def _read_config(options: EngineOptions) -> ModelConfig:
    try:
        return read_model_config(options.model)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise LoadError(f"the configuration of {options.model} can't be read: {error}") from error
