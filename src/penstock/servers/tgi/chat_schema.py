"""The bodies of the OpenAI routes, checked as the original's deserialiser checks them.

Owns their fields: the original takes a part of OpenAI's, in its own forms. What they mean is in `chat.py` and `completions.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from penstock.servers.tgi.fields import Fields, boolean, sequence, string, strings, u32, u64
from penstock.servers.tgi.grammar import GrammarType, read_grammar
from penstock.servers.tgi.serde import Mismatch, describe, f32


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function's definition, or a call of one: `arguments` is a JSON schema, or the values."""

    name: str
    description: str | None = None
    arguments: Any = None

    def document(self) -> dict[str, Any]:
        """As the original writes it, arguments as a string."""
        return {"description": self.description, "name": self.name, "arguments": compact(self.arguments)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a conversation: its text, or the tool calls that it is."""

    role: str
    content: str
    call_ids: tuple[str, ...] | None = None
    """The ids of the tool calls, where the message is some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    model: str | None = None
    messages: tuple[Message, ...]
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: tuple[Function, ...] | None = None
    tool_prompt: str = ""
    tool_choice: str | Function = "auto"
    """"auto", "none", "required", or the function that must be called."""
    response_format: GrammarType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    model: str | None = None
    prompts: tuple[str, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool = False
    seed: int | None = None
    suffix: str | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()


def chat_request(document: Any) -> ChatRequest:
    """Raises Mismatch."""
    fields = Fields(document, (), "struct ChatRequest")
    if "max_tokens" in fields.values and "max_completion_tokens" in fields.values:
        raise Mismatch((), "duplicate field `max_tokens`")
    name = "max_completion_tokens" if "max_completion_tokens" in fields.values else "max_tokens"
    fields.optional("n", u32)
    fields.optional("logit_bias", sequence(f32))
    return ChatRequest(
        model=fields.optional("model", string),
        messages=fields.required("messages", sequence(_message)),
        frequency_penalty=fields.optional("frequency_penalty", f32),
        presence_penalty=fields.optional("presence_penalty", f32),
        logprobs=fields.optional("logprobs", boolean) or False,
        top_logprobs=fields.optional("top_logprobs", u32),
        max_tokens=fields.optional(name, u32),
        stop=fields.optional("stop", strings) or (),
        stream=fields.plain("stream", boolean, False),
        include_usage=fields.plain("stream_options", _include_usage, False),
        seed=fields.optional("seed", u64),
        temperature=fields.optional("temperature", f32),
        top_p=fields.optional("top_p", f32),
        tools=fields.optional("tools", sequence(_tool)),
        tool_prompt=fields.optional("tool_prompt", string) or "",
        tool_choice=fields.optional("tool_choice", _tool_choice) or "auto",
        response_format=fields.optional("response_format", read_grammar),
    )


def completion_request(document: Any) -> CompletionRequest:
    """Raises Mismatch."""
    fields = Fields(document, (), "struct CompletionRequest")
    return CompletionRequest(
        model=fields.optional("model", string),
        prompts=fields.required("prompt", _prompts),
        max_tokens=fields.optional("max_tokens", u32),
        temperature=fields.optional("temperature", f32),
        top_p=fields.optional("top_p", f32),
        stream=fields.plain("stream", boolean, False),
        seed=fields.optional("seed", u64),
        suffix=fields.optional("suffix", string),
        repetition_penalty=fields.optional("repetition_penalty", f32),
        frequency_penalty=fields.optional("frequency_penalty", f32),
        stop=fields.optional("stop", strings) or (),
    )


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _prompts(value: Any) -> tuple[str, ...]:
    prompts = (value,) if isinstance(value, str) else value
    if not isinstance(prompts, tuple | list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise Mismatch((), "data did not match any variant of untagged enum PromptDeserializer")
    if not prompts:
        raise Mismatch((), "Empty array detected. Do not use an empty array for the prompt.")
    return tuple(prompts)


def _include_usage(value: Any) -> bool:
    return Fields(value, (), "struct StreamOptions").plain("include_usage", boolean, False)


def _message(value: Any) -> Message:
    fields = Fields(value, (), "struct Message")
    role = fields.required("role", string)
    fields.optional("name", string)
    content, calls = _content(fields.values.get("content")), fields.values.get("tool_calls")
    if content is not None:
        return Message(role=role, content=content)
    try:
        documents = sequence(_tool_call)(calls)
    except Mismatch:
        raise Mismatch((), "data did not match any variant of untagged enum MessageBody") from None
    return Message(role=role, content=compact(documents), call_ids=tuple(str(call["id"]) for call in documents))


def _content(value: Any) -> str | None:
    """A message's text, also of one in parts; None when it is of no form that the original takes."""
    if isinstance(value, str):
        return value
    parts = []
    for part in value if isinstance(value, list) else [None]:
        match part:
            case {"type": "text", "text": str(text)}:
                parts.append(text)
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                parts.append(f"![]({url})")
            case _:
                return None
    return "".join(parts)


def _tool_call(value: Any) -> dict[str, Any]:
    fields = Fields(value, (), "struct ToolCall")
    call = fields.required("function", _function)
    return {
        "id": fields.required("id", string),
        "type": fields.required("type", string),
        "function": call.document(),
    }


def _tool(value: Any) -> Function:
    fields = Fields(value, (), "struct Tool")
    fields.required("type", string)
    return fields.required("function", _function)


def _function(value: Any) -> Function:
    fields = Fields(value, (), "struct FunctionDefinition")
    if "parameters" in fields.values and "arguments" in fields.values:
        raise Mismatch((), "duplicate field `arguments`")
    if "parameters" not in fields.values and "arguments" not in fields.values:
        raise Mismatch((), "missing field `arguments`")
    return Function(
        name=fields.required("name", string),
        description=fields.optional("description", string),
        arguments=fields.values.get("parameters", fields.values.get("arguments")),
    )


def _tool_choice(value: Any) -> str | Function:
    match value:
        case "auto" | "none" | "required":
            return str(value)
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            return Function(name=name)
    raise Mismatch((), f"data did not match any variant of untagged enum ToolTypeDeserializer: {describe(value)}")
