"""Lines: whatever the slicing, what `bytes.splitlines` says of the whole."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import LineIterator, StreamError, aiter_lines, iter_lines
from penstock.client.lines import LineSplitter
from penstock.client.readers import KEEP, MAX_LINE, _read
from penstock.client.source import BOM
from tests.unit.client.slicing import Broken, Wrap, as_event, async_parts, broken, cuts, until_error, wraps

# Few letters, so that line ends, byte order marks and cut characters are the rule.
contents = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", "é".encode(), "🙂".encode(), BOM, b"\xff", b"\0", b"\x0b"])
).map(b"".join)


@given(st.data(), contents, wraps)
def test_any_slicing_gives_the_lines_of_the_whole(data: st.DataObject, content: bytes, wrap: Wrap) -> None:
    parts = [wrap(part) for part in data.draw(cuts(content))]
    expected = content.removeprefix(BOM).splitlines()
    assert list(iter_lines(parts)) == expected == list(_read(parts, LineSplitter(MAX_LINE), KEEP))
    assert list(LineIterator(parts)) == expected


@given(st.data(), contents)
async def test_the_async_reader_is_the_same(data: st.DataObject, content: bytes) -> None:
    parts = [as_event(part) for part in data.draw(cuts(content))]
    assert [line async for line in aiter_lines(async_parts(parts))] == content.removeprefix(BOM).splitlines()


@given(st.data(), contents)
def test_a_break_leaves_exactly_the_prefix(data: st.DataObject, content: bytes) -> None:
    parts = data.draw(cuts(content))
    lines, error = until_error(iter_lines(broken([as_event(part) for part in parts], Broken("gone"))))
    assert isinstance(error, StreamError)
    assert isinstance(error.__cause__, Broken)
    assert (error.code, error.message, error.origin) == ("Broken", "gone", "connection")
    assert error.text == content.decode("utf-8", "ignore")
    whole = content if error.rest == content else content.removeprefix(BOM)  # the mark may be held back still
    assert whole.endswith(error.rest)
    assert lines == whole[: len(whole) - len(error.rest)].splitlines()


@given(st.data(), contents, st.integers(0, 4))
def test_the_bound_on_a_line_holds_at_any_slicing(data: st.DataObject, content: bytes, max_line: int) -> None:
    expected: list[bytes] = []
    too_long = False
    for line in content.removeprefix(BOM).splitlines():
        if len(line) > max_line:
            too_long = True
            break
        expected.append(line)
    lines, error = until_error(iter_lines(data.draw(cuts(content)), max_line=max_line))
    assert lines == expected
    assert (error is not None) == too_long
    assert error is None or (isinstance(error, StreamError) and error.code == "LineTooLong")


def test_a_line_is_there_as_soon_as_its_end_is() -> None:
    seen: list[str] = []

    def parts() -> list[bytes]:
        return [b"one\r", b"\ntwo", b"\n", b"three"]

    def watched() -> object:
        for part in parts():
            seen.append(f"part {part!r}")
            yield part

    for line in iter_lines(watched()):  # type: ignore[arg-type]
        seen.append(f"line {line!r}")
    assert seen == [
        "part b'one\\r'",
        "line b'one'",
        "part b'\\ntwo'",
        "part b'\\n'",
        "line b'two'",
        "part b'three'",
        "line b'three'",
    ]


def test_time_is_linear_in_the_length_of_one_line() -> None:
    """Eight times the bytes of one endless line, two bytes a part, take about eight times the CPU time, never 64 times."""

    def cost(size: int) -> float:
        started = time.process_time()
        assert sum(map(len, iter_lines(b"ab" for _ in range(size // 2)))) == size
        return time.process_time() - started

    cost(100_000)
    small = min(cost(100_000) for _ in range(3))
    assert cost(800_000) < 24 * small


@pytest.mark.parametrize("wrong", [{"Body": []}, "text"])
def test_a_response_in_place_of_its_stream_says_so(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"response\['Body'\]"):
        list(iter_lines(wrong))  # type: ignore[arg-type]


def test_text_chunks_are_refused() -> None:
    with pytest.raises(TypeError, match="not str"):
        list(iter_lines(["text"]))  # type: ignore[list-item]


def test_other_kinds_of_bytes() -> None:
    assert list(iter_lines(b"a\nb")) == [b"a", b"b"]
    assert list(iter_lines([bytearray(b"a\n"), memoryview(b"b")])) == [b"a", b"b"]
    assert list(iter_lines([{"SDK_UNKNOWN_MEMBER": {"name": "x"}}, {"PayloadPart": {}}, b"a"])) == [b"a"]
