"""A request and its tokens as formatters of your own see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar


class Token:
    """One token. `log_prob` may be None, `special_token` and `error_msg` are told where they are true."""

    def __init__(
        self,
        id: int,
        text: str,
        log_prob: float | None = None,
        special_token: bool | None = None,
        error_msg: str | None = None,
    ) -> None:
        self.id = id
        self.text = text
        self.log_prob = log_prob
        self.special_token = special_token
        self.request_id: int | None = None
        self.error_msg = error_msg

    def __repr__(self) -> str:
        return f"Token({self.as_dict()})"

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "text": self.text, "log_prob": self.log_prob}
        if self.special_token:
            told["special_token"] = self.special_token
        if self.error_msg:
            told["error_msg"] = self.error_msg
        return told

    def as_tgi_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "text": self.text, "logprob": self.log_prob}
        return {**told, "special": self.special_token} if self.special_token else told


@dataclass
class Sequence:
    """The tokens so far; `get_next_token` walks through them."""

    tells_index: ClassVar[bool] = False
    """Whether it tells a token's index; the process that runs a formatter knows the image's version."""

    tokens: list[Token] = field(default_factory=list)
    top_tokens: list[list[Token]] = field(default_factory=list)
    cumulative_log_prob: float = 0.0
    finish_reason: str | None = None
    stop_reason: str | None = None
    _last_token_index: int | None = None
    _next: int = 0
    _next_top: int = 0

    def set_next_token(self, token: Token, is_last_token: bool = False) -> None:
        self.tokens.append(token)
        self.cumulative_log_prob += token.log_prob or 0.0
        if is_last_token:
            self._last_token_index = len(self.tokens) - 1

    def set_next_top_tokens(self, top_tokens: list[Token]) -> None:
        self.top_tokens.append(top_tokens)

    def has_next_token(self) -> bool:
        return self._next < len(self.tokens)

    def has_next_top_tokens(self) -> bool:
        return self._next_top < len(self.top_tokens)

    def get_next_token(self) -> tuple[Any, ...]:
        """The next token, its index (from 0.32 on), whether it is the first, whether it is the last; None where there is none yet."""
        index = self._next
        token = self.tokens[index] if self.has_next_token() else None
        found = (token, index == 0, index == self._last_token_index) if token else (None, False, False)
        self._next += token is not None
        return (found[0], index if token else 0, *found[1:]) if self.tells_index else found

    def get_last_token(self) -> Token | None:
        return None if self._last_token_index is None else self.tokens[self._last_token_index]

    def get_next_top_tokens(self) -> list[Token] | None:
        if not self.has_next_top_tokens():
            return None
        self._next_top += 1
        return self.top_tokens[self._next_top - 1]


@dataclass
class RequestInput:
    """What every request has."""

    request_id: int | None = None
    client_request_id: str | None = None
    output_formatter: Callable[..., Any] | str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    server_parameters: dict[str, Any] = field(default_factory=dict)
    tgi_compat: bool = False


@dataclass
class TextInput(RequestInput):
    """A request for text: an input formatter fills `input_text` and `parameters`."""

    input_text: Any = None
    adapters: Any = None
    tokenizer: Any = None

    @property
    def input_ids(self) -> list[int]:
        """The prompt's tokens, where a tokenizer is at hand."""
        return list(self.tokenizer.encode(self.input_text)) if self.tokenizer is not None else []


@dataclass
class RequestOutput:
    """What every answer has."""

    request_id: int
    input: RequestInput
    finished: bool = False


@dataclass
class TextGenerationOutput(RequestOutput):
    """The tokens of an answer. There is one sequence, `sequences[best_sequence_index]`."""

    sequences: dict[int, Sequence] = field(default_factory=dict)
    best_sequence_index: int = 0
    prompt_tokens_details: list[Token] = field(default_factory=list)
    other_sequences_indices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sequences.setdefault(self.best_sequence_index, Sequence())

    def set_next_token(
        self, token: Token, sequence_index: int = 0, is_last_token: bool = False, finish_reason: str | None = None
    ) -> None:
        sequence = self.sequences.setdefault(sequence_index, Sequence())
        sequence.set_next_token(token, is_last_token)
        if finish_reason:
            sequence.finish_reason = finish_reason

    def set_next_top_tokens(self, top_tokens: list[Token], sequence_index: int) -> None:
        self.sequences[sequence_index].set_next_top_tokens(top_tokens)

    def set_best_sequence_index(self, sequence_index: int) -> None:
        self.best_sequence_index = sequence_index

    def set_finish_reason(self, finish_reason: str, sequence_index: int = 0) -> None:
        self.sequences[sequence_index].finish_reason = finish_reason

    def get_tokens_as_dict(self, sequence_index: int = 0) -> list[dict[str, Any]]:
        return [self._told(token) for token in self.sequences[sequence_index].tokens]

    def get_prompt_tokens_as_dict(self) -> list[dict[str, Any]]:
        return [self._told(token) for token in self.prompt_tokens_details]

    def get_top_tokens_as_dict(self, sequence_index: int = 0) -> list[list[dict[str, Any]]]:
        return [[self._told(token) for token in tokens] for tokens in self.sequences[sequence_index].top_tokens]

    def _told(self, token: Token) -> dict[str, Any]:
        return token.as_tgi_dict() if self.input.tgi_compat else token.as_dict()
