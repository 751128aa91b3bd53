"""What an engine is: token ids in, token ids out, many requests at once.

Owns the interface and the messages that a server's front and its engine process exchange. It must never see text: tokenising,
stop strings and formats are the front's (`servers/`); and never HTTP.

An engine process does nothing but schedule and step. The front talks to it with these messages over a local socket; `Cancel` is looked
at once a step, so stopping takes at most one step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

FinishReason = Literal["length", "eos_token", "cancelled", "error", "refused"]
"""`refused`: the request itself asks for what can't be; `error`: it failed."""

Feature = Literal["grammar", "prompt_logprobs", "typical_p", "watermark", "top_n_tokens", "adapters"]
"""What not every engine can do. A front refuses what its engine lacks, in its contract's own words, before it submits anything.

`adapters` is taking LoRA adapters while it runs (`AddAdapter`); those of its start are `EngineInfo.adapters`.
"""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer's text must keep to: a JSON schema (its JSON) or a regular expression."""

    kind: Literal["json_schema", "regex"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens. Defaults are neutral: greedy unless `do_sample`."""

    max_new_tokens: int
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    """Given by the front even where the user gave none, so that it can be reported."""
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    """Ask for one `PromptLogprobs` before the first token."""
    logprobs: bool = True
    """Whether `Token.logprob` is told to anybody: an engine that saves something by it then gives NaN."""
    grammar: Grammar | None = None
    """A grammar that the engine does not take is a `Finish` with `refused`."""
    typical_p: float = 1.0
    """Mass of the tokens whose surprise is closest to the expected one (Meister et al. 2022). 1 is off."""
    watermark: bool = False
    """Favour a pseudo-random half of the vocabulary (Kirchenbauer et al. 2023)."""
    top_n_tokens: int = 0
    """How many of the likeliest tokens of each step to report in `Token.top`."""
    adapter: str = ""
    """Name of the LoRA adapter to use; empty is none."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Begin a request. `id` is unique within the front's connection."""

    id: int
    prompt: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


@dataclass(frozen=True, slots=True)
class AddAdapter:
    """Take a LoRA adapter, or change one that is there. `path` is its directory. Answered by one `AdapterChanged`."""

    id: int
    name: str
    path: str
    preload: bool = True
    """Load it now; else its first request does."""
    pin: bool = False
    """Never let it make room for another."""


@dataclass(frozen=True, slots=True)
class RemoveAdapter:
    """Give a LoRA adapter up: requests that use it go on, new ones are refused. Answered by one `AdapterChanged`."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class AdapterChanged:
    """`error` is for people, in one line; empty when it is done."""

    id: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Natural log-probability of each prompt token given those before it; NaN where the engine has none (the first one always)."""

    id: int
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `logprob` is natural; NaN where the engine has none. Whether after penalties: docs/engines.md.

    The engine ends a request by itself after `max_new_tokens`, or after an end-of-sequence token, which it also sends.
    """

    id: int
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens of this step and their log-probabilities, likeliest first, where the request asks for them."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The last message of a request, sent exactly once. `error` is for people."""

    id: int
    reason: FinishReason
    error: str = ""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself when ready. `dtype` and `device` as TGI's /info words them ("torch.bfloat16", "cpu")."""

    name: str
    device: str
    dtype: str
    max_positions: int
    """Longest sequence, prompt and answer together, in tokens."""
    eos_token_ids: tuple[int, ...]
    max_batch_size: int
    features: tuple[Feature, ...] = ()
    adapters: tuple[str, ...] = ()
    """Names of the LoRA adapters that a request may ask for."""


class EngineError(Exception):
    """A request can't be generated, and the message says why."""


class EngineGone(EngineError):
    """The engine process died, or can't be reached; the message says what is known."""


class EngineFull(EngineError):
    """The engine's queue is full; nothing was submitted."""


class Engine(Protocol):
    """The front's side of an engine, whichever it is. One suite runs over all of them."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def ready(self) -> bool:
        """Whether a request submitted now would be served: false while the engine process is being restarted."""
        ...

    def generate(
        self, prompt: tuple[int, ...], sampling: Sampling
    ) -> AsyncGenerator[PromptLogprobs | Token | Finish, None]:
        """`PromptLogprobs` if asked for, tokens, then one `Finish`. Closing the generator early cancels the request.

        Raises EngineGone or EngineFull.
        """
        ...

    @property
    def load(self) -> tuple[int, int]:
        """Requests running and waiting."""
        ...

    async def close(self) -> None: ...
