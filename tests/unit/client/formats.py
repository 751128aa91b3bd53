"""How the model servers write an answer, in each format that `iter_tokens` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Writer = Callable[[Sequence[str]], bytes]


def _dumps(value: Any, *, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))


def lmi_jsonlines(pieces: Sequence[str]) -> bytes:
    """LMI 0.23, `output_formatter=jsonlines`: ASCII only, a blank behind the colon."""
    return "".join(json.dumps({"outputs": [piece]}) + "\n" for piece in pieces).encode()


def lmi_json(pieces: Sequence[str]) -> bytes:
    """LMI 0.23's default: one JSON text whose string grows."""
    return ('{"generated_text": "' + "".join(json.dumps(piece)[1:-1] for piece in pieces) + '"}').encode()


def lmi_json_raw(pieces: Sequence[str]) -> bytes:
    """The same with characters as they are and details at the end."""
    inner = "".join(json.dumps(piece, ensure_ascii=False)[1:-1] for piece in pieces)
    return ('{ "generated_text" : "' + inner + '" ,\n "details": {"finish_reason": "length"}}\n').encode()


def lmi_tokens(pieces: Sequence[str]) -> bytes:
    """LMI 0.28 and later, jsonlines: the last line repeats the whole text."""
    lines = [{"token": {"id": n, "text": piece, "log_prob": -0.5}} for n, piece in enumerate(pieces)]
    if lines:
        lines[-1] |= {"generated_text": "".join(pieces), "details": {"finish_reason": "length"}}  # type: ignore[dict-item]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def tgi(pieces: Sequence[str], *, field: str = "data:", index: bool = False) -> bytes:
    """TGI's events. 1.x writes no blank behind `data:`; later ones do, and count from 1. A comment now and then."""
    text = ""
    for n, piece in enumerate(pieces):
        last = n == len(pieces) - 1
        event = {"index": n + 1} if index else {}
        event |= {"token": {"id": n, "text": piece, "logprob": -0.5, "special": False}}  # type: ignore[dict-item]
        event |= {"generated_text": "".join(pieces) if last else None}  # type: ignore[dict-item]
        event |= {"details": {"finish_reason": "length"} if last and index else None}  # type: ignore[dict-item]
        text += (":\n\n" if n % 3 == 2 else "") + f"{field}{_dumps(event)}\n\n"
    return text.encode()


def tgi_3(pieces: Sequence[str]) -> bytes:
    return tgi(pieces, field="data: ", index=True)


def openai_chat(pieces: Sequence[str]) -> bytes:
    """Chat chunks: a role first, a finish reason last, usage with no choices, `[DONE]`."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces)]
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({"choices": [], "usage": {"completion_tokens": len(pieces)}})
    return ("".join(f"data: {_dumps(chunk)}\r\n\r\n" for chunk in chunks) + "data: [DONE]\r\n\r\n").encode()


def openai_completion(pieces: Sequence[str]) -> bytes:
    chunks = [{"choices": [{"index": 0, "text": piece, "finish_reason": None}]} for piece in pieces]
    return ("".join(f"data: {_dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n").encode()


def whole_lmi(pieces: Sequence[str]) -> bytes:
    return json.dumps({"generated_text": "".join(pieces)}).encode()


def whole_list(pieces: Sequence[str]) -> bytes:
    """TGI and the Hugging Face handlers, not streaming; DJL's is pretty-printed."""
    return json.dumps([{"generated_text": "".join(pieces)}], indent=2, ensure_ascii=False).encode()


def whole_openai(pieces: Sequence[str]) -> bytes:
    message = {"role": "assistant", "content": "".join(pieces)}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


WRITERS: list[Writer] = [
    lmi_jsonlines,
    lmi_json,
    lmi_json_raw,
    lmi_tokens,
    tgi,
    tgi_3,
    openai_chat,
    openai_completion,
    whole_lmi,
    whole_list,
    whole_openai,
]
ONE_BY_ONE: list[Writer] = [lmi_jsonlines, lmi_tokens, tgi, tgi_3]
