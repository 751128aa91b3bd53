"""Asking an engine, and taking its answer apart. There is no test in this file."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.engines.base import Finish, PromptLogprobs, Sampling, Token
from penstock.engines.client import EngineProcess


@dataclass(frozen=True, slots=True)
class Answered:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    prompt_logprobs: tuple[float, ...]
    finish: Finish


async def ask(engine: EngineProcess, prompt: tuple[int, ...], sampling: Sampling) -> Answered:
    """The whole answer. The order of its parts is asserted."""
    events = [event async for event in engine.generate(prompt, sampling)]
    finish = events.pop()
    assert isinstance(finish, Finish)
    known: tuple[float, ...] = ()
    if events and isinstance(events[0], PromptLogprobs):
        known = events[0].logprobs
        del events[0]
    tokens = [event for event in events if isinstance(event, Token)]
    assert len(tokens) == len(events), "prompt log-probabilities come first, and once"
    return Answered(
        tuple(token.token for token in tokens),
        tuple(token.logprob for token in tokens),
        tuple(token.top for token in tokens),
        known,
        finish,
    )
