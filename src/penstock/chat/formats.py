"""Which request body a model server wants.

Owns the three request formats and the rule that tells them apart by a container image's name. It must never know AWS's
APIs, nor how the answer is written: `penstock.client` tells that from the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

Format: TypeAlias = Literal["LMI", "TGI", "OpenAI"]
FORMATS: tuple[Format, ...] = ("LMI", "TGI", "OpenAI")
Turn: TypeAlias = tuple[Literal["user", "assistant"], str]

_BY_IMAGE: tuple[tuple[str, Format], ...] = (
    ("djl-inference", "LMI"),
    ("huggingface-pytorch-tgi-inference", "TGI"),
    ("penstock/lmi", "LMI"),
    ("penstock/tgi", "TGI"),
    ("vllm", "OpenAI"),
    ("sglang", "OpenAI"),
)


def format_of(image: str | None) -> Format:
    """The format that a container image takes. TGI's for an unknown one: LMI takes its body too."""
    registry, slash, path = (image or "").partition("/")
    repository = path if slash and "." in registry else image or ""
    return next((name for part, name in _BY_IMAGE if part in repository), "TGI")


def request_body(name: Format, turns: Sequence[Turn], *, tokens: int, temperature: float) -> bytes:
    """The JSON body that asks for an answer to the last turn, streamed.

    LMI and TGI complete a prompt, so only the last turn is sent; OpenAI-style servers get the conversation. LMI samples
    only with `do_sample`; LMI 0.23 streams without being asked and skips `stream`, later ones need it.
    """
    body: dict[str, Any]
    prompt = turns[-1][1]
    if name == "LMI":
        parameters: dict[str, Any] = {"max_new_tokens": tokens, "temperature": temperature, "do_sample": True}
        body = {"inputs": prompt, "parameters": parameters, "stream": True}
    elif name == "TGI":
        parameters = {
            "max_new_tokens": tokens,
            "temperature": temperature,
            "do_sample": True,
            "return_full_text": False,
        }
        body = {"inputs": prompt, "parameters": parameters, "stream": True}
    else:
        messages = [{"role": role, "content": text} for role, text in turns]
        body = {"model": "", "messages": messages, "max_tokens": tokens, "temperature": temperature, "stream": True}
    return json.dumps(body, ensure_ascii=False).encode()
