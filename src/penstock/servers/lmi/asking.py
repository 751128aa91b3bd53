"""What a request to a rolling batch asks for: text, or messages from 0.28 on.

Owns the way from a request to a prompt's text, checked parameters and the formatter of its answer. It must never generate.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.engines.chattemplate import ChatTemplate
from penstock.servers.lmi import chat, levels, parameters
from penstock.servers.lmi.chatformatters import Completion
from penstock.servers.lmi.formatters import Make
from penstock.servers.lmi.parameters import BadInput, TextParameters
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ModelSettings

MODEL_NAME = "lmi"
"""What an answer calls a model that its request did not name."""


@dataclass(frozen=True, slots=True)
class Ask:
    """`special` says whether the prompt gets its sequence's own tokens: a chat template has written them already."""

    inputs: str
    parameters: TextParameters
    formatter: Make
    special: bool = True


def read(request: Invocation, settings: ModelSettings, template: ChatTemplate | None) -> Ask:
    """Raises BadInput."""
    if settings.version >= (0, 28) and (body := chat_body(request)) is not None:
        return _chat(body, request, settings, template)
    return _text(request, settings)


def _text(request: Invocation, settings: ModelSettings) -> Ask:
    text = parameters.parse(request)
    if len(text.inputs) != 1:
        raise BadInput("inputs must be one string when rolling_batch is on: send a request for each")
    given = parameters.rolling(text.parameters, settings.version)
    tgi = settings.tgi_compat
    if tgi and text.parameters.get("details") is None:
        given = replace(given, details=True)
    formatter = levels.choose(settings.output_formatter, settings.version, text.stream, tgi=tgi)
    return Ask(text.inputs[0], given, formatter)


def chat_body(request: Invocation) -> Mapping[str, Any] | None:
    """The body, where it is a chat's: it holds `messages`, or came by the route for them."""
    data = request.data
    media = (request.attribute("content-type") or "").lower()
    # Nearly every request is none, and its body is then read once only.
    if not request.openai and (b'"messages"' not in data or media.startswith("text/")):
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(str(error)) from error
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    return value if request.openai or ("messages" in value and "inputs" not in value) else None


def _chat(body: Mapping[str, Any], request: Invocation, settings: ModelSettings, template: ChatTemplate | None) -> Ask:
    asked = chat.parse(body, settings.version)
    completion = Completion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=(asked.model or MODEL_NAME) if settings.version >= (0, 33) else "",
        logprobs=asked.logprobs,
        include_usage=asked.include_usage,
    )
    formatter = levels.chat(
        completion, stream=asked.stream, events=request.openai or settings.output_formatter == "sse"
    )
    return Ask(chat.prompt(template, asked), asked.parameters, formatter, special=False)
