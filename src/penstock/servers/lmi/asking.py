"""What a request to a rolling batch asks for: text; messages from 0.28 on; OpenAI's prompt from 0.33 on.

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
from penstock.servers.lmi.parameters import BadInput, Given, TextParameters
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
    if settings.version >= (0, 28) and (body := openai_body(request)) is not None:
        if request.openai or "messages" in body:
            return _chat(body, request, settings, template)
        if settings.version >= (0, 33):
            return _prompt(body, settings)
    return _text(request, settings)


def _text(request: Invocation, settings: ModelSettings) -> Ask:
    text = parameters.parse(request)
    if len(text.inputs) != 1:
        raise BadInput("inputs must be one string when rolling_batch is on: send a request for each")
    given = parameters.rolling(text.parameters, settings.version)
    tgi = settings.tgi_compat
    if tgi and text.parameters.get("details") is None:
        given = replace(given, details=True)
    if not given.details:  # which alone tells of them
        given = replace(given, top_n_tokens=0)
    formatter = levels.choose(settings.output_formatter, settings.version, text.stream, tgi=tgi)
    return Ask(text.inputs[0], given, formatter)


def openai_body(request: Invocation) -> Mapping[str, Any] | None:
    """The body, where it is OpenAI's: it holds `messages` or a `prompt` and no `inputs`, or came by the route for such."""
    data = request.data
    media = (request.attribute("content-type") or "").lower()
    likely = (b'"messages"' in data or b'"prompt"' in data) and not media.startswith("text/")
    if not likely and not request.openai:  # nearly every request: its body is then read once only
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput(str(error)) from error
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    return value if request.openai or ("inputs" not in value and ("messages" in value or "prompt" in value)) else None


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


def _prompt(body: Mapping[str, Any], settings: ModelSettings) -> Ask:
    given = Given(body)
    chat.refuse_what_no_engine_does(body, given)
    if given.whole("logprobs", 0, least=0):
        raise BadInput("logprobs is not supported with a prompt: send inputs with details")
    if not (prompt := given.text("prompt", "")):
        raise BadInput("prompt must be a string that is not empty: send a request for each")
    completion = Completion(
        id=f"cmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=given.text("model", "") or MODEL_NAME,
        include_usage=chat.wants_usage(body),
    )
    asked = replace(
        chat.sampling(given, given.whole("max_tokens", 16, least=1)), return_full_text=given.flag("echo", False)
    )
    events = settings.output_formatter == "sse"
    return Ask(prompt, asked, levels.text_completion(completion, stream=given.flag("stream", False), events=events))
