from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.servers.tgi.errors import BadBody
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.schema import Parameters, read_request
from penstock.servers.tgi.serde import check_content_type

T1, T3 = Level.parse("1.0.3"), Level.parse("3.3.7")
NOT_JSON = "Failed to parse the request body as JSON: "
NOT_FITTING = "Failed to deserialize the JSON body into the target type: "


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, NOT_JSON + "EOF while parsing a value at line 1 column 0"),
        (b"hello", 400, NOT_JSON + "expected value at line 1 column 1"),
        (b'{"inputs":\n"a"', 400, NOT_JSON + "EOF while parsing an object at line 2 column 3"),
        (b'{"inputs":"a"} x', 400, NOT_JSON + "trailing characters at line 1 column 16"),
        (b'{"inputs":"a', 400, NOT_JSON + "EOF while parsing a string at line 1 column 12"),
        (b"{inputs:1}", 400, NOT_JSON + "key must be a string at line 1 column 2"),
        (b'{"inputs":NaN}', 400, NOT_JSON + "expected value at line 1 column 11"),
        (b'{"a":"NaN \\"",\n "inputs":Infinity}', 400, NOT_JSON + "expected value at line 2 column 11"),
        (b'{"inputs":-Infinity}', 400, NOT_JSON + "invalid number at line 1 column 12"),
        (b'{"inputs":"\xff"}', 400, NOT_JSON + "invalid unicode code point at line 1 column 11"),
        (b'{"inputs":"\\ud800"}', 400, NOT_JSON + "lone leading surrogate in hex escape at line 1 column 19"),
        (b"[" * 100_000, 400, NOT_JSON + "recursion limit exceeded at line 1 column 128"),
        (b"{}", 422, NOT_FITTING + "missing field `inputs` at line 1 column 2"),
        (b"[]", 422, NOT_FITTING + "invalid type: sequence, expected struct CompatGenerateRequest at line 1 column 2"),
        (b'{"inputs":null}', 422, NOT_FITTING + "inputs: invalid type: null, expected a string at line 1 column 14"),
        (
            '{"é":{"a":[1,{}]},\n "inputs":["ü"]}'.encode(),
            422,
            NOT_FITTING + "inputs: invalid type: sequence, expected a string at line 2 column 16",
        ),
    ],
)
def test_bodies_that_are_not_read(body: bytes, status: int, text: str) -> None:
    with pytest.raises(BadBody) as caught:
        read_request(body, T1, with_stream=True)
    assert (caught.value.status, caught.value.text) == (status, text)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("temperature", "hot", 'invalid type: string "hot", expected f32'),
        ("temperature", True, "invalid type: boolean `true`, expected f32"),
        ("top_k", 1.5, "invalid type: floating point `1.5`, expected i32"),
        ("top_k", 2**31, "invalid value: integer `2147483648`, expected i32"),
        ("max_new_tokens", -1, "invalid value: integer `-1`, expected u32"),
        ("max_new_tokens", None, "invalid type: null, expected u32"),
        ("best_of", -1, "invalid value: integer `-1`, expected usize"),
        ("seed", 2**64, "invalid value: integer `18446744073709551616`, expected u64"),
        ("do_sample", None, "invalid type: null, expected a boolean"),
        ("stop", "x", 'invalid type: string "x", expected a sequence'),
        ("return_full_text", 1, "invalid type: integer `1`, expected a boolean"),
    ],
)
def test_parameters_of_the_wrong_type(name: str, value: Any, text: str) -> None:
    body = json.dumps({"inputs": "a", "parameters": {"details": True, name: value}}).encode()
    with pytest.raises(BadBody) as caught:
        read_request(body, T1, with_stream=False)
    assert caught.value.text == f"{NOT_FITTING}parameters.{name}: {text} at line 1 column {len(body) - 2}"


def test_a_member_of_a_list_is_named_by_its_index() -> None:
    with pytest.raises(BadBody, match=r"parameters\.stop\[1\]: invalid type: integer `5`, expected a string"):
        read_request(b'{"inputs":"a","parameters":{"stop":["x",5]}}', T1, with_stream=False)


def test_defaults_differ_between_levels() -> None:
    bare, empty = b'{"inputs":"a"}', b'{"inputs":"a","parameters":{}}'
    assert read_request(bare, T1, with_stream=False).parameters == Parameters(max_new_tokens=20)
    assert read_request(bare, T3, with_stream=False).parameters == Parameters(do_sample=True)
    assert read_request(empty, T3, with_stream=False).parameters == Parameters()
    assert read_request(empty, Level.parse("2.0.1"), with_stream=False).parameters == Parameters(max_new_tokens=100)


def test_unknown_fields_and_a_stream_where_none_is_looked_for_are_ignored() -> None:
    body = b'{"inputs":"a","stream":"maybe","parameters":{"no_such":1,"frequency_penalty":"x"}}'
    assert read_request(body, T1, with_stream=False).stream is False
    with pytest.raises(BadBody, match="stream: invalid type"):
        read_request(body, T1, with_stream=True)


def test_numbers_are_single_precision() -> None:
    request = read_request(b'{"inputs":"a","parameters":{"temperature":0.1,"top_p":1}}', T1, with_stream=False)
    assert request.parameters.temperature == 0.10000000149011612
    assert request.parameters.top_p == 1.0
    assert read_request(
        b'{"inputs":"a","parameters":{"temperature":1e300}}', T1, with_stream=False
    ).parameters.temperature == float("inf")


@pytest.mark.parametrize("value", ["application/json", "application/json; charset=utf-8", "application/x+json"])
def test_content_types_that_are_json(value: str) -> None:
    check_content_type(value)


@pytest.mark.parametrize("value", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json"])
def test_content_types_that_are_not(value: str | None) -> None:
    with pytest.raises(BadBody) as caught:
        check_content_type(value)
    assert (caught.value.status, caught.value.text) == (
        415,
        "Expected request with `Content-Type: application/json`",
    )
