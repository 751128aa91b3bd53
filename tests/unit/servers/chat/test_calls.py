"""Calls in a model's text: each dialect, whole and in any pieces, and what only looks like a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.servers.chat.calls import PARSERS, Called, Piece, Said, gather, reader, whole

OSLO = {"city": 'Oslo {"}]', "n": [1, {"a": 2}]}
CALL = json.dumps({"name": "weather", "arguments": OSLO})
LLAMA = json.dumps({"name": "weather", "parameters": OSLO})
TIME = '{"arguments": {}, "name": "time"}'
ARGUMENTS = json.dumps(OSLO)

DIALECTS = {
    "hermes": f"Let me see. <tool_call>\n{CALL}\n</tool_call>\n<tool_call>{TIME}</tool_call>",
    "mistral": f"Let me see. [TOOL_CALLS] [{CALL}, {TIME}]",
    "granite": f"Let me see. <|tool_call|>[{CALL}, {TIME}]",
    "granite-20b-fc": f"Let me see. <function_call> {CALL} <function_call> {TIME}",
    "internlm": f"Let me see. <|action_start|><|plugin|>{LLAMA}<|action_end|><|action_start|><|plugin|>{TIME}<|action_end|>",
    "jamba": f"Let me see. <tool_calls>[{CALL}, {TIME}]</tool_calls>",
    "phi4_mini_json": f"Let me see. functools[{CALL}, {TIME}]",
    "llama3_json": f"{LLAMA}; {TIME}",
    "llama4_json": f"<|python_tag|>{LLAMA};{TIME}",
    "pythonic": f"[weather(city={OSLO['city']!r}, n={OSLO['n']!r}), time()]",
    "llama4_pythonic": f"<|python_start|>[weather(city={OSLO['city']!r}, n={OSLO['n']!r}), time()]<|python_end|>",
    "required": f"[{LLAMA}, {TIME}]",
}


def test_every_parser_is_tried() -> None:
    assert set(DIALECTS) == {*PARSERS, "required"}


@pytest.mark.parametrize("name", DIALECTS)
def test_calls_are_found(name: str) -> None:
    said, calls = whole(reader(name)(), DIALECTS[name])
    assert said.strip() == ("Let me see." if DIALECTS[name].startswith("Let") else "")
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "weather", OSLO),
        (1, "time", {}),
    ]


@pytest.mark.parametrize("name", DIALECTS)
@settings(deadline=None)  # the clock of a busy machine says nothing of the code
@given(data=st.data())
def test_pieces_make_no_difference(name: str, data: st.DataObject) -> None:
    text = DIALECTS[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=20)))
    each = reader(name)()
    found: list[Piece] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += each.push(text[start:end])
    assert gather([*found, *each.end()]) == whole(reader(name)(), text)
    named = [piece.name for piece in found if isinstance(piece, Called) and piece.name]
    assert len(named) == len(set(named)), "a call's name comes once"


def test_arguments_come_as_they_are_made() -> None:
    each = reader("hermes")()
    assert each.push('<tool_call>{"name": "weather", "argu') == []
    assert each.push('ments": {"city": "Os') == [Called(0, '{"city": "Os', "weather")]
    assert each.push('lo"}') == [Called(0, 'lo"}')]
    assert each.push("}</tool_call>") == []


@pytest.mark.parametrize("name", ["hermes", "llama3_json", "mistral", "pythonic", "jamba"])
@pytest.mark.parametrize(
    "text",
    [
        "Plain words, with a < and a [ and <tool but no call.",
        '{"no": "call"}',
        "[1, 2, 3]",
        '{"name": 7}',
        "{broken",
        "[weather(7)]",
        "[weather(city=other)]",
        "",
        "<",
        "[",
        "{",
    ],
)
def test_what_is_no_call_stays_text(name: str, text: str) -> None:
    assert whole(reader(name)(), text) == (text, [])


def test_a_mark_without_a_call_stays_text() -> None:
    for text in ("<tool_call>hello", '<tool_call>\n{"a": 1}</tool_call>', "<tool_call>{broken"):
        assert whole(reader("hermes")(), text) == (text, [])


def test_text_before_and_after() -> None:
    said, calls = whole(reader("hermes")(), f"before <tool_call>{CALL}</tool_call>\nafter")
    assert (said, len(calls)) == ("before after", 1)


def test_mistrals_other_forms() -> None:
    for text in (
        f"[TOOL_CALLS]weather{ARGUMENTS}[TOOL_CALLS]time{{}}",
        f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}[TOOL_CALLS]time[ARGS]{{}}",
        f"[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]{ARGUMENTS}[TOOL_CALLS]time[ARGS]{{}}",
    ):
        for size in (1, 3, len(text)):
            each = reader("mistral")()
            pieces = [piece for at in range(0, len(text), size) for piece in each.push(text[at : at + size])]
            said, calls = gather([*pieces, *each.end()])
            assert (said, [call.name for call in calls]) == ("", ["weather", "time"])
            assert json.loads(calls[0].arguments) == OSLO


def test_arguments_that_are_a_string_and_that_are_missing() -> None:
    _, calls = whole(reader("hermes")(), '<tool_call>{"name": "a", "arguments": "{\\"x\\": 1}"}</tool_call>')
    assert calls == [Called(0, '{"x": 1}', "a")]
    assert whole(reader("hermes")(), '<tool_call>{"name": "a"}</tool_call>')[1] == [Called(0, "{}", "a")]


def test_an_answer_cut_off_within_a_call() -> None:
    assert whole(reader("hermes")(), '<tool_call>{"name": "a", "arguments": {"x"') == ("", [Called(0, '{"x"', "a")])
    assert Said("<tool_call>{") in [*(each := reader("hermes")()).push("<tool_call>{"), *each.end()]


def test_a_long_answer_takes_no_long_time() -> None:
    long = json.dumps({"name": "a", "arguments": {"x": "y" * 300_000}})
    each = reader("hermes")()
    pieces = [
        piece
        for at in range(0, len(long), 4)
        for piece in each.push(("<tool_call>" if not at else "") + long[at : at + 4])
    ]
    assert len(json.loads(gather(pieces)[1][0].arguments)["x"]) == 300_000
