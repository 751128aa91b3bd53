"""The body of a chat request: messages and OpenAI's parameters, as LMI takes them from 0.28 on.

Owns which keys are read, what is refused because no engine here can do it, and the way from messages to the model's own prompt. It must
never know what an answer looks like (`chatformatters.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.engines.chattemplate import ChatTemplate, TemplateError
from penstock.servers.lmi.parameters import MOST_TOP_TOKENS, BadInput, Given, TextParameters

UNBOUNDED = 2**31 - 1
"""As long as the model's positions allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A checked request. `model` is only echoed: a server's endpoint has one."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    parameters: TextParameters
    model: str
    stream: bool
    logprobs: bool
    include_usage: bool


def parse(body: Mapping[str, Any], version: tuple[int, int]) -> Chat:
    """Raises BadInput."""
    given = Given(body)
    refuse_what_no_engine_does(body, given)
    if body.get("tool_choice") not in (None, "none", "auto"):
        raise BadInput("tool_choice must be none or auto: this model's engine can't be made to call a tool")
    old = version < (0, 33)
    most = given.whole("max_tokens", 0, least=1) or (0 if old else given.whole("max_completion_tokens", 0, least=1))
    top = min(given.whole("top_logprobs", 0, least=0), MOST_TOP_TOKENS)
    logprobs = given.flag("logprobs", False)
    parameters = replace(sampling(given, most or (30 if old else 0)), top_logprobs=top if logprobs and not old else 0)
    return Chat(
        messages=tuple(_message(item) for item in _objects(body, "messages", least=1)),
        tools=() if body.get("tool_choice") == "none" else tuple(_objects(body, "tools")),
        parameters=parameters,
        model=given.text("model", ""),
        stream=given.flag("stream", False),
        logprobs=logprobs,
        include_usage=wants_usage(body),
    )


def sampling(given: Given, most: int) -> TextParameters:
    """OpenAI's parameters; `most` new tokens, 0 for as many as the model's positions allow. Raises BadInput."""
    temperature = given.real("temperature", 1.0, least=0.0, most=2.0)
    return TextParameters(
        max_new_tokens=most,
        max_length=UNBOUNDED,
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_k=max(0, given.whole("top_k", 0, least=-1)),
        top_p=given.real("top_p", 1.0, above=0.0, most=1.0),
        repetition_penalty=given.real("repetition_penalty", 1.0, above=0.0),
        frequency_penalty=given.real("frequency_penalty", 0.0, least=-2.0, most=2.0),
        presence_penalty=given.real("presence_penalty", 0.0, least=-2.0, most=2.0),
        seed=given.seed("seed"),
        stop_sequences=given.strings("stop"),
        ignore_eos=given.flag("ignore_eos", False),
    )


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream is to end with the counts of its tokens."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def prompt(template: ChatTemplate | None, chat: Chat) -> str:
    """The text that the model was trained to see for these messages. Raises BadInput."""
    if template is None:
        raise BadInput(
            "the model has no chat template: send inputs, or give it a chat_template in its tokenizer_config.json"
        )
    try:
        return template.render(chat.messages, tools=chat.tools or None)
    except (TemplateError, RecursionError) as error:
        raise BadInput(f"the chat template refuses the messages: {error}") from error


def refuse_what_no_engine_does(body: Mapping[str, Any], given: Given) -> None:
    """Raises BadInput rather than answer as if a parameter had not been there."""
    if given.whole("n", 1, least=1) != 1:
        raise BadInput("n must be 1: send a request for each choice")
    if body.get("logit_bias"):
        raise BadInput("logit_bias is not supported by this model's engine: leave it out")
    form = body.get("response_format")
    if form is not None and not (isinstance(form, dict) and form.get("type") == "text"):
        raise BadInput("response_format must be of type text: this model's engine can't be held to another")


def _objects(body: Mapping[str, Any], name: str, *, least: int = 0) -> list[dict[str, Any]]:
    value = body.get(name)
    if value is None and not least:
        return []
    if not isinstance(value, list) or len(value) < least or not all(isinstance(item, dict) for item in value):
        raise BadInput(f"{name} must be a list of objects{', not an empty one' if least else ''}")
    return value


def _message(value: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its content as one text; whatever else it has (tool calls, a name) is the template's affair."""
    if not isinstance(value.get("role"), str):
        raise BadInput("each of messages needs a role")
    content = value.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part) for part in content)
    if not isinstance(content, str) and not (content is None and "tool_calls" in value):
        raise BadInput("each of messages needs a content, a string or a list of parts")
    return {**value, "content": content}


def _part(value: Any) -> str:
    text = value.get("text") if isinstance(value, dict) and value.get("type") == "text" else None
    if not isinstance(text, str):
        raise BadInput("a part of a content must be of type text: this model reads nothing else")
    return text
