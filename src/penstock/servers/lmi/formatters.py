"""Tokens to bytes: LMI's output formatters, version by version.

Owns the exact bytes of each piece. Pure; it must never know where tokens come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Protocol

import msgspec

_UNICODE = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` would make one for each token
JSON, JSON_LINES, EVENTS, PLAIN = "application/json", "application/jsonlines", "text/event-stream", "text/plain"


@dataclass(frozen=True, slots=True)
class TopToken:
    """One of the likeliest tokens of a step."""

    id: int
    text: str
    logprob: float
    special: bool = False


class Step(msgspec.Struct, frozen=True):  # a frozen dataclass takes ten times as long to make
    """One generated token. `finish` is why it is the last one ("length", "eos_token", "stop_sequence"), empty before."""

    id: int
    text: str
    logprob: float
    special: bool = False
    finish: str = ""
    top: tuple[TopToken, ...] = ()
    """The likeliest tokens of this step, where the request asks for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a formatter has to know of its request."""

    inputs: str = ""
    prompt_tokens: int = 0
    seed: int | None = None
    """What the generation samples with; None when it is greedy."""
    details: bool = False
    return_full_text: bool = False
    prefill: tuple[tuple[int, str, float], ...] = ()
    """Id, text and log-probability of the prompt's tokens, where `decoder_input_details` asks for them."""


class Formatter(Protocol):
    """One a request: it may remember what it has written."""

    content_type: str
    streams: bool
    """False when only the last step gives bytes: the response is then sent whole, with a status that tells the truth."""

    def step(self, step: Step) -> bytes: ...

    def failed(self, message: str) -> bytes:
        """The last piece of a stream whose generation broke."""
        ...


class Whole:
    """An answer in one piece, so that a failure can still be a status."""

    content_type, streams = JSON, False

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._steps: list[Step] = []

    def step(self, step: Step) -> bytes:
        self._steps.append(step)
        return self.answer(step) if step.finish else b""

    def answer(self, last: Step) -> bytes:
        """All of it. `last` is the last of `_steps`."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What was generated, with the prompt where the request wants it."""
        said = "".join(visible(step) for step in self._steps)
        return self._asked.inputs + said if self._asked.return_full_text else said

    def failed(self, message: str) -> bytes:
        return failed28(message)


class Lines:
    """A line a token."""

    content_type, streams = JSON_LINES, True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._text = asked.inputs if asked.return_full_text else ""
        self._count = 0

    def step(self, step: Step) -> bytes:
        self._text += visible(step)
        self._count += 1
        return self.framed(dumps(self.line(step)))

    def line(self, step: Step) -> dict[str, Any]:
        """One line. `_text` and `_count` have this token in them."""
        raise NotImplementedError

    def failed(self, message: str) -> bytes:
        return self.framed(dumps({"error": {"message": message, "type": "InternalServerError", "code": 500}}))

    def framed(self, line: bytes) -> bytes:
        return line + b"\n"


class AsEvents:
    """Put before a kind of `Lines`: the same lines as server-sent events."""

    content_type = EVENTS

    def framed(self, line: bytes) -> bytes:
        return b"data: " + line + b"\n\n"


def dumps(value: object) -> bytes:
    """JSON in UTF-8; half a character, which a client or a model's JSON may hold, stays its escape."""
    return _UNICODE.encode(value).encode("utf-8", "backslashreplace")


def failure(message: str, code: int = 500) -> bytes:
    """0.23's words for a failure, in a body or as the last chunk of a stream."""
    return json.dumps({"code": code, "error": message}).encode()


def refusal(message: str, version: tuple[int, int]) -> bytes:
    """The body of a 424 with rolling batch: the handler's own words, and from 0.28 on the server's."""
    return (
        failure(message, 424)
        if version < (0, 28)
        else f'{{"error":{encode_basestring(message)},"code":424}}'.encode("utf-8", "backslashreplace")
    )


class Json23:
    """One object in fragments: the first opens it, the last closes it; ASCII only."""

    content_type, streams = JSON, True

    def __init__(self, asked: Asked) -> None:
        self._begun = False

    def step(self, step: Step) -> bytes:
        opening = "" if self._begun else '{"generated_text": "'
        self._begun = True
        closing = '"}' if step.finish else ""
        return (opening + encode_basestring_ascii(visible(step))[1:-1] + closing).encode()

    def failed(self, message: str) -> bytes:
        return failure(message)


class JsonLines23:
    """One line a token; ASCII only; a special token is an empty text."""

    content_type, streams = JSON_LINES, True

    def __init__(self, asked: Asked) -> None:
        pass

    def step(self, step: Step) -> bytes:
        return f'{{"outputs": [{encode_basestring_ascii(visible(step))}]}}\n'.encode()

    def failed(self, message: str) -> bytes:
        return failure(message)


class Plain:
    """The text itself."""

    content_type, streams = PLAIN, True

    def __init__(self, asked: Asked) -> None:
        pass

    def step(self, step: Step) -> bytes:
        return visible(step).encode()

    def failed(self, message: str) -> bytes:
        return failure(message)


class Json26:
    """0.26 and 0.27: fragments of one object, in UTF-8, with details on demand."""

    content_type, streams = JSON, True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._steps: list[Step] = []

    def step(self, step: Step) -> bytes:
        opening = "" if self._steps else '{"generated_text": "'
        self._steps.append(step)
        piece = opening + encode_basestring(visible(step))[1:-1]
        if step.finish:
            piece += '"'
            if self._asked.details:
                piece += f', "details": {json.dumps(self._details(step), ensure_ascii=False)}'
            piece += "}"
        return piece.encode()

    def _details(self, last: Step) -> dict[str, Any]:
        tokens = [_token26(step) for step in self._steps]
        return {
            "finish_reason": last.finish,
            "generated_tokens": len(tokens),
            "inputs": self._asked.inputs,
            "tokens": tokens,
        }

    def failed(self, message: str) -> bytes:
        return failure(message)


class JsonLines26:
    """0.26 and 0.27: one token a line, empty members left out; the last line has the whole text."""

    content_type, streams = JSON_LINES, True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._text = ""

    def step(self, step: Step) -> bytes:
        line: dict[str, Any] = {"token": _token26(step)}
        self._text += visible(step)
        if step.finish:
            line["generated_text"] = self._text
            if self._asked.details:
                line["details"] = {"finish_reason": step.finish}
        return dumps(line) + b"\n"

    def failed(self, message: str) -> bytes:
        return failure(message)


class Token28:
    """How 0.28 tells of a token. The names are what `tgi_compat` changes."""

    logprob, special = "log_prob", "special_token"

    def token(self, step: Step | TopToken) -> dict[str, Any]:
        token: dict[str, Any] = {"id": step.id, "text": step.text, self.logprob: number(step.logprob)}
        if step.special:
            token[self.special] = True
        return token

    def details(self, asked: Asked, last: Step, count: int, tokens: list[Step]) -> dict[str, Any]:
        """`tokens` are told where there are any: a stream has told them already."""
        told = {"tokens": [self.token(step) for step in tokens]} if tokens else {}
        prefill_ = {"prefill": prefill(asked, self.logprob)} if asked.prefill else {}
        return {"finish_reason": last.finish, "generated_tokens": count, "inputs": asked.inputs, **told, **prefill_}

    def top_tokens(self, steps: list[Step]) -> dict[str, Any]:
        """The member of `details`, from 0.29 on; none where no token has any."""
        if not any(step.top for step in steps):
            return {}
        return {"top_tokens": [[self.token(each) for each in step.top] for step in steps]}


class Json28(Token28, Whole):
    """0.28 and later: one object."""

    def answer(self, last: Step) -> bytes:
        details = {}
        if self._asked.details:
            told = self.details(self._asked, last, len(self._steps), self._steps) | self.top_tokens(self._steps)
            details = {"details": told}
        return dumps({"generated_text": self.text, **details})


class JsonLines28(Token28, Lines):
    """0.28 and later: one token a line; the last line has the text, and details on demand."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._steps: list[Step] = []

    def step(self, step: Step) -> bytes:
        if step.finish or step.special or not math.isfinite(step.logprob):
            return super().step(step)
        # Nearly all of them: the same bytes as the encoder's, at a fifth of its cost.
        self._text += step.text
        self._count += 1
        if self._asked.details:
            self._steps.append(step)
        text, logprob = encode_basestring(step.text), float.__repr__(step.logprob)
        line = f'{{"token": {{"id": {step.id}, "text": {text}, "{self.logprob}": {logprob}}}}}'
        return self.framed(line.encode("utf-8", "backslashreplace"))

    def line(self, step: Step) -> dict[str, Any]:
        line: dict[str, Any] = {"token": self.token(step)}
        if self._asked.details:
            self._steps.append(step)
        if step.finish:
            line["generated_text"] = self._text
            if self._asked.details:
                line["details"] = self.details(self._asked, step, self._count, []) | self.top_tokens(self._steps)
        return line

    def failed(self, message: str) -> bytes:
        token = {"id": -1, "text": "", self.logprob: -1, self.special: True, "error_msg": message}
        line = {"token": token, "generated_text": self._text, "details": {"finish_reason": "error"}}
        return self.framed(dumps(line))


class Events28(AsEvents, JsonLines28):
    """The same lines as server-sent events."""


def failed28(message: str, code: int = 400) -> bytes:
    """0.28's body of a request that failed while it was not yet answered."""
    value = {"generated_text": None, "error": message, "code": code, "details": {"finish_reason": "error"}}
    return dumps(value)


Make = Callable[[Asked], Formatter]


def number(logprob: float) -> float | None:
    """JSON has no NaN, which is what an engine without a log-probability gives."""
    return None if math.isnan(logprob) else logprob


def visible(step: Step) -> str:
    return "" if step.special else step.text


def _token26(step: Step) -> dict[str, Any]:
    token: dict[str, Any] = {"id": [step.id]}
    if step.text:
        token["text"] = step.text
    if logprob := number(step.logprob):
        token["log_prob"] = logprob
    if step.special:
        token["special_token"] = True
    return token


def prefill(asked: Asked, logprob_name: str) -> list[dict[str, Any]]:
    return [{"id": token, "text": text, logprob_name: number(logprob)} for token, text, logprob in asked.prefill]
