"""Calls of functions in what a model says, in the dialects that models were trained on.

Owns the reading of each dialect, in pieces: a whole text is one piece. What looks like a call and is none stays text. It must never
know how a call is worded for a client.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.servers.chat.deepseek import DeepSeekReader
from penstock.servers.chat.pieces import Called, Piece, Reader, Said, mark_at, said
from penstock.servers.chat.qwencoder import QwenCoderReader
from penstock.servers.chat.scan import Braces


@dataclass(frozen=True, slots=True)
class Dialect:
    """JSON calls: after one of `begins`, where there is one, as objects, in a list or one after the other, up to one of `ends`.

    `bare` also takes a text that begins with the call itself. `named` takes `name{…}` and `name[ARGS]{…}` after the mark.
    """

    begins: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bare: bool = False
    named: bool = False


class JsonReader:
    """Reads a `Dialect`."""

    def __init__(self, dialect: Dialect) -> None:
        self.marks = (*dialect.begins, *dialect.ends, *(_NAMED_MARKS if dialect.named else ()))
        self._dialect = dialect
        self._held = ""
        self._skipped = ""
        """What was read since the last call, for when it turns out that there is none."""
        self._calling = False
        self._ended = False
        self._started = not dialect.bare
        self._count = 0
        self._object: _Object | None = None

    def push(self, text: str) -> list[Piece]:
        self._held += text
        found: list[Piece] = []
        while self._held:
            before = (self._held, self._calling, self._object)
            if self._object is not None:
                self._read_object(self._object, found)
            elif self._calling:
                self._between(found)
            else:
                self._talk(found)
            if (self._held, self._calling, self._object) == before:
                break
        return found

    def end(self) -> list[Piece]:
        rest = self._held
        if self._object is not None:
            rest = self._object.given_up()
        elif self._calling and any(mark.startswith(rest.strip()) for mark in self._dialect.ends or ("",)):
            rest = ""
        skipped = self._skipped if rest or not self._count else ""
        self._held, self._skipped, self._object = "", "", None
        return said(skipped + rest)

    def _talk(self, found: list[Piece]) -> None:
        """Text, up to a mark; what may be the beginning of a mark is held back."""
        if not self._started:
            stripped = self._held.lstrip()
            if not stripped or any(begin.startswith(stripped) and begin != stripped for begin in self._dialect.begins):
                return
            self._started = True
            if stripped[0] in "{[":
                self._calling = True
                return
        if self._ended:  # The line end after a call is no text.
            self._held = self._held.lstrip("\r\n")
            self._ended = not self._held
        at, mark = mark_at(self._held, self._dialect.begins)
        found += said(self._held[:at])
        self._skip(at + len(mark), at)
        self._calling = bool(mark)

    def _between(self, found: list[Piece]) -> None:
        """After a mark or a call: the next object begins, or it is text again."""
        self._skip(len(self._held) - len(self._held.lstrip(" \t\r\n,;")))
        if not self._held:
            return
        if any(mark.startswith(self._held) and mark != self._held for mark in self.marks):
            return
        for mark in (*self._dialect.begins, "[", "]"):
            if self._held.startswith(mark):
                self._skip(len(mark))
                return
        for mark in self._dialect.ends:
            if self._held.startswith(mark):
                self._held, self._skipped = self._held[len(mark) :], ""
                self._calling, self._ended = False, True
                return
        if self._held[0] == "{":
            self._object = _Object(self._count)
        elif self._dialect.named and (match := _NAMED.match(self._held)):
            self._object = _Object(self._count, match[1])
            self._held = self._held[match.end() - 1 :]
        elif not (self._dialect.named and len(self._held) < LONGEST_NAME and _NAME_SO_FAR.fullmatch(self._held)):
            self._give_up("", found)

    def _read_object(self, each: _Object, found: list[Piece]) -> None:
        pieces, self._held, over = each.push(self._held)
        found += pieces
        if each.told:
            self._skipped = ""
        if not over:
            return
        self._object = None
        if each.told:
            self._count += 1
        else:
            self._give_up(each.given_up(), found)

    def _give_up(self, text: str, found: list[Piece]) -> None:
        """It was no call after all."""
        found += said(self._skipped + text)
        self._skipped, self._calling = "", False

    def _skip(self, length: int, begin: int = 0) -> None:
        self._skipped += self._held[begin:length]
        self._held = self._held[length:]


LONGEST_NAME = 256
_NAMED_MARKS = ("[CALL_ID]", "[ARGS]")
_NAMED = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\{")
_NAME_SO_FAR = re.compile(r"[\w.-]+(?:\[[^{]*)?")
_NAME = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")')
_ARGUMENTS = re.compile(r'"(?:arguments|parameters)"\s*:\s*$')


class _Object:
    """One call as it comes: `{"name": …, "arguments": {…}}`, or only its arguments where the name is known already."""

    def __init__(self, index: int, name: str | None = None) -> None:
        self._index = index
        self._name = name
        self._text = ""
        self._braces = Braces()
        self._arguments = 0 if name is not None else -1
        self._end = -1
        self._sent = 0
        self._named = name is not None
        self.told = False
        """Whether a piece of it is out, so that it can't be text any more."""

    def push(self, text: str) -> tuple[list[Piece], str, bool]:
        """Its pieces, what follows it, and whether it is over."""
        before = len(self._text)
        self._text += text
        for at in range(before, len(self._text)):
            depth, character = self._braces.depth, self._text[at]
            opens = character == "{" and depth == 1 and self._arguments < 0 and not self._braces.in_string
            if opens and _ARGUMENTS.search(self._text, max(0, at - 64), at):
                self._arguments = self._sent = at
            self._braces.push(character)
            if self._arguments >= 0 and self._end < 0 and self._braces.depth == (0 if self._named else 1) < depth:
                self._end = at + 1
            if self._braces.depth == 0:
                rest, self._text = self._text[at + 1 :], self._text[: at + 1]
                return self._pieces(), rest, True
        return self._pieces(), "", False

    def given_up(self) -> str:
        """Its text, if it is no call, or the answer ended before it could be told."""
        return "" if self.told else f"{self._name if self._named else ''}{self._text}"

    def _pieces(self) -> list[Piece]:
        if self._braces.depth == 0 and not self.told:
            return self._whole()
        if self._name is None and (match := _NAME.match(self._text)):
            self._name = str(json.loads(match[1]))
        if self._name is None or self._arguments < 0:
            return []  # A name alone is not told: what looks like a call may go on as something else.
        upto = self._end if self._end >= 0 else len(self._text)
        piece = self._text[self._sent : upto]
        name = None if self.told else self._name
        self._sent, self.told = upto, True
        return [Called(self._index, piece, name)] if piece or name else []

    def _whole(self) -> list[Piece]:
        """All of it at once: also where the name comes last, and where the arguments are missing or a string."""
        try:
            value = json.loads(self._text)
        except ValueError:
            value = None
        if self._named and isinstance(value, dict):
            self.told = True
            return [Called(self._index, self._text, self._name)]
        if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
            return []
        self.told = True
        if 0 <= self._arguments < self._end:
            return [Called(self._index, self._text[self._arguments : self._end], name)]
        arguments = value.get("arguments", value.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [Called(self._index, text, name)]


class PythonReader:
    """Calls as Python has them: `[weather(city="Oslo"), time()]`. They come when the list is complete."""

    marks: tuple[str, ...] = ("<|python_start|>", "<|python_end|>")

    def __init__(self) -> None:
        self._text = ""
        self._plain = False

    def push(self, text: str) -> list[Piece]:
        if self._plain:
            return said(text)
        self._text += text
        begin = self._bare().lstrip()
        if begin and begin[0] != "[" and not self.marks[0].startswith(begin):
            return self._give_up()
        return []

    def end(self) -> list[Piece]:
        if self._plain or not self._text:
            return []
        try:
            tree = ast.parse(self._bare().strip(), mode="eval").body
            calls = [_python_call(index, item) for index, item in enumerate(getattr(tree, "elts", [None]))]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return self._give_up()
        return [*calls] or self._give_up()

    def _bare(self) -> str:
        text = self._text
        for mark in self.marks:
            text = text.replace(mark, "")
        return text

    def _give_up(self) -> list[Piece]:
        self._plain = True
        return said(self._bare())


def _python_call(index: int, item: Any) -> Called:
    """Raises ValueError on what is no call with values alone."""
    if not isinstance(item, ast.Call) or item.args or not isinstance(item.func, ast.Name | ast.Attribute):
        raise ValueError("no call")
    if any(keyword.arg is None for keyword in item.keywords):
        raise ValueError("no plain arguments")
    values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in item.keywords}
    try:
        return Called(index, json.dumps(values, ensure_ascii=False), ast.unparse(item.func))
    except TypeError as error:
        raise ValueError(str(error)) from error


_LLAMA = Dialect(begins=("<|python_tag|>",), bare=True)
_DIALECTS = {
    "hermes": Dialect(("<tool_call>",), ("</tool_call>",)),
    "llama3_json": _LLAMA,
    "llama4_json": _LLAMA,
    "mistral": Dialect(("[TOOL_CALLS]",), named=True),
    "granite": Dialect(("<|tool_call|>", "<tool_call>")),
    "granite-20b-fc": Dialect(("<function_call>",)),
    "internlm": Dialect(("<|action_start|><|plugin|>",), ("<|action_end|>",)),
    "jamba": Dialect(("<tool_calls>",), ("</tool_calls>",)),
    "phi4_mini_json": Dialect(("functools",)),
}
PARSERS = (*_DIALECTS, "pythonic", "llama4_pythonic", "deepseek_v3", "qwen3_coder")
REQUIRED = Dialect(bare=True)
"""What a model says that is held to a list of calls."""


def reader(name: str, functions: Mapping[str, Any] | None = None) -> Callable[[], Reader]:
    """A reader for each answer, by the parser's name: one of `PARSERS`, or `required`.

    `functions` are the schemas of their parameters by name, for a dialect whose calls do not tell what is text and what a number.
    """
    if name in ("pythonic", "llama4_pythonic"):
        return PythonReader
    if name == "deepseek_v3":
        return DeepSeekReader
    if name == "qwen3_coder":
        return lambda: QwenCoderReader(functions or {})
    dialect = REQUIRED if name == "required" else _DIALECTS[name]
    return lambda: JsonReader(dialect)


def whole(each: Reader, text: str) -> tuple[str, list[Called]]:
    """All of a text at once: what is said, and the calls, each in one piece."""
    return gather([*each.push(text), *each.end()])


def gather(pieces: list[Piece]) -> tuple[str, list[Called]]:
    """Pieces put together: what is said, and the calls."""
    text, calls = "", dict[int, Called]()
    for piece in pieces:
        if isinstance(piece, Said):
            text += piece.text
        elif isinstance(piece, Called):
            before = calls.get(piece.index, Called(piece.index, "", piece.name))
            calls[piece.index] = Called(piece.index, before.arguments + piece.arguments, before.name)
    return text, list(calls.values())
