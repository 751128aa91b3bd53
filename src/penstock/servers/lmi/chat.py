"""The body of a chat request: messages and OpenAI's parameters, as LMI takes them from 0.28 on.

Owns which keys are read, what is refused because no engine here can do it, what the answer is held to, and the way from messages to the
model's own prompt. It must never know what an answer looks like (`chatformatters.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.engines.base import Grammar
from penstock.engines.chattemplate import ChatTemplate, TemplateError
from penstock.servers.chat import schemas
from penstock.servers.chat.schema_regex import as_grammar
from penstock.servers.lmi.parameters import MOST_TOP_TOKENS, BadInput, Given, TextParameters

UNBOUNDED = 2**31 - 1
"""As long as the model's positions allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A checked request. `model` is echoed, and may name an adapter."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...]
    parameters: TextParameters
    model: str
    stream: bool
    logprobs: bool
    include_usage: bool
    parser: str = ""
    """What finds calls in the answer, a name of `servers/chat/calls.py`; empty leaves it as text."""
    function: str = ""
    """The function that the answer is the arguments of."""


def parse(body: Mapping[str, Any], version: tuple[int, int], parser: str = "") -> Chat:
    """`parser` is the model's, where it may call tools by itself. Raises BadInput."""
    given = Given(body)
    refuse_what_no_engine_does(body, given)
    tools = () if body.get("tool_choice") == "none" else tuple(_objects(body, "tools"))
    choice = _choice(body.get("tool_choice"), tools)
    grammar = response_grammar(body)
    if choice not in ("none", "auto"):
        if grammar is not None:
            raise BadInput("response_format and a tool_choice that makes the model call exclude each other")
        grammar = _call_grammar(choice, tools)
    old = version < (0, 33)
    most = given.whole("max_tokens", 0, least=1) or (0 if old else given.whole("max_completion_tokens", 0, least=1))
    top = min(given.whole("top_logprobs", 0, least=0), MOST_TOP_TOKENS)
    logprobs = given.flag("logprobs", False)
    parameters = replace(sampling(given, most or (30 if old else 0)), top_logprobs=top if logprobs and not old else 0)
    return Chat(
        messages=tuple(_message(item) for item in _objects(body, "messages", least=1)),
        tools=tools,
        parameters=replace(parameters, grammar=grammar),
        model=given.text("model", ""),
        stream=given.flag("stream", False),
        logprobs=logprobs,
        include_usage=wants_usage(body),
        parser={"none": "", "auto": parser if tools else "", "required": "required"}.get(choice, ""),
        function="" if choice in ("none", "auto", "required") else choice,
    )


def _choice(value: Any, tools: tuple[Mapping[str, Any], ...]) -> str:
    """`none`, `auto`, `required`, or the name of one of the tools. Raises BadInput."""
    match value:
        case None:
            return "auto" if tools else "none"
        case "none" | "auto":
            return str(value)
        case "required" if tools:
            return "required"
        case {"type": "function", "function": {"name": str(name)}}:
            if name in _functions(tools):
                return name
            raise BadInput(f"tool_choice names {name}, which is not among the tools")
    raise BadInput("tool_choice must be none, auto, required or a function, and the last two need tools")


def _functions(tools: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """The tools' names, with the schemas of their parameters. Raises BadInput."""
    found = {}
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise BadInput("each of tools needs a function with a name")
        found[name] = function.get("parameters")
    return found


def schemas_of(tools: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """The schemas of the parameters of tools that have a name; others are the template's affair."""
    functions = [function for tool in tools if isinstance(function := tool.get("function"), dict)]
    return {str(function["name"]): function.get("parameters") for function in functions if "name" in function}


def _call_grammar(choice: str, tools: tuple[Mapping[str, Any], ...]) -> Grammar:
    functions = _functions(tools)
    if choice != "required":
        return _schema_grammar(schemas.mapping(functions[choice]) or {"type": "object", "properties": {}})
    try:
        return _schema_grammar(schemas.any_calls(functions))
    except schemas.TwoDefinitions as error:
        raise BadInput(str(error)) from error


def response_grammar(body: Mapping[str, Any]) -> Grammar | None:
    """What `response_format` holds the answer to. Raises BadInput."""
    match body.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return _schema_grammar({"type": "object"})
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return _schema_grammar(schema)
    raise BadInput(
        "response_format must be of type text, json_object or json_schema, the last with a json_schema.schema"
    )


def _schema_grammar(schema: Mapping[str, Any]) -> Grammar:
    try:
        grammar = as_grammar(schema, schema)
        grammar.text.encode()
        return grammar
    except UnicodeEncodeError as error:
        raise BadInput(f"the JSON schema holds half a character: {error}") from error
    except RecursionError:
        raise BadInput("the JSON schema is nested too deeply") from None


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
