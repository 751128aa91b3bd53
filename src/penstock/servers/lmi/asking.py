"""What a request to a rolling batch asks for: text; messages from 0.28 on; OpenAI's prompt from 0.33 on.

Owns the way from a request to a prompt's text, checked parameters and the formatter of its answer. It must never generate.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.engines.chattemplate import ChatTemplate
from penstock.servers.chat import calls
from penstock.servers.lmi import bedrock, chat, levels, parameters
from penstock.servers.lmi.chatformatters import Completion
from penstock.servers.lmi.formatters import Make
from penstock.servers.lmi.laterformatters import Json3p, JsonLines3p
from penstock.servers.lmi.parameters import BadInput, Given, NoInputs, TextParameters
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.settings import ADAPTERS, ModelSettings
from penstock.servers.lmi.words import LATER_FORMATTERS

ADAPTER = "X-Amzn-SageMaker-Adapter-Identifier"
MODEL_NAME = "lmi"
"""What an answer calls a model that its request did not name."""


@dataclass(frozen=True, slots=True)
class Ask:
    """`special` says whether the prompt gets its sequence's own tokens: a chat template has written them already."""

    inputs: str
    parameters: TextParameters
    formatter: Make
    special: bool = True
    model: str = ""
    """What OpenAI's request calls it."""


def read(
    request: Invocation, settings: ModelSettings, template: ChatTemplate | None, adapters: Collection[str] = ()
) -> Ask:
    """`adapters` are those that OpenAI's `model` may name, from 0.34 on. Raises BadInput."""
    ask = _read(request, settings, template)
    adapter = _adapter(request) if settings.version >= ADAPTERS else ""
    if not adapter and settings.version >= (0, 34) and ask.model in adapters:
        adapter = ask.model
    return replace(ask, parameters=replace(ask.parameters, adapter=adapter)) if adapter else ask


def _adapter(request: Invocation) -> str:
    """The adapter that a header names, else the body's `adapters`. Raises BadInput on several."""
    if name := request.attribute(ADAPTER):
        return name
    media = (request.attribute("content-type") or "").lower()
    if b'"adapters"' not in request.data or media.startswith("text/"):
        return ""
    match request.document():
        case {"adapters": str(name) | [str(name)]}:
            return name
        case {"adapters": value} if value:
            raise BadInput("adapters must be one name: send a request for each")
    return ""


def _read(request: Invocation, settings: ModelSettings, template: ChatTemplate | None) -> Ask:
    if settings.bedrock_compat and "messages" not in (given := bedrock.body_of(request)):
        return _bedrock(given, request)
    if settings.version >= (0, 28) and (body := openai_body(request, settings.version)) is not None:
        later = settings.version >= (0, 33)
        if later and "prompt" in body and not request.openai:
            return _prompt(body, settings)
        if request.openai or "messages" in body:
            return _chat(body, request, settings, template)
    try:
        return _text(request, settings)
    except NoInputs:
        if settings.version < (0, 33):
            raise
        raise BadInput("invalid payload. must contain prompt, inputs, or messages") from None


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
    given = replace(given, logprobs=settings.version >= (0, 26))
    name = settings.output_formatter
    if (0, 28) <= settings.version < (0, 33):  # A request's own wins there; 0.33 no longer reads it.
        name = _formatter_name(text.parameters.get("output_formatter")) or name
    if name.endswith("_chat"):
        completion = _completion("chatcmpl", "", settings)
        return Ask(
            text.inputs[0], given, levels.chat(completion, stream=name != "json_chat", events=name == "sse_chat")
        )
    return Ask(text.inputs[0], given, levels.choose(name, settings.version, text.stream, tgi=tgi))


def _formatter_name(value: Any) -> str:
    if value is not None and value not in LATER_FORMATTERS:
        raise BadInput(f"output_formatter must be one of {', '.join(LATER_FORMATTERS)}")
    return str(value or "")


def _completion(prefix: str, model: str, settings: ModelSettings, **more: Any) -> Completion:
    return Completion(
        id=f"{prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=(model or MODEL_NAME) if settings.version >= (0, 33) else "",
        **more,
    )


def _bedrock(body: Mapping[str, Any], request: Invocation) -> Ask:
    prompt, given, stream = bedrock.read(body, request)
    return Ask(prompt, given, JsonLines3p if stream else Json3p)


def openai_body(request: Invocation, version: tuple[int, int]) -> Mapping[str, Any] | None:
    """The body, where it is OpenAI's: it came by the route for such, or holds `messages` and no `inputs`, or, from 0.33 on, a `prompt`."""
    data = request.data
    media = (request.attribute("content-type") or "").lower()
    likely = (b'"messages"' in data or b'"prompt"' in data) and not media.startswith("text/")
    if not likely and not request.openai:
        return None
    try:
        value = request.document()
    except (ValueError, RecursionError) as error:
        raise BadInput(str(error)) from error
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object")
    if request.openai or ("prompt" in value and version >= (0, 33)):
        return value
    return value if "messages" in value and "inputs" not in value else None


def _chat(body: Mapping[str, Any], request: Invocation, settings: ModelSettings, template: ChatTemplate | None) -> Ask:
    asked = chat.parse(body, settings.version, settings.tool_call_parser)
    completion = _completion(
        "chatcmpl",
        asked.model,
        settings,
        logprobs=asked.logprobs,
        include_usage=asked.include_usage,
        reader=calls.reader(asked.parser, chat.schemas_of(asked.tools)) if asked.parser else None,
        # A grammar holds the answer from its first token on, which leaves no room for thoughts.
        thinking=settings.reasoning_parser if asked.parameters.grammar is None else "",
        function=asked.function,
        short_ids=asked.parser == "mistral",
    )
    formatter = levels.chat(
        completion, stream=asked.stream, events=request.openai or settings.output_formatter in ("sse", "sse_chat")
    )
    given = replace(asked.parameters, logprobs=asked.logprobs)
    return Ask(chat.prompt(template, asked), given, formatter, special=False, model=asked.model)


def _prompt(body: Mapping[str, Any], settings: ModelSettings) -> Ask:
    given = Given(body)
    chat.refuse_what_no_engine_does(body, given)
    if given.whole("logprobs", 0, least=0):
        raise BadInput("logprobs is not supported with a prompt: send inputs with details")
    if not (prompt := given.text("prompt", "")):
        raise BadInput("prompt must be a string that is not empty: send a request for each")
    model = given.text("model", "")
    completion = _completion("cmpl", model, settings, include_usage=chat.wants_usage(body))
    asked = replace(
        chat.sampling(given, given.whole("max_tokens", 16, least=1)),
        return_full_text=given.flag("echo", False),
        grammar=chat.response_grammar(body),
        logprobs=False,
    )
    events = settings.output_formatter == "sse"
    formatter = levels.text_completion(completion, stream=given.flag("stream", False), events=events)
    return Ask(prompt, asked, formatter, model=model)
