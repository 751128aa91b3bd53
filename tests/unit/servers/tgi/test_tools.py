"""Tool calls: the choice, the schema, and a call that comes in any pieces."""

from __future__ import annotations

import json
import re

import pytest

from penstock.servers.chat.schema_regex import to_regex
from penstock.servers.tgi.chat_schema import Function
from penstock.servers.tgi.errors import ToolError
from penstock.servers.tgi.tools import CallReader, Piece, chosen, grammar, parse_output

TOWN = Function(name="weather", arguments={"properties": {"town": {"type": "string"}}, "required": ["town"]})
NONE = Function(name="now", arguments={"type": "object"})


def read(pieces: list[str]) -> tuple[str | None, str, int]:
    """The name, the arguments, and how many pieces said something."""
    reader, said = CallReader(), []
    for piece in pieces:
        found = reader.push(piece)
        if isinstance(found, Piece):
            said.append(found)
    return said[0].name if said else None, "".join(piece.arguments for piece in said), len(said)


def test_the_choice() -> None:
    assert [tool.name for tool in chosen((TOWN, NONE), "auto")] == ["weather", "now", "no_tool"]
    assert chosen((TOWN, NONE), "required") == (TOWN, NONE)
    assert chosen((TOWN, NONE), Function(name="now")) == (NONE,)
    assert chosen((TOWN, NONE), "none") == ()
    with pytest.raises(ToolError, match="Tool error: Tool with name other not found"):
        chosen((TOWN,), Function(name="other"))


def test_the_schema_lets_calls_through_and_nothing_else() -> None:
    regex = re.compile(to_regex(grammar((TOWN, NONE)).value))
    assert regex.fullmatch('{"function": {"_name": "weather", "town": "Ulm"}}')
    assert regex.fullmatch('{"function":{"_name":"now"}}')
    assert not regex.fullmatch('{"function":{"_name":"weather"}}')
    assert not regex.fullmatch("{}")


def test_definitions_move_to_the_root() -> None:
    where = {"properties": {"at": {"$ref": "#/$defs/place"}}, "required": ["at"], "$defs": {"place": {"const": "Bonn"}}}
    regex = re.compile(to_regex(grammar((Function(name="go", arguments=where), NONE)).value))
    assert regex.fullmatch('{"function":{"_name":"go","at":"Bonn"}}')
    other = Function(name="stay", arguments={"$defs": {"place": {"const": "Ulm"}}})
    with pytest.raises(ToolError, match=r"two tools define place differently in their \$defs"):
        grammar((Function(name="go", arguments=where), other))


@pytest.mark.parametrize(
    "pieces",
    [
        list('{"function": {"_name": "weather", "town": "U{}lm"}}'),
        ['{"function": {"_name": "', 'weather", ', '"town": "U{}', 'lm"', "}}", "", " "],
        ['{"function": {"_name": "weather", "town": "U{}lm"}}'],
        ['{"function": {"_name": "weather", "town": "U{}lm"}', "}"],
    ],
)
def test_a_call_in_pieces(pieces: list[str]) -> None:
    name, arguments, _ = read(pieces)
    assert name == "weather"
    assert json.loads(arguments) == {"town": "U{}lm"}


def test_the_original_s_own_example() -> None:
    pieces = [
        '{"',
        "function",
        '":',
        ' {"',
        "_",
        "name",
        '":',
        ' "',
        "get",
        "_weather",
        '",',
        ' "',
        'x":',
        ' "c"',
        "}}",
    ]
    assert read(pieces) == ("get_weather", '{ "x": "c"}', 5)


def test_a_call_without_arguments() -> None:
    assert read(['{"function": {"_name": "now"', "}", "}"])[:2] == ("now", "{}")
    assert read(['{"function": {"_name": "now"}}'])[:2] == ("now", "{}")


def test_no_tool_is_told_before_its_end() -> None:
    reader = CallReader()
    assert [reader.push(piece) for piece in ('{"function": {"_name": "no', '_tool"', "}")] == [None, None, "no_tool"]


def test_a_whole_answer() -> None:
    assert parse_output('{"function": {"_name": "no_tool"}}') is None
    call = parse_output('{"function": {"_name": "weather", "town": "Ulm"}}')
    assert call is not None
    assert call.document() == {"description": None, "name": "weather", "arguments": '{"town":"Ulm"}'}
    with pytest.raises(ToolError) as caught:
        parse_output('{"function')
    text = 'Tool error: Failed to parse generated text: EOF while parsing a string at line 1 column 10 "{\\"function"'
    assert caught.value.text == text
