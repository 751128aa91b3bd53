"""Tool calls: a JSON schema that makes the model name one function and its arguments, and reading what came of it.

Owns the schema, the reading of a whole answer, and of one that comes token by token. It must never know how either is worded for a client.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.servers.chat import schemas
from penstock.servers.chat.scan import Braces
from penstock.servers.chat.schemas import mapping
from penstock.servers.tgi.chat_schema import Function, compact
from penstock.servers.tgi.errors import BadBody, ToolError
from penstock.servers.tgi.grammar import GrammarType
from penstock.servers.tgi.serde import load

NO_TOOL = Function(
    name="no_tool", description="Open ended response with no specific tool selected", arguments={"type": "object"}
)
"""What the model calls where it may choose, and no function fits: it is asked again, without tools."""
_BEGIN = re.compile(r'\s*\{\s*"function"\s*:\s*\{\s*"_name"\s*:\s*("(?:[^"\\]|\\.)*")\s*([,}])')


def chosen(tools: Sequence[Function], choice: str | Function) -> tuple[Function, ...]:
    """The functions that may be called; none when tools are not to be used. Raises ToolError."""
    if isinstance(choice, Function):
        for tool in tools:
            if tool.name == choice.name:
                return (tool,)
        raise ToolError(f"Tool with name {choice.name} not found")
    match choice:
        case "none":
            return ()
        case "required":
            return tuple(tools)
    return (*tools, NO_TOOL)


def grammar(tools: Sequence[Function]) -> GrammarType:
    """`{"function": {"_name": …, arguments}}` for any of `tools`. Raises ToolError."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"function": {"anyOf": [_call_schema(tool) for tool in tools]}},
        "required": ["function"],
    }
    try:
        return GrammarType("json", schemas.with_definitions(schema, [tool.arguments for tool in tools]))
    except schemas.TwoDefinitions as error:
        raise ToolError(str(error)) from error


def _call_schema(tool: Function) -> dict[str, Any]:
    given = mapping(tool.arguments)
    required = given.get("required")
    return {
        "type": "object",
        "description": tool.description or "",
        "additionalProperties": False,
        "properties": {"_name": {"type": "string", "const": tool.name}, **mapping(given.get("properties"))},
        "required": ["_name", *(required if isinstance(required, list) else ())],
    }


def parse_output(text: str) -> Function | None:
    """The call that a whole answer is; None when the model chose no tool. Raises ToolError."""
    call = parse_call(text)
    if call is None:
        try:
            load(text.encode())
            problem = "missing field `function`"
        except BadBody as error:
            problem = error.text.partition(": ")[2]
        raise ToolError(f"Failed to parse generated text: {problem} {json.dumps(text, ensure_ascii=False)}")
    return None if call.name == NO_TOOL.name else call


def parse_call(text: str) -> Function | None:
    """The call, or None when the text is none, or not a whole one."""
    try:
        match json.loads(text):
            case {"function": {"_name": str(name), **arguments}}:
                return Function(name=name, arguments=arguments)
    except ValueError:
        pass
    return None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a call's arguments, as JSON text. `name` comes with the first one."""

    arguments: str
    name: str | None = None


class CallReader:
    """Reads a call that comes token by token."""

    def __init__(self) -> None:
        self._text = ""
        self._braces = Braces()
        self._state: Literal["name", "arguments", "end"] = "name"

    def push(self, text: str) -> Piece | Literal["no_tool"] | None:
        """What `text` adds to the call: nothing before its name is known and after its end."""
        self._text += text
        for character in text:
            self._braces.push(character)
        if self._state == "end":
            return None
        name = None
        if self._state == "name":
            begin = _BEGIN.match(self._text)
            if begin is None:
                return None
            name = str(json.loads(begin[1]))
            if name == NO_TOOL.name:
                return "no_tool"
            self._state = "arguments"
            text = "{" + self._text[begin.start(2) if begin[2] == "}" else begin.end() :]
        if self._braces.depth == 0:
            # The last brace is that of the object around the call.
            self._state = "end"
            text = text.rstrip()[:-1]
        return Piece(text, name)


def call_document(call: Function) -> dict[str, Any]:
    """A whole answer's `tool_calls[0]`."""
    return {"id": "0", "type": "function", "function": call.document()}


def tools_text(tools: Sequence[Function]) -> str:
    return compact(template_tools(tools))


def template_tools(tools: Sequence[Function]) -> list[dict[str, Any]]:
    """The tools as a chat template sees them."""
    return [{"type": "function", "function": tool.document()} for tool in tools]
