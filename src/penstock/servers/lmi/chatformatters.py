"""Tokens to OpenAI's chat completions and text completions, as LMI writes them.

Owns the exact bytes of each piece. Pure; it must never know where tokens come from, nor the clock.

Two shapes: 0.28 to 0.32 end with LMI's own finish reasons and name no model; from 0.33 on it is OpenAI's, with `model` and `stop`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from penstock.servers.lmi.formatters import EVENTS, JSON, JSON_LINES, Asked, Step, TopToken, failed28, number, visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What every piece of one answer repeats. An empty `model` is the shape of 0.28."""

    id: str
    created: int
    model: str = ""
    logprobs: bool = False
    include_usage: bool = False

    def head(self, kind: str) -> dict[str, Any]:
        model = {"model": self.model} if self.model else {}
        return {"id": self.id, "object": kind, "created": self.created, **model}

    def reason(self, step: Step) -> str | None:
        if not self.model:
            return step.finish or None
        return {"length": "length", "": None}.get(step.finish, "stop")


class JsonChat:
    """One `chat.completion`, whole, so that a failure can still be a status."""

    content_type, streams = JSON, False

    def __init__(self, asked: Asked, completion: Completion) -> None:
        self._asked, self._completion = asked, completion
        self._steps: list[Step] = []

    def step(self, step: Step) -> bytes:
        self._steps.append(step)
        if not step.finish:
            return b""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(visible(step) for step in self._steps)},
            "logprobs": {"content": [_logprob(step) for step in self._steps]} if self._completion.logprobs else None,
            "finish_reason": self._completion.reason(step),
        }
        usage = {"usage": _usage(self._asked, len(self._steps))}
        return _json({**self._completion.head("chat.completion"), "choices": [choice], **usage})

    def failed(self, message: str) -> bytes:
        return failed28(message)


class JsonText:
    """One `text_completion`, whole."""

    content_type, streams = JSON, False

    def __init__(self, asked: Asked, completion: Completion) -> None:
        self._asked, self._completion = asked, completion
        self._text = asked.inputs if asked.return_full_text else ""
        self._count = 0

    def step(self, step: Step) -> bytes:
        self._text += visible(step)
        self._count += 1
        if not step.finish:
            return b""
        choice = {"index": 0, "text": self._text, "logprobs": None, "finish_reason": self._completion.reason(step)}
        usage = {"usage": _usage(self._asked, self._count)}
        return _json({**self._completion.head("text_completion"), "choices": [choice], **usage})

    def failed(self, message: str) -> bytes:
        return failed28(message)


class JsonLinesChat:
    """A `chat.completion.chunk` a token, one on each line."""

    content_type, streams = JSON_LINES, True
    kind = "chat.completion.chunk"

    def __init__(self, asked: Asked, completion: Completion) -> None:
        self._asked, self._completion = asked, completion
        self._count = 0

    def step(self, step: Step) -> bytes:
        piece = self._piece({"choices": [self._choice(step)]})
        self._count += 1
        if step.finish and self._completion.include_usage:
            piece += self._piece({"choices": [], "usage": _usage(self._asked, self._count)})
        return piece + self._end() if step.finish else piece

    def failed(self, message: str) -> bytes:
        return self._framed(_json({"error": {"message": message, "type": "InternalServerError", "code": 500}}))

    def _choice(self, step: Step) -> dict[str, Any]:
        role = {} if self._count else {"role": "assistant"}
        return {
            "index": 0,
            "delta": {"content": visible(step), **role},
            "logprobs": {"content": [_logprob(step)]} if self._completion.logprobs else None,
            "finish_reason": self._completion.reason(step),
        }

    def _piece(self, body: dict[str, Any]) -> bytes:
        return self._framed(_json({**self._completion.head(self.kind), **body}))

    def _framed(self, line: bytes) -> bytes:
        return line + b"\n"

    def _end(self) -> bytes:
        return b""


class EventsChat(JsonLinesChat):
    """The same chunks as server-sent events, with OpenAI's own end."""

    content_type = EVENTS

    def _framed(self, line: bytes) -> bytes:
        return b"data: " + line + b"\n\n"

    def _end(self) -> bytes:
        return b"data: [DONE]\n\n"


class JsonLinesText(JsonLinesChat):
    """A `text_completion` a token, one on each line."""

    kind = "text_completion"

    def _choice(self, step: Step) -> dict[str, Any]:
        before = self._asked.inputs if self._asked.return_full_text and not self._count else ""
        reason = self._completion.reason(step)
        return {"index": 0, "text": before + visible(step), "logprobs": None, "finish_reason": reason}


class EventsText(JsonLinesText, EventsChat):
    """The same as server-sent events."""

    content_type = EVENTS


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _usage(asked: Asked, count: int) -> dict[str, int]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": count,
        "total_tokens": asked.prompt_tokens + count,
    }


def _logprob(step: Step) -> dict[str, Any]:
    """The token that was chosen, and as many of the likeliest as the engine tells, the chosen one first."""
    one = _named(step)
    others = [_named(each) for each in step.top if each.id != step.id]
    return {**one, "top_logprobs": [one, *others][: max(len(step.top), 1)]}


def _named(token: Step | TopToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": number(token.logprob), "bytes": list(token.text.encode()) or None}
