"""Calls of functions in a chat's answer: what finds them, what makes the model call, and the exact pieces of an answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from penstock.engines.base import Grammar
from penstock.servers.chat import calls
from penstock.servers.lmi import chat, levels
from penstock.servers.lmi.chatformatters import Completion
from penstock.servers.lmi.formatters import Asked, Step
from penstock.servers.lmi.parameters import BadInput
from tests.unit.servers.lmi.test_chat import HELLO, TOOL, named

SAID = ("Well. ", "<tool_call>", '{"name": "weather", ', '"arguments": {"city"', ': "Oslo"}}', "</tool_call>")
WITH_TOOLS = {**HELLO, "tools": [TOOL]}


def steps(*texts: str, special: tuple[str, ...] = ()) -> list[Step]:
    told = [Step(number, text, -0.5, special=text in special) for number, text in enumerate(texts)]
    return [*told, Step(99, "</s>", -0.1, special=True, finish="eos_token")]


def answer(*texts: str, stream: bool, special: tuple[str, ...] = (), **completion: Any) -> list[Any]:
    made = Completion(id="chatcmpl-0123456789abcdef", created=5, **completion)
    formatter = levels.chat(made, stream=stream, events=False)(Asked(prompt_tokens=4))
    pieces = b"".join(formatter.step(step) for step in steps(*texts, special=special))
    return [json.loads(line)["choices"][0] for line in pieces.splitlines()]


def test_whose_answer_is_looked_through() -> None:
    assert chat.parse(WITH_TOOLS, (0, 36), "hermes").parser == "hermes"
    assert chat.parse({**WITH_TOOLS, "tool_choice": "auto"}, (0, 28), "hermes").parser == "hermes"
    assert chat.parse(HELLO, (0, 36), "hermes").parser == "", "there are no tools"
    assert chat.parse({**WITH_TOOLS, "tool_choice": "none"}, (0, 36), "hermes").parser == ""
    assert chat.parse(WITH_TOOLS, (0, 36)).parser == "", "enable_auto_tool_choice is off"


def test_a_function_that_must_be_called() -> None:
    asked = chat.parse({**WITH_TOOLS, "tool_choice": named("weather")}, (0, 36))
    assert (asked.function, asked.parser) == ("weather", "")
    assert asked.parameters.grammar is not None
    assert re.fullmatch(asked.parameters.grammar.text, '{"city": "Oslo"}')
    assert not re.fullmatch(asked.parameters.grammar.text, "{}")


def test_some_function_must_be_called() -> None:
    asked = chat.parse({**WITH_TOOLS, "tool_choice": "required"}, (0, 36))
    assert (asked.function, asked.parser) == ("", "required")
    assert asked.parameters.grammar is not None
    call = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    for text, fits in (
        (f"[{call}]", True),
        (f"[{call}, {call}]", True),
        ("[]", False),
        (call.replace("we", "o"), False),
    ):
        assert bool(re.fullmatch(asked.parameters.grammar.text, text)) is fits


def test_definitions_are_at_the_root() -> None:
    def tool(name: str, definition: str) -> dict[str, Any]:
        parameters = {"$defs": {"City": {"type": definition}}, "properties": {"city": {"$ref": "#/$defs/City"}}}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    body = {**HELLO, "tools": [tool("a", "string"), tool("b", "string")], "tool_choice": "required"}
    grammar = chat.parse(body, (0, 36)).parameters.grammar
    assert grammar is not None
    assert re.fullmatch(grammar.text, '[{"name": "b", "parameters": {"city": "Oslo"}}]'), "the references are found"
    with pytest.raises(BadInput, match="two tools define City differently"):
        chat.parse({**body, "tools": [tool("a", "string"), tool("b", "number")]}, (0, 36))


@pytest.mark.parametrize(
    ("given", "grammar"),
    [
        ({"type": "json_object"}, Grammar("json_schema", '{"type": "object"}')),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, 2]}}}, Grammar("regex", "(1|2)")),
    ],
)
def test_response_format(given: dict[str, Any], grammar: Grammar) -> None:
    assert chat.parse({**HELLO, "response_format": given}, (0, 36)).parameters.grammar == grammar
    assert chat.parse({**HELLO, "response_format": {"type": "text"}}, (0, 36)).parameters.grammar is None


def test_a_whole_answer_with_a_call() -> None:
    (choice,) = answer(*SAID, stream=False, reader=calls.reader("hermes"))
    assert choice["message"] == {
        "role": "assistant",
        "content": "Well. ",
        "tool_calls": [
            {
                "id": "chatcmpl-tool-0123456789abcdef00",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
            }
        ],
    }
    assert choice["finish_reason"] == "tool_calls"
    (alone,) = answer(*SAID[1:], stream=False, reader=calls.reader("hermes"), model="m")
    assert (alone["message"]["content"], alone["finish_reason"]) == (None, "tool_calls")
    (plain,) = answer("Well.", stream=False, reader=calls.reader("hermes"), model="m")
    assert plain["message"] == {"role": "assistant", "content": "Well."}
    assert plain["finish_reason"] == "stop"


def test_a_streamed_call() -> None:
    choices = answer(*SAID, stream=True, reader=calls.reader("hermes"), model="m")
    assert [choice["delta"] for choice in choices] == [
        {"content": "Well. ", "role": "assistant"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "chatcmpl-tool-0123456789abcdef00",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city"'},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "Oslo"}'}}]},
        {"content": ""},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "tool_calls"]


def test_a_mark_that_is_a_special_token_is_seen_and_others_are_not() -> None:
    said = ("[TOOL_CALLS]", '[{"name": "a", "arguments": {}}]', "<pad>")
    (choice,) = answer(
        *said, stream=False, special=("[TOOL_CALLS]", "<pad>"), reader=calls.reader("mistral"), short_ids=True
    )
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], choice["message"]["content"]) == ("a", None)
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


def test_a_function_that_was_made_to_be_called() -> None:
    (whole,) = answer('{"city": ', '"Oslo"}', stream=False, function="weather", model="m")
    assert whole["message"]["content"] == ""
    assert whole["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert whole["finish_reason"] == "stop"
    first, second, last = answer('{"city": ', '"Oslo"}', stream=True, function="weather", model="m")
    assert first["delta"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": '}
    assert second["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}
    assert last["finish_reason"] == "stop"


def test_a_list_of_calls_that_was_made() -> None:
    (whole,) = answer(
        '[{"name": "weather", "parameters": {"city": "Oslo"}}]', stream=False, reader=calls.reader("required")
    )
    assert whole["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert whole["finish_reason"] == "tool_calls"


def test_names_of_one_token_and_usage_come_once() -> None:
    made = Completion(id="chatcmpl-1", created=5, model="m", include_usage=True, reader=calls.reader("hermes"))
    formatter = levels.chat(made, stream=True, events=True)(Asked(prompt_tokens=4))
    events = b"".join(formatter.step(step) for step in steps(*SAID)).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert json.loads(events[-3].removeprefix(b"data: "))["usage"]["completion_tokens"] == len(SAID) + 1


THINKS = ("<think>", "hm", "</think>", "yes")


def test_thoughts_of_a_whole_answer() -> None:
    (choice,) = answer(*THINKS, stream=False, model="m", thinking="qwen3", special=("<think>", "</think>"))
    assert choice["message"] == {"role": "assistant", "reasoning_content": "hm", "content": "yes"}
    assert choice["finish_reason"] == "stop"
    (choice,) = answer("hm", stream=False, model="m", thinking="deepseek_r1")
    assert choice["message"] == {"role": "assistant", "reasoning_content": "hm", "content": None}
    (choice,) = answer("yes", stream=False, model="m", thinking="qwen3")
    assert choice["message"] == {"role": "assistant", "content": "yes"}


def test_thoughts_of_a_stream() -> None:
    choices = answer(*THINKS, stream=True, model="m", thinking="deepseek_r1")
    assert [choice["delta"] for choice in choices] == [
        {"reasoning_content": "hm", "role": "assistant"},
        {"content": "yes"},
        {"content": ""},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]


def test_thoughts_before_a_call() -> None:
    made: dict[str, Any] = {"model": "m", "thinking": "qwen3", "reader": calls.reader("hermes")}
    (choice,) = answer("<think>hm</think>", *SAID[1:], stream=False, **made)
    message = choice["message"]
    assert (message["reasoning_content"], message["content"], choice["finish_reason"]) == ("hm", None, "tool_calls")
    assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Oslo"}'}
