"""OpenVINO GenAI's continuous batching: paged attention, prefix cache, split prompts, on this machine's processor.

Owns the pipeline and the translation between our messages and its handles. It runs only in an engine process (`step` holds the
interpreter's lock for as long as the step takes), works on token ids alone, and must never see text.

What the library can't do is said in `docs/engines.md`: log-probabilities come before penalties, temperature, top_k and top_p; only the
chosen token has one; prompt tokens that come out of the prefix cache have none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from penstock.engines.base import EngineInfo, Feature, Finish, PromptLogprobs, Sampling, Submit, Token
from penstock.engines.openvino_grammar import GrammarError
from penstock.engines.openvino_load import NGRAM, grammars_of, pipeline, precision, read_config
from penstock.engines.options import EngineOptions
from penstock.engines.process import last_line

_NAMES = {"bf16": "torch.bfloat16", "f32": "torch.float32"}


@dataclass(slots=True)
class _Request:
    submit: Submit
    handle: Any
    produced: int = 0
    prompt_reported: bool = field(default=False)


class OpenVino:
    """A stepper over `ContinuousBatchingPipeline`."""

    def __init__(self, options: EngineOptions) -> None:
        """Load the IR in `options.model` (`openvino_model.xml`, `.bin`, `config.json`). Raises LoadError."""
        self._options = options
        self._config = read_config(options.model)
        arithmetic = precision(options)
        self._grammars, self._no_grammars = grammars_of(options.model, self._config)
        self._pipeline = pipeline(options, self._config, arithmetic, self._grammars)
        # A guess is padded to its full length, and lies beyond the sequence's end then.
        self._longest = min(
            options.max_length or self._config.max_positions, self._config.max_positions - options.speculate
        )
        self._requests: dict[int, _Request] = {}
        self.forward_s = 0.0
        self.info = EngineInfo(
            name="openvino",
            device="cpu",
            dtype=_NAMES[arithmetic],
            max_positions=self._longest,
            eos_token_ids=self._config.eos_token_ids,
            max_batch_size=options.max_batch_size,
            features=self._features(),
        )

    def _features(self) -> tuple[Feature, ...]:
        features: list[Feature] = []
        if not self._no_grammars:
            features.append("grammar")
        if (
            not self._options.draft_model
        ):  # the library would report prompts to the draft model's requests too, and fails
            features.append("prompt_logprobs")
        return tuple(features)

    @property
    def busy(self) -> bool:
        return bool(self._requests)

    @property
    def library(self) -> Any:
        """The library's pipeline itself, for measuring it alone."""
        return self._pipeline

    def submit(self, request: Submit) -> Finish | None:
        if reason := self._refusal(request):
            return Finish(request.id, "error", reason)
        if request.sampling.prompt_logprobs and "prompt_logprobs" not in self.info.features:
            return Finish(request.id, "refused", "with a draft model there are no log-probabilities of the prompt")
        tensor = openvino.Tensor(np.array([request.prompt], dtype=np.int64))
        try:
            handle = self._pipeline.add_request(request.id, tensor, self._generation_config(request.sampling))
        except GrammarError as error:
            return Finish(request.id, "refused", str(error))
        except RuntimeError as error:
            return Finish(request.id, "error", last_line(error))
        self._requests[request.id] = _Request(request, handle)
        return None

    def cancel(self, request_id: int) -> Finish | None:
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        request.handle.cancel()
        if not self._requests:
            # The library lets a cancelled sequence go in the next step, and there may be none for a long time.
            self._pipeline.step()
        return Finish(request_id, "cancelled")

    def step(self) -> Iterator[Token | Finish | PromptLogprobs]:
        began = time.monotonic()
        self._pipeline.step()
        self.forward_s = time.monotonic() - began
        for request in list(self._requests.values()):
            yield from self._drain(request)

    def _drain(self, request: _Request) -> Iterator[Token | Finish | PromptLogprobs]:
        request_id = request.submit.id
        limit = request.submit.sampling.max_new_tokens
        stopped = False
        # The status first: a token that arrives after it was read is found in the next round.
        ended = request.handle.get_status() != genai.GenerationStatus.RUNNING
        while request.handle.can_read():
            for output in request.handle.read().values():
                tokens, logprobs = list(output.generated_ids), list(output.generated_log_probs)
                if request.submit.sampling.prompt_logprobs and not request.prompt_reported:
                    request.prompt_reported = True
                    count = len(request.submit.prompt)
                    fresh = len(tokens) - count
                    yield PromptLogprobs(request_id, _aligned(logprobs[: len(logprobs) - fresh], count))
                    tokens, logprobs = tokens[count:], logprobs[len(logprobs) - fresh :]
                told = request.submit.sampling.logprobs
                for token, logprob in zip(tokens, logprobs if told else (math.nan,) * len(tokens), strict=True):
                    request.produced += 1
                    yield Token(request_id, token, logprob)
                stopped = output.finish_reason == genai.GenerationFinishReason.STOP
        if not ended:
            return
        del self._requests[request_id]
        if request.produced >= limit:
            yield Finish(request_id, "length")
        elif stopped:
            yield Finish(request_id, "eos_token")
        else:
            yield Finish(request_id, "error", "the key-value cache has no room for the request")

    def _refusal(self, request: Submit) -> str:
        """Why a request can't be taken, or nothing."""
        tokens = len(request.prompt)
        if len(self._requests) >= self._options.max_queue:
            return "the engine's queue is full"
        if not request.prompt:
            return "the prompt has no tokens"
        if tokens + request.sampling.max_new_tokens > self._longest:
            return (
                f"{tokens} prompt tokens and {request.sampling.max_new_tokens} new ones "
                f"are more than the model's {self._longest} positions"
            )
        if self._config.vocab_size and max(request.prompt) >= self._config.vocab_size:
            return f"token {max(request.prompt)} is outside of the model's vocabulary of {self._config.vocab_size}"
        return ""

    def _generation_config(self, sampling: Sampling) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = sampling.max_new_tokens
        config.logprobs = int(sampling.logprobs or sampling.prompt_logprobs)
        config.echo = sampling.prompt_logprobs
        config.repetition_penalty = sampling.repetition_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.presence_penalty = sampling.presence_penalty
        if self._options.speculate:
            config.num_assistant_tokens = self._options.speculate
            # With a draft model it only says how guesses are judged while sampling: by whether the model itself draws the same.
            # Its other way fails in the library at the first guess that is turned down.
            config.max_ngram_size = NGRAM
        if sampling.do_sample:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
            if sampling.top_k > 0:
                config.top_k = sampling.top_k
        eos = self._config.eos_token_ids
        # A config without an end token is filled in by the library with -1, which it then refuses itself.
        config.set_eos_token_id(eos[0] if eos else 0)
        config.stop_token_ids = set(eos or (0,))
        config.ignore_eos = sampling.ignore_eos or not eos
        if sampling.grammar is not None:
            if self._grammars is None:
                raise GrammarError(self._no_grammars)
            config.structured_output_config = self._grammars.config(sampling.grammar)
        return config


def _aligned(logprobs: list[float], count: int) -> tuple[float, ...]:
    """One value for each of `count` prompt tokens. The library reports only those that it computed, so those at the end."""
    known = logprobs[-count:]
    if len(known) == count:
        known[0] = math.nan  # nothing comes before the first token
    return (math.nan,) * (count - len(known)) + tuple(known)
