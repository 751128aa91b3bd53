"""Tokens to OpenAI's chat completions and text completions, as LMI writes them.

Owns the exact bytes of each piece. Pure; it must never know where tokens come from, nor the clock, nor how a model words a call.

Two shapes: 0.28 to 0.32 end with LMI's own finish reasons and name no model; from 0.33 on it is OpenAI's, with `model` and `stop`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.servers.chat.calls import gather
from penstock.servers.chat.pieces import Called, Piece, Reader, Said, Thought
from penstock.servers.chat.thinking import ThinkingReader
from penstock.servers.lmi.formatters import AsEvents, Asked, Lines, Step, TopToken, Whole, dumps, number, visible


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What every piece of one answer repeats. An empty `model` is the shape of 0.28."""

    id: str
    created: int
    model: str = ""
    logprobs: bool = False
    include_usage: bool = False
    reader: Callable[[], Reader] | None = None
    """What finds calls in the text, where the client gave tools and the model may call them."""
    thinking: str = ""
    """What tells thoughts from the answer, a parser of `servers/chat/thinking.py`; empty leaves them together."""
    function: str = ""
    """The one function that the model was made to call: its text is the arguments."""
    short_ids: bool = False
    """Mistral's templates take nothing but nine letters and digits as a call's id."""

    def head(self, kind: str) -> dict[str, Any]:
        model = {"model": self.model} if self.model else {}
        return {"id": self.id, "object": kind, "created": self.created, **model}

    def reason(self, step: Step, *, called: bool = False) -> str | None:
        if called and step.finish:
            return "tool_calls"
        if not self.model:
            return step.finish or None
        return {"length": "length", "": None}.get(step.finish, "stop")

    def call_id(self, index: int) -> str:
        number_ = self.id.rpartition("-")[2]
        return f"{number_[:7]}{index % 100:02}" if self.short_ids else f"chatcmpl-tool-{number_}{index:02}"


class _Calls:
    """One answer's text, taken apart into what is said and what is called."""

    def __init__(self, completion: Completion) -> None:
        self._function = completion.function
        self._reader: Reader | None = completion.reader() if completion.reader else None
        if completion.thinking:
            self._reader = ThinkingReader(completion.thinking, self._reader)
        self._begun = False
        self.called = False
        """Whether the answer is to end as one that calls."""

    def push(self, step: Step) -> list[Piece]:
        if self._function:
            name, self._begun = None if self._begun else self._function, True
            return [Called(0, visible(step), name)]
        if self._reader is None:
            return [Said(visible(step))]
        # A mark may be a token of its own, which is special and else not shown.
        pieces = self._reader.push(step.text if not step.special or step.text in self._reader.marks else "")
        if step.finish:
            pieces += self._reader.end()
        self.called = self.called or any(isinstance(piece, Called) for piece in pieces)
        return pieces


class JsonChat(Whole):
    """One `chat.completion`."""

    def __init__(self, asked: Asked, completion: Completion) -> None:
        super().__init__(asked)
        self._completion = completion

    def answer(self, last: Step) -> bytes:
        found = _Calls(self._completion)
        pieces = [piece for step in self._steps for piece in found.push(step)]
        said, calls = gather(pieces)
        thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
        thoughts = {"reasoning_content": thought} if thought else {}
        content = said or (None if found.called or thought else "")
        message: dict[str, Any] = {"role": "assistant", **thoughts, "content": content}
        if calls:
            message["tool_calls"] = [
                {
                    "id": self._completion.call_id(call.index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in calls
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": {"content": [_logprob(step) for step in self._steps]} if self._completion.logprobs else None,
            "finish_reason": self._completion.reason(last, called=found.called),
        }
        usage = {"usage": _usage(self._asked, len(self._steps))}
        return dumps({**self._completion.head("chat.completion"), "choices": [choice], **usage})


class JsonText(Whole):
    """One `text_completion`."""

    def __init__(self, asked: Asked, completion: Completion) -> None:
        super().__init__(asked)
        self._completion = completion

    def answer(self, last: Step) -> bytes:
        reason = self._completion.reason(last)
        choice = {"index": 0, "text": self.text, "logprobs": None, "finish_reason": reason}
        usage = {"usage": _usage(self._asked, len(self._steps))}
        return dumps({**self._completion.head("text_completion"), "choices": [choice], **usage})


class JsonLinesChat(Lines):
    """A `chat.completion.chunk` a token, one on each line; a token may also be none, within a call's mark, or several."""

    kind = "chat.completion.chunk"

    def __init__(self, asked: Asked, completion: Completion) -> None:
        super().__init__(asked)
        self._completion = completion
        self._calls = _Calls(completion)
        self._told = 0

    def step(self, step: Step) -> bytes:
        self._count += 1
        piece = b"".join(self._piece({"choices": [choice]}) for choice in self._choices(step))
        if step.finish and self._completion.include_usage:
            piece += self._piece({"choices": [], "usage": _usage(self._asked, self._count)})
        return piece + self._end() if step.finish else piece

    def _choices(self, step: Step) -> list[dict[str, Any]]:
        pieces = self._calls.push(step)
        deltas = [self._delta(piece) for piece in pieces]
        if step.finish and not deltas:
            deltas = [self._delta(Said(""))]
        choices: list[dict[str, Any]] = [
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
        ]
        if choices:
            choices[0]["logprobs"] = {"content": [_logprob(step)]} if self._completion.logprobs else None
            choices[-1]["finish_reason"] = self._completion.reason(step, called=self._calls.called)
        return choices

    def _delta(self, piece: Piece) -> dict[str, Any]:
        role = {} if self._told else {"role": "assistant"}
        self._told += 1
        if isinstance(piece, Said):
            return {"content": piece.text, **role}
        if isinstance(piece, Thought):
            return {"reasoning_content": piece.text, **role}
        begins = {} if piece.name is None else {"id": self._completion.call_id(piece.index), "type": "function"}
        name = {} if piece.name is None else {"name": piece.name}
        call = {"index": piece.index, **begins, "function": {**name, "arguments": piece.arguments}}
        return {"tool_calls": [call], **role}

    def _piece(self, body: dict[str, Any]) -> bytes:
        return self.framed(dumps({**self._completion.head(self.kind), **body}))

    def _end(self) -> bytes:
        return b""


class _AsOpenAiEvents(AsEvents):
    """Server-sent events with OpenAI's own end."""

    def _end(self) -> bytes:
        return b"data: [DONE]\n\n"


class EventsChat(_AsOpenAiEvents, JsonLinesChat):
    """The same chunks as server-sent events."""


class JsonLinesText(JsonLinesChat):
    """A `text_completion` a token, one on each line."""

    kind = "text_completion"

    def _choices(self, step: Step) -> list[dict[str, Any]]:
        before = self._asked.inputs if self._asked.return_full_text and self._count == 1 else ""
        reason = self._completion.reason(step)
        return [{"index": 0, "text": before + visible(step), "logprobs": None, "finish_reason": reason}]


class EventsText(_AsOpenAiEvents, JsonLinesText):
    """The same as server-sent events."""


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
