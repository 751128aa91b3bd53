"""Tapes as lines: what is written is read back, and what is wrong is named with its line."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tape import Edge, Failure, Head, Line, Part, Request, Tape, TapeError, load, problems, read, write

NAMES = st.text("abcdefgh-", min_size=1, max_size=8)
HEADS = st.builds(
    Head,
    endpoint=st.text(max_size=9),
    status=st.integers(100, 599),
    headers=st.dictionaries(NAMES, st.text(max_size=9), max_size=3),
    request=st.builds(Request, url=st.text(max_size=9), body=st.none() | st.binary(max_size=40)),
)
LASTS = st.builds(Edge, st.just(1e9), st.sampled_from(["clean", "reset", "timeout", "damaged", "broken"])) | st.builds(
    Failure,
    st.just(1e9),
    st.text(max_size=9),
    st.text(max_size=9),
    st.dictionaries(NAMES, st.integers(0, 999), max_size=2),
)


@given(head=HEADS, contents=st.lists(st.binary(max_size=60), max_size=8), last=LASTS)
def test_written_and_read_back(head: Head, contents: list[bytes], last: Failure | Edge) -> None:
    lines: list[Line] = [head, *(Part(float(i), content) for i, content in enumerate(contents)), last]
    raw = b"".join(map(write, lines))
    assert raw.count(b"\n") == len(lines)
    assert list(read(io.BytesIO(raw))) == lines
    tape = load(io.BytesIO(raw))
    assert list(tape.lines()) == lines
    assert isinstance(tape, Tape)


def test_it_is_json_that_people_read() -> None:
    lines = [json.loads(write(line)) for line in (Part(3.5, "größer".encode()), Part(4, b"\xff"), Edge(5, "clean"))]
    assert lines == [{"t": 3.5, "text": "größer"}, {"t": 4.0, "base64": "/w=="}, {"t": 5.0, "end": "clean"}]


HEAD = '{"tape": 1, "endpoint": "e", "status": 200}\n'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("{}\n", 1, "tape"),
        ("no JSON\n", 1, "malformed"),
        ('{"tape": 2, "endpoint": "e", "status": 200}\n', 1, "version 2"),
        ('{"tape": 1, "endpoint": "e", "status": 7}\n', 1, "status"),
        ('{"tape": 1, "endpoint": "e", "status": 200, "colour": 1}\n', 1, "colour"),
        (HEAD, 1, "without an end"),
        (HEAD + '{"t": 1, "text": "a"}\n', 2, "without an end"),
        (HEAD + '{"t": 1}\n', 2, "exactly one"),
        (HEAD + '{"t": 1, "text": "a", "base64": ""}\n', 2, "exactly one"),
        (HEAD + '{"t": 1, "base64": "*"}\n', 2, "base64"),
        (HEAD + '{"t": 1, "end": "somehow"}\n', 2, "somehow"),
        (HEAD + '{"t": 5, "text": "a"}\n{"t": 4, "end": "clean"}\n', 3, "before the line above"),
        (HEAD + '{"t": -1, "end": "clean"}\n', 2, "from 0"),
        (HEAD + '{"t": 1, "end": "clean"}\n{"t": 2, "text": "a"}\n', 3, "nothing follows"),
        (HEAD + '{"text": "a"}\n', 2, "`t`"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(TapeError, match=says) as error:
        list(read(io.BytesIO(text.encode())))
    assert error.value.line == line
    assert problems(io.BytesIO(text.encode())) == [str(error.value)]


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.tape.form.LONGEST_LINE", 1000)
    with pytest.raises(TapeError, match="at most 1000 bytes"):
        list(read(io.BytesIO(HEAD.encode() + b"x" * 5000)))


def test_a_good_tape_has_no_problems() -> None:
    assert problems(io.BytesIO(HEAD.encode() + b'{"t": 1, "end": "clean"}\n')) == []
