"""Tokens to bytes in the dialects that came after 0.28: `option.tgi_compat`, `option.bedrock_compat`, and the shapes of 0.33.

Owns the exact bytes of each piece. Pure; it must never know where tokens come from.
"""

from __future__ import annotations

from typing import Any

from penstock.servers.lmi.formatters import (
    JSON,
    JSON_LINES,
    AsEvents,
    Events28,
    Json28,
    JsonLines28,
    Lines,
    Step,
    Whole,
    dumps,
    number,
    prefill,
)


class TgiJson(Json28):
    """`option.tgi_compat`: a list of one object, with TGI's names of a token's parts."""

    logprob, special = "logprob", "special"

    def answer(self, last: Step) -> bytes:
        return b"[" + super().answer(last) + b"]"


class TgiLines(JsonLines28):
    """`option.tgi_compat` with `output_formatter=jsonlines`."""

    logprob, special = "logprob", "special"


class TgiEvents(Events28):
    """`option.tgi_compat`: the stream that TGI's clients read."""

    logprob, special = "logprob", "special"


class Json33(Whole):
    """0.33 and later: one object, and a line end."""

    def answer(self, last: Step) -> bytes:
        result: dict[str, Any] = {"generated_text": self.text}
        if self._asked.details:
            result["details"] = {
                "finish_reason": _reason(last),
                "generated_tokens": len(self._steps),
                "seed": self._asked.seed,
                "prefill": prefill(self._asked, "logprob"),
                "tokens": [_token(step) for step in self._steps],
            }
        return dumps(result) + b"\n"


class JsonLines33(Lines):
    """0.33 and later: one token a line, always of the same four members."""

    def line(self, step: Step) -> dict[str, Any]:
        line: dict[str, Any] = {"index": 0, "token": _token(step), "generated_text": None, "details": None}
        if step.finish:
            line["generated_text"] = self._text
            if self._asked.details:
                line["details"] = {
                    "finish_reason": _reason(step),
                    "seed": self._asked.seed,
                    "generated_tokens": self._count,
                    "input_length": self._asked.prompt_tokens,
                }
        return line


class Events33(AsEvents, JsonLines33):
    """The same lines as server-sent events."""


class Json3p(Whole):
    """`option.bedrock_compat`: the body that Amazon Bedrock hands on, with what it bills."""

    def answer(self, last: Step) -> bytes:
        return self._answer(self.text, self._asked.prompt_tokens, len(self._steps), last.finish)

    def failed(self, message: str) -> bytes:
        return self._answer(None, 0, 0, "error", {"error": {"error": {"error_code": 400, "error_msg": message}}})

    def _answer(
        self, text: str | None, prompt: int, count: int, reason: str, error: dict[str, Any] | None = None
    ) -> bytes:
        body = {
            "generation": text,
            "prompt_token_count": prompt,
            "generation_token_count": count,
            "stop_reason": reason,
        }
        metering = {"inputTokenCount": prompt, "outputTokenCount": count}
        return dumps({"body": body, "metering": metering, "content_type": JSON, **(error or {})})


class JsonLines3p(Lines):
    """The same, streamed: a line a token. Only the first one tells of the prompt."""

    def line(self, step: Step) -> dict[str, Any]:
        return self._line(step.text, step.finish or None)

    def failed(self, message: str) -> bytes:
        self._count += 1
        error = {"error": {"error_code": 400, "error_msg": message}}
        return self.framed(dumps({**self._line("", "error"), **error}))

    def _line(self, text: str, reason: str | None) -> dict[str, Any]:
        prompt = self._asked.prompt_tokens if self._count == 1 else None
        body = {
            "generation": text,
            "prompt_token_count": prompt,
            "generation_token_count": self._count,
            "stop_reason": reason,
        }
        metering = {"outputTokenCount": self._count} | ({} if prompt is None else {"inputTokenCount": prompt})
        return {"body": body, "metering": metering, "content_type": JSON_LINES}


def _reason(step: Step) -> str:
    return "length" if step.finish == "length" else "stop"


def _token(step: Step) -> dict[str, Any]:
    return {"id": step.id, "text": step.text, "logprob": number(step.logprob)}
