"""What the scripted endpoints stream: a known text, in the three shapes that model servers write.

Owns the text and its spelling on the wire. It must never know cases. Each chunk is one token, as the model servers flush it; forms are
the spellings that are just as valid, and that real servers use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

Shape = Literal["lmi", "tgi", "openai"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
Form = Literal["usual", "no-final-newline", "crlf", "comments"]

TEXT = (
    "A penstock carries the river to the turbine: größer als gedacht, naïve café prices, 日本語のテキスト, привет, "
    "and boats 🙂🚣🏽‍♀️🛶 on it.\n"
    'It says {"flow": [1, 22, 333], "open": true} and "half \\ full" without spilling a byte;\n'
    "data: this line is no event, and {this brace is never closed.\n"
    "日本語、한국어, ελληνικά, עברית, हिन्दी 𝄞 e\u0301 — the last word is turbine."
)
"""Whole words of many scripts, marks that JSON must escape, and lines that look like a stream's own."""

_TYPES = {"lmi": "application/jsonlines", "tgi": "text/event-stream", "openai": "text/event-stream"}
_SSE_FORMS: tuple[Form, ...] = ("no-final-newline", "crlf", "comments")


@dataclass(frozen=True, slots=True)
class Content:
    """A stream: its chunks, in the order sent, and its Content-Type."""

    shape: Shape
    form: Form
    chunks: tuple[bytes, ...]

    @property
    def script(self) -> str:
        """The scripted server's script that streams it."""
        steps: list[dict[str, Any]] = [{"status": 200, "headers": {"content-type": _TYPES[self.shape]}}]
        steps += [{"send": chunk.decode()} for chunk in self.chunks]
        return json.dumps({"steps": steps}, ensure_ascii=False)

    @property
    def middle(self) -> int:
        """A number of bytes that ends inside a chunk, about half way: inside the JSON of a token."""
        half, sent = sum(map(len, self.chunks)) // 2, 0
        for chunk in self.chunks:
            if sent + len(chunk) > half:
                return sent + len(chunk) // 2
            sent += len(chunk)
        return sent


def forms(shape: Shape) -> tuple[Form, ...]:
    """The spellings of a shape beside the usual one."""
    return ("no-final-newline", "crlf") if shape == "lmi" else _SSE_FORMS


def content(shape: Shape, form: Form = "usual") -> Content:
    """The known text in a shape and a form."""
    chunks = [chunk.encode() for chunk in _WRITERS[shape](pieces())]
    if form == "crlf":
        chunks = [chunk.replace(b"\n", b"\r\n") for chunk in chunks]
    elif form == "comments":
        chunks = [part for chunk in chunks for part in (b": keep-alive\n\n", chunk)]
    elif form == "no-final-newline":
        chunks[-1] = chunks[-1].rstrip(b"\n")
    return Content(shape, form, tuple(chunks))


def pieces() -> list[str]:
    """The text in tokens: words with their leading blank, long ones in two."""
    words = re.findall(r"\s*[^\s]+", TEXT)
    return [piece for word in words for piece in (word[:5], word[5:]) if piece]


def _lmi(tokens: list[str]) -> Iterator[str]:
    """LMI 0.23, `output_formatter=jsonlines`: ASCII only."""
    for token in tokens:
        yield json.dumps({"outputs": [token]}) + "\n"


def _tgi(tokens: list[str]) -> Iterator[str]:
    """TGI 3: the last event repeats the whole text."""
    for index, token in enumerate(tokens, 1):
        last = index == len(tokens)
        event = {
            "index": index,
            "token": {"id": 1000 + index, "text": token, "logprob": -0.5, "special": False},
            "generated_text": "".join(tokens) if last else None,
            "details": {"finish_reason": "length", "generated_tokens": index, "seed": None} if last else None,
        }
        yield f"data: {_compact(event)}\n\n"


def _openai(tokens: list[str]) -> Iterator[str]:
    """vLLM's chat completions: a role, the tokens, a finish reason, `[DONE]`."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": token} for token in tokens)]
    for delta in deltas:
        yield f"data: {_compact(_chunk(delta, None))}\n\n"
    yield f"data: {_compact(_chunk({}, 'stop'))}\n\n"
    yield "data: [DONE]\n\n"


def _chunk(delta: dict[str, str], reason: str | None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_WRITERS: dict[Shape, Callable[[list[str]], Iterator[str]]] = {"lmi": _lmi, "tgi": _tgi, "openai": _openai}
