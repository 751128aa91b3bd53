"""How one request's tokens are chosen from a model's logits, in the order in which TGI does it: watermark, penalties, temperature,
top_k, top_p, typical_p.

Owns the rules and the request's randomness. It must never see a model, or another request. Frequency and presence count the answer's
tokens, as OpenAI defines them; repetition counts the prompt's too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from penstock.engines.base import Sampling

HASH_KEY = 15485863
"""Of the watermark's authors, of TGI and of transformers: texts marked by any of them are found by the same detector."""


class Watermark:
    """Favours a pseudo-random part of the vocabulary, which follows from the token before (Kirchenbauer et al. 2023)."""

    def __init__(self, gamma: float, delta: float) -> None:
        self.gamma = gamma
        """Part of the vocabulary that is favoured."""
        self.delta = delta
        """What is added to its logits."""
        self._random = torch.Generator()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Watermark:
        """`WATERMARK_GAMMA` and `WATERMARK_DELTA`, as TGI reads them. Raises ValueError."""
        gamma, delta = float(environ.get("WATERMARK_GAMMA", "0.5")), float(environ.get("WATERMARK_DELTA", "2.0"))
        if not 0 < gamma < 1:
            raise ValueError(f"WATERMARK_GAMMA must be between 0 and 1, not {gamma:g}")
        return cls(gamma, delta)

    def mark(self, logits: Tensor, before: int) -> Tensor:
        self._random.manual_seed(HASH_KEY * before)
        size = logits.shape[-1]
        favoured = torch.randperm(size, generator=self._random)[: int(size * self.gamma)]
        return logits.index_add(0, favoured.to(logits.device), logits.new_full((len(favoured),), self.delta))


class Chooser:
    """Chooses a request's tokens, one after the other."""

    def __init__(self, sampling: Sampling, context: Sequence[int], watermark: Watermark) -> None:
        """`context` is what the decoder read before its first answer."""
        self._sampling = sampling
        self._last = context[-1]
        self._watermark = watermark if sampling.watermark else None
        self._context = context
        self._seen: Tensor | None = None
        self._counts: Tensor | None = None
        self._random: torch.Generator | None = None

    def choose(self, logits: Tensor) -> tuple[int, float, tuple[tuple[int, float], ...]]:
        """The next token, its natural log-probability among what could be chosen, and the likeliest ones.

        `logits` has one value for each token of the vocabulary, in single precision.
        """
        sampling = self._sampling
        if self._watermark:
            logits = self._watermark.mark(logits, self._last)
        logits = self._penalised(logits)
        if sampling.do_sample:
            logprobs = _narrowed(logits, sampling).log_softmax(-1)
            if self._random is None:
                self._random = torch.Generator(device=logits.device)
                self._random.manual_seed(sampling.seed)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=self._random))
        else:
            logprobs = logits.log_softmax(-1)
            token = int(logprobs.argmax())
        self._note(token)
        return token, float(logprobs[token]), likeliest(logprobs, sampling.top_n_tokens)

    def _note(self, token: int) -> None:
        self._last = token
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1

    def _penalised(self, logits: Tensor) -> Tensor:
        sampling = self._sampling
        if sampling.repetition_penalty != 1.0:
            if self._seen is None:
                self._seen = torch.zeros_like(logits, dtype=torch.bool)
                self._seen[torch.tensor(self._context, device=logits.device)] = True
            penalty = sampling.repetition_penalty
            logits = torch.where(self._seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
        if sampling.frequency_penalty or sampling.presence_penalty:
            if self._counts is None:
                self._counts = torch.zeros_like(logits)
            logits = logits - sampling.frequency_penalty * self._counts
            logits = logits - sampling.presence_penalty * (self._counts > 0)
        return logits


def likeliest(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens, likeliest first; fewer where fewer can be chosen at all."""
    if not count:
        return ()
    best = logprobs.topk(min(count, logprobs.shape[-1]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple((token, logprob) for token, logprob in pairs if logprob > -float("inf"))


def _narrowed(logits: Tensor, sampling: Sampling) -> Tensor:
    """Only the tokens that temperature, top_k, top_p and typical_p leave; the others are minus infinity."""
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -float("inf"))
    if sampling.top_p < 1.0:
        values, order = logits.sort()
        gone = values.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        gone[-1] = False
        logits = logits.masked_fill(torch.zeros_like(gone).scatter(0, order, gone), -float("inf"))
    if sampling.typical_p < 1.0:
        logprobs = logits.log_softmax(-1)
        probabilities = logprobs.exp()
        surprise = (-logprobs + torch.nansum(probabilities * logprobs)).abs()
        distances, order = surprise.sort()
        last = int((probabilities[order].cumsum(-1) < sampling.typical_p).sum())
        logits = logits.masked_fill(surprise > distances[min(last, len(distances) - 1)], -float("inf"))
    return logits
