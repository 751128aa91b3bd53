"""Thoughts told apart from the answer, whole and in any pieces."""

from __future__ import annotations

import json

import pytest

from penstock.servers.chat.calls import reader
from penstock.servers.chat.pieces import Called, Piece, Said, Thought
from penstock.servers.chat.thinking import PARSERS, ThinkingReader


def read(parser: str, text: str, size: int, tools: str = "") -> tuple[str, str, list[Called]]:
    """Thoughts, text and calls."""
    each = ThinkingReader(parser, reader(tools)() if tools else None)
    pieces: list[Piece] = [piece for at in range(0, len(text), size) for piece in each.push(text[at : at + size])]
    pieces += each.end()
    kinds = [isinstance(piece, Thought) for piece in pieces]
    assert kinds == sorted(kinds, reverse=True), "thoughts come first"
    return (
        "".join(piece.text for piece in pieces if isinstance(piece, Thought)),
        "".join(piece.text for piece in pieces if isinstance(piece, Said)),
        [piece for piece in pieces if isinstance(piece, Called)],
    )


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "deepseek", "qwen"),
    [
        ("<think>\nhm\n</think>\n\nyes", ("\nhm\n", "\n\nyes"), ("\nhm\n", "\n\nyes")),
        ("\n<think>hm</think>yes</think>", ("hm", "yes</think>"), ("hm", "yes</think>")),
        ("hm</think>yes", ("hm", "yes"), ("", "hm</think>yes")),
        ("hm < </thin", ("hm < </thin", ""), ("", "hm < </thin")),
        ("<think>hm </th", ("hm </th", ""), ("hm </th", "")),
        ("<thi", ("<thi", ""), ("", "<thi")),
        ("<think></think>yes", ("", "yes"), ("", "yes")),
        ("a <think> b", ("a <think> b", ""), ("", "a <think> b")),
        ("", ("", ""), ("", "")),
    ],
)
def test_thoughts_and_answer(text: str, deepseek: tuple[str, str], qwen: tuple[str, str], size: int) -> None:
    assert read("deepseek_r1", text, size)[:2] == deepseek
    assert read("qwen3", text, size)[:2] == qwen


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("parser", PARSERS)
def test_calls_are_found_behind_thoughts_alone(parser: str, size: int) -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    thought, said, calls = read(parser, f"<think>maybe {call}</think>so {call}", size, "hermes")
    assert (thought, said) == (f"maybe {call}", "so ")
    assert {each.name for each in calls} - {None} == {"f"}
    assert json.loads("".join(each.arguments for each in calls)) == {}


def test_a_thought_comes_as_it_is_made() -> None:
    each = ThinkingReader("deepseek_r1")
    assert each.push("<think>") == []
    assert each.push("hm, ") == [Thought("hm, ")]
    assert each.push("so</thi") == [Thought("so")]
    assert each.push("nk>yes") == [Said("yes")]
