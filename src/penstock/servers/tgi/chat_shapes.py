"""The JSON of the OpenAI routes, byte for byte as the original writes it.

Owns key order and form. It must never decide what to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.servers.generation import Reason, TextFinish, TextToken
from penstock.servers.tgi.chat_schema import Function, compact
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.shapes import number, text
from penstock.servers.tgi.tools import Piece, call_document

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every object of an answer says of its maker. `created` is in seconds since 1970."""

    created: int
    model: str
    fingerprint: str


def chat_completion(
    stamp: Stamp, content: str | Function, tokens: Sequence[TextToken], finish: TextFinish, *, logprobs: bool
) -> str:
    """A whole answer: text, or a call."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if isinstance(content, Function):
        message = {"role": "assistant", "tool_calls": [call_document(content)]}
    choice = (
        f'{{"index":0,"message":{compact(message)},"logprobs":{_logprobs(tokens) if logprobs else "null"},'
        f'"finish_reason":"{_reason(finish.reason)}"}}'
    )
    return f'{{"object":"chat.completion",{_head(stamp)},"choices":[{choice}],"usage":{usage([finish])}}}'


def chat_chunk(
    stamp: Stamp, token: TextToken, delta: str | Piece, *, call_id: str, logprobs: bool, ends: bool = True
) -> str:
    """One event of a streamed answer."""
    said: dict[str, Any] = {"role": "assistant", "content": delta}
    if isinstance(delta, Piece):
        function = {"name": delta.name, "arguments": delta.arguments}
        said = {
            "role": "assistant",
            "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}],
        }
    finish = f'"{_reason(token.finish.reason)}"' if token.finish and ends else "null"
    choice = (
        f'{{"index":0,"delta":{compact(said)},"logprobs":{_logprobs([token]) if logprobs else "null"},'
        f'"finish_reason":{finish}}}'
    )
    return f'{{"object":"chat.completion.chunk",{_head(stamp)},"choices":[{choice}],"usage":null}}'


def usage_chunk(stamp: Stamp, finish: TextFinish) -> str:
    """The event that `stream_options.include_usage` adds."""
    return f'{{"object":"chat.completion.chunk",{_head(stamp)},"choices":[],"usage":{usage([finish])}}}'


def completion(stamp: Stamp, finishes: Sequence[TextFinish]) -> str:
    """A whole answer to one or more prompts."""
    choices = ",".join(
        _choice(index, finish.generated_text, _reason(finish.reason)) for index, finish in enumerate(finishes)
    )
    return f'{{"object":"text_completion",{_head(stamp)},"choices":[{choices}],"usage":{usage(finishes)}}}'


def completion_chunk(stamp: Stamp, index: int, token: TextToken) -> str:
    """One event of a streamed answer; the last one of a prompt has its usage. The original puts the keys in two orders."""
    if token.finish is None:
        return (
            f'{{"object":"text_completion","id":"","created":{stamp.created},'
            f'"choices":[{_choice(index, token.text, "")}],'
            f'"model":{text(stamp.model)},"system_fingerprint":{text(stamp.fingerprint)}}}'
        )
    choice = _choice(index, token.text, token.finish.reason)
    return f'{{"object":"text_completion",{_head(stamp)},"choices":[{choice}],"usage":{usage([token.finish])}}}'


def usage(finishes: Sequence[TextFinish]) -> str:
    prompt = sum(finish.prompt_tokens for finish in finishes)
    generated = sum(finish.generated_tokens for finish in finishes)
    return f'{{"prompt_tokens":{prompt},"completion_tokens":{generated},"total_tokens":{prompt + generated}}}'


def stream_error(error: TgiError) -> str:
    """An error in a stream: always 422, whatever it would be as a status."""
    return f'{{"error":{{"message":{text(error.text)},"http_status_code":422}}}}'


def _choice(index: int, said: str, reason: str) -> str:
    return f'{{"index":{index},"text":{text(said)},"logprobs":null,"finish_reason":"{reason}"}}'


def _head(stamp: Stamp) -> str:
    return (
        f'"id":"","created":{stamp.created},"model":{text(stamp.model)},"system_fingerprint":{text(stamp.fingerprint)}'
    )


def _reason(reason: Reason) -> str:
    return "stop" if reason == "eos_token" else reason


def _logprobs(tokens: Sequence[TextToken]) -> str:
    content = ",".join(
        f'{{"token":{text(token.text)},"logprob":{number(token.logprob)},"top_logprobs":[{_top(token)}]}}'
        for token in tokens
    )
    return f'{{"content":[{content}]}}'


def _top(token: TextToken) -> str:
    return ",".join(f'{{"token":{text(each.text)},"logprob":{number(each.logprob)}}}' for each in token.top)
