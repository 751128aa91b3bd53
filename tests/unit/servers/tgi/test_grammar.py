"""JSON schemas as regular expressions: what they let through."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from penstock.engines.base import Grammar
from penstock.servers.chat.schema_regex import NoRegex, to_regex
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.grammar import GrammarType, checked, read_grammar
from penstock.servers.tgi.serde import Mismatch

TWO = {"properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({**TWO, "required": ["a", "b"]}, ['{"a":1,"b":true}', '{ "a": -10, "b": false }'], ["{}", '{"b":true,"a":1}']),
        ({**TWO, "required": ["b"]}, ['{"b":true}', '{"a":1,"b":true}'], ['{"a":1}', '{,"b":true}']),
        ({**TWO, "required": ["a"]}, ['{"a":1}', '{"a":1,"b":true}'], ['{"b":true}', '{"a":1,}']),
        (TWO, ["{}", '{"a":1}', '{"b":true}', '{"a":1,"b":true}'], ['{"a":1 "b":true}', '{"a":01}', '{  }']),
        ({"properties": {}}, ["{}", "{ }"], ['{"a":1}']),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ['"é"', r'"\n"', '"ab"'], ['""', '"abc"', '"\n"']),
        ({"type": "string", "pattern": "^[a-c]+$"}, ['"abc"'], ['"d"', "abc"]),
        ({"type": "array", "items": {"type": "null"}}, ["[]", "[null]", "[null, null]"], ["[null,]", "null"]),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3},
         ["[null,null]", "[null,null,null]"], ["[null]", "[null,null,null,null]"]),
        ({"enum": ["a.b", 1, None]}, ['"a.b"', "1", "null"], ['"axb"']),
        ({"const": "x-[y]/z"}, ['"x-[y]/z"'], ['"x-y/z"']),
        ({"anyOf": [{"type": "number"}, {"$ref": "#/$defs/t"}], "$defs": {"t": {"type": ["boolean", "null"]}}},
         ["1.5e-3", "-0.5", "true", "null"], ['"1"', ".5"]),
    ],
)  # fmt: skip
def test_what_a_schema_lets_through(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    regex = re.compile(to_regex(schema))
    for text in good:
        assert regex.fullmatch(text), text
        json.loads(text)
    assert [text for text in bad if regex.fullmatch(text)] == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"self": {"$ref": "#/properties/self"}}},
        {"properties": {"any": {}}},
        {"properties": {"map": {"type": "object"}}},
        {"properties": {"when": {"type": "string", "format": "date"}}},
        {"properties": {"n": {"type": "integer", "minimum": 3}}},
        {"properties": {"n": {"$ref": "elsewhere.json"}}},
    ],
)
def test_other_schemas_are_the_engine_s_to_read(schema: dict[str, Any]) -> None:
    with pytest.raises(NoRegex):
        to_regex(schema)
    grammar = checked(GrammarType("json", schema), disabled=False)
    assert grammar == Grammar("json_schema", json.dumps({"type": "object", **schema}))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("a", 'invalid type: string "a", expected adjacently tagged enum GrammarType'),
        ({"value": 1}, "missing field `type`"),
        ({"type": "regex"}, "missing field `value`"),
        ({"type": "regex", "value": 1}, "invalid type: integer `1`, expected a string"),
        ({"type": "ebnf", "value": ""},
         "unknown variant `ebnf`, expected one of `json`, `json_object`, `regex`, `json_schema`"),
        ({"type": "json_schema", "value": {}}, "missing field `schema`"),
    ],
)  # fmt: skip
def test_shapes_that_are_none(given: Any, text: str) -> None:
    with pytest.raises(Mismatch) as caught:
        read_grammar(given)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{", "grammar is not valid: EOF while parsing an object at line 1 column 1"),
        ("[]", "grammar is not supported"),
        ({"type": "object"}, "grammar is not valid: Grammar must have a 'properties' field"),
    ],
)
def test_values_that_are_refused(value: Any, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        checked(GrammarType("json", value), disabled=False)
    assert caught.value.text == f"Input validation error: {text}"


def test_a_schema_may_come_as_text() -> None:
    schema = {"properties": {"a": {"const": 1}}}
    expected = checked(GrammarType("json", schema), disabled=False)
    assert checked(GrammarType("json", json.dumps(schema)), disabled=False) == expected
    assert checked(read_grammar({"type": "json_schema", "value": {"schema": schema}}), disabled=False) == expected


def test_a_long_schema_is_the_engine_s_to_read() -> None:
    schema = {"properties": {f"property_{n}": {"type": "string"} for n in range(200)}, "required": ["property_0"]}
    assert len(to_regex(schema)) > 4096
    assert checked(GrammarType("json", schema), disabled=False).kind == "json_schema"
