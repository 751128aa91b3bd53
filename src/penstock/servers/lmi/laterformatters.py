"""Tokens to bytes in the two dialects that came after 0.28: `option.tgi_compat`, and the shapes of 0.33.

Owns the exact bytes of each piece. Pure; it must never know where tokens come from.
"""

from __future__ import annotations

import json
from typing import Any

from penstock.servers.lmi.formatters import (
    EVENTS,
    JSON,
    JSON_LINES,
    Asked,
    Events28,
    Json28,
    JsonLines28,
    Step,
    failed28,
    number,
    prefill,
    visible,
)


class TgiJson(Json28):
    """`option.tgi_compat`: a list of one object, with TGI's names of a token's parts."""

    logprob, special = "logprob", "special"

    def step(self, step: Step) -> bytes:
        body = super().step(step)
        return b"[" + body + b"]" if body else b""


class TgiLines(JsonLines28):
    """`option.tgi_compat` with `output_formatter=jsonlines`."""

    logprob, special = "logprob", "special"


class TgiEvents(Events28):
    """`option.tgi_compat`: the stream that TGI's clients read."""

    logprob, special = "logprob", "special"


class Json33:
    """0.33 and later: one object, whole, and a line end."""

    content_type, streams = JSON, False

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._steps: list[Step] = []

    def step(self, step: Step) -> bytes:
        self._steps.append(step)
        if not step.finish:
            return b""
        text = "".join(visible(step) for step in self._steps)
        result: dict[str, Any] = {"generated_text": _whole(self._asked, text)}
        if self._asked.details:
            result["details"] = {
                "finish_reason": _reason(step),
                "generated_tokens": len(self._steps),
                "seed": self._asked.seed,
                "prefill": prefill(self._asked, "logprob"),
                "tokens": [_token(step) for step in self._steps],
            }
        return _line(result)

    def failed(self, message: str) -> bytes:
        return failed28(message)


class JsonLines33:
    """0.33 and later: one token a line, always of the same four members."""

    content_type, streams = JSON_LINES, True

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._text = ""
        self._count = 0

    def step(self, step: Step) -> bytes:
        self._text += visible(step)
        self._count += 1
        line: dict[str, Any] = {"index": 0, "token": _token(step), "generated_text": None, "details": None}
        if step.finish:
            line["generated_text"] = _whole(self._asked, self._text)
            if self._asked.details:
                line["details"] = {
                    "finish_reason": _reason(step),
                    "seed": self._asked.seed,
                    "generated_tokens": self._count,
                    "input_length": self._asked.prompt_tokens,
                }
        return _line(line)

    def failed(self, message: str) -> bytes:
        return _line({"error": {"message": message, "type": "InternalServerError", "code": 500}})


class Events33(JsonLines33):
    """The same lines as server-sent events."""

    content_type = EVENTS

    def step(self, step: Step) -> bytes:
        return b"data: " + super().step(step) + b"\n"

    def failed(self, message: str) -> bytes:
        return b"data: " + super().failed(message) + b"\n"


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _whole(asked: Asked, text: str) -> str:
    return asked.inputs + text if asked.return_full_text else text


def _reason(step: Step) -> str:
    return "length" if step.finish == "length" else "stop"


def _token(step: Step) -> dict[str, Any]:
    return {"id": step.id, "text": step.text, "logprob": number(step.logprob)}
