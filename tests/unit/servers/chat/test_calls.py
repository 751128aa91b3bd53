"""Calls in a model's text: each dialect, whole and in any pieces, and what only looks like a call."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.servers.chat.calls import PARSERS, gather, reader, whole
from penstock.servers.chat.pieces import Called, Piece, Said

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
    "deepseek_v3": (
        "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        f"{ARGUMENTS}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>time\n```json\n"
        "{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "qwen3_coder": (
        f"Let me see.\n<tool_call>\n<function=weather>\n<parameter=city>\n{OSLO['city']}\n</parameter>\n<parameter=n>\n"
        '[1, {"a": 2}]\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n</tool_call>'
    ),
}
FUNCTIONS = {"weather": {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "array"}}}}


def test_every_parser_is_tried() -> None:
    assert set(DIALECTS) == {*PARSERS, "required"}


@pytest.mark.parametrize("name", DIALECTS)
def test_calls_are_found(name: str) -> None:
    said, calls = whole(reader(name, FUNCTIONS)(), DIALECTS[name])
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
    each = reader(name, FUNCTIONS)()
    found: list[Piece] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += each.push(text[start:end])
    assert gather([*found, *each.end()]) == whole(reader(name, FUNCTIONS)(), text)
    named = [piece.name for piece in found if isinstance(piece, Called) and piece.name]
    assert len(named) == len(set(named)), "a call's name comes once"


def test_arguments_come_as_they_are_made() -> None:
    each = reader("hermes")()
    assert each.push('<tool_call>{"name": "weather", "argu') == []
    assert each.push('ments": {"city": "Os') == [Called(0, '{"city": "Os', "weather")]
    assert each.push('lo"}') == [Called(0, 'lo"}')]
    assert each.push("}</tool_call>") == []


@pytest.mark.parametrize(
    "name", ["hermes", "llama3_json", "mistral", "pythonic", "jamba", "deepseek_v3", "qwen3_coder"]
)
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


CALL_BEGINS = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"


@pytest.mark.parametrize(
    "text",
    [
        "<｜tool▁calls▁begin｜>",
        f"{CALL_BEGINS}function",
        f"{CALL_BEGINS}no separator, but words",
        f"a {CALL_BEGINS}function<｜tool▁sep｜>f\nno fence",
        f"{CALL_BEGINS}function<｜tool▁sep｜>f\n```json\n[1]\n```",
        "<｜tool▁calls▁begin｜>words",
    ],
)
def test_deepseeks_marks_without_a_call_stay_text(text: str) -> None:
    for size in (1, 5, len(text)):
        each = reader("deepseek_v3")()
        pieces = [piece for at in range(0, len(text), size) for piece in each.push(text[at : at + size])]
        assert gather([*pieces, *each.end()]) == (text, [])


def test_deepseeks_arguments_come_as_they_are_made() -> None:
    each = reader("deepseek_v3")()
    assert each.push(f"{CALL_BEGINS}function<｜tool▁sep｜>f\n```json\n") == []
    assert each.push('{"x": "}') == [Called(0, '{"x": "}', "f")]
    assert each.push('"}\n``') == [Called(0, '"}')]
    assert [*each.push("`<｜tool▁call▁end｜><｜tool▁calls▁end｜>"), *each.push(" after"), *each.end()] == [
        Said(" after")
    ]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "7", "7"),
        ({"type": "integer"}, "7", 7),
        ({"type": "number"}, " 7.5 ", 7.5),
        ({"type": "boolean"}, "True", True),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "integer"}, "seven", "seven"),
        ({"type": ["string", "null"]}, "null", None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({}, "7", "7"),
        (None, "two\nlines", "two\nlines"),
    ],
)
def test_a_schema_says_what_qwens_values_are(schema: object, text: str, value: object) -> None:
    functions = {"f": {"properties": {"x": schema}}}
    said = f"<tool_call><function=f><parameter=x>\n{text}\n</parameter></function></tool_call> after"
    assert whole(reader("qwen3_coder", functions)(), said) == (" after", [Called(0, json.dumps({"x": value}), "f")])


def test_qwens_call_without_its_mark_and_one_that_is_cut_off() -> None:
    bare = "so <function=f><parameter=x>1<parameter=y>2</parameter></function>done"
    assert whole(reader("qwen3_coder")(), bare) == ("so done", [Called(0, '{"x": "1", "y": "2"}', "f")])
    for cut in ("<tool_call><function=f><parameter=x>1", "<tool_call>\n<func", "<tool_call>words"):
        assert whole(reader("qwen3_coder")(), cut) == (cut, [])


def test_qwens_long_call_takes_no_long_time() -> None:
    long = f"<tool_call><function=f><parameter=x>{'y' * 300_000}</parameter></function></tool_call>"
    each = reader("qwen3_coder")()
    pieces = [piece for at in range(0, len(long), 4) for piece in each.push(long[at : at + 4])]
    assert len(json.loads(gather(pieces)[1][0].arguments)["x"]) == 300_000
