"""From a conversation to a native request: template, tools, and the parameters' other names.

Owns what a chat request means. It must never generate, nor word an answer.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from penstock.engines.chattemplate import ChatTemplate, MissingTemplateVariable, TemplateError
from penstock.servers.tgi import tools
from penstock.servers.tgi.chat_schema import ChatRequest, CompletionRequest, Function, Message
from penstock.servers.tgi.errors import MissingVariable, TemplateFailed, TgiError, ToolError
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.schema import Parameters, Request

TOOL_PROMPT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its proper arguments that best answers "
    "the given prompt. Respond in the format {name: function name, parameters: dictionary of argument name and its value}."
    "Do not use variables.\n"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What to generate for a conversation. `using_tools`: the text will be a call."""

    request: Request
    using_tools: bool


def turn(chat: ChatRequest, template: ChatTemplate | None, level: Level, adapter: str | None = None) -> Turn:
    """`adapter` is the one that the request's `model` names. Raises TgiError: the template's, or that of tools."""
    if chat.response_format is not None and chat.tools is not None:
        raise ToolError("Grammar and tools are mutually exclusive")
    callable_ = () if chat.tools is None else tools.chosen(chat.tools, chat.tool_choice)
    grammar = tools.grammar(callable_) if callable_ else chat.response_format
    prompt = _render(template, chat.messages, callable_, chat.tool_prompt or TOOL_PROMPT)
    do_sample, temperature = sampled(chat.temperature)
    parameters = Parameters(
        temperature=temperature,
        repetition_penalty=None if chat.presence_penalty is None else chat.presence_penalty + 2.0,
        frequency_penalty=chat.frequency_penalty,
        top_p=chat.top_p,
        do_sample=do_sample,
        max_new_tokens=level.default_max_new_tokens if chat.max_tokens is None else chat.max_tokens,
        stop=chat.stop,
        details=True,
        seed=chat.seed,
        top_n_tokens=chat.top_logprobs,
        grammar=grammar,
        adapter_id=adapter,
    )
    return Turn(Request(inputs=prompt, parameters=parameters, stream=chat.stream, special=False), bool(callable_))


def without_tools(chat: ChatRequest) -> ChatRequest:
    """The same, for a model that chose no tool."""
    return replace(chat, tools=None, response_format=None)


def completions(
    given: CompletionRequest, level: Level, max_batch: int, adapter: str | None = None
) -> tuple[Request, ...]:
    """One native request a prompt. Raises TgiError."""
    if given.suffix is not None:
        text = "Suffix is not supported and can be achieved by preprocessing the prompt."
        raise TgiError(422, text, "suffix not supported")
    if len(given.prompts) > max_batch:
        text = f"Number of prompts exceeds the maximum allowed batch size of {max_batch}"
        raise TgiError(422, text, "batch size exceeded")
    do_sample, temperature = sampled(given.temperature)
    parameters = Parameters(
        temperature=temperature,
        repetition_penalty=given.repetition_penalty,
        frequency_penalty=given.frequency_penalty,
        top_p=given.top_p,
        do_sample=do_sample,
        max_new_tokens=level.default_max_new_tokens if given.max_tokens is None else given.max_tokens,
        stop=given.stop,
        details=True,
        seed=given.seed,
        adapter_id=adapter,
    )
    return tuple(Request(inputs=prompt, parameters=parameters, stream=given.stream) for prompt in given.prompts)


def sampled(temperature: float | None) -> tuple[bool, float | None]:
    """OpenAI's temperature in native terms: only 0 is greedy."""
    return (False, None) if temperature == 0 else (True, temperature)


def next_call_id(messages: tuple[Message, ...]) -> str:
    """One more than the conversation's highest; something unique where those are no numbers."""
    ids = [number for message in messages for number in message.call_ids or ()]
    if not all(number.isdecimal() for number in ids):
        return str(uuid.uuid4())
    return str(max((int(number) + 1 for number in ids), default=0))


def _render(
    template: ChatTemplate | None, messages: tuple[Message, ...], callable_: tuple[Function, ...], tool_prompt: str
) -> str:
    if template is None:
        raise TemplateFailed("template not found")
    said: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in messages]
    if callable_ and messages and messages[-1].call_ids is None:
        described = "" if template.uses_tools else tools.tools_text(callable_) + "\n"
        said[-1]["content"] += f"\n---\n{described}{tool_prompt}"
    try:
        prompt = template.render(said, tools=tools.template_tools(callable_))
    except MissingTemplateVariable as error:
        raise MissingVariable(str(error)) from error
    except TemplateError as error:
        raise TemplateFailed(str(error)) from error
    if said and said[-1]["role"] == "assistant":
        # The answer goes on where the last message stops.
        at = prompt.rfind(said[-1]["content"])
        if at >= 0:
            return prompt[: at + len(said[-1]["content"])].rstrip()
    return prompt
