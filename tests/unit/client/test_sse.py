"""Server-sent events, against a reading of the standard that needs the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import ServerSentEvent, StreamError, aiter_sse, iter_sse
from tests.unit.client.slicing import Broken, Wrap, async_parts, broken, cuts, until_error, wraps

fields = st.sampled_from(
    [
        "data:",
        "data: x",
        "data:  y",
        "data",
        "data:é🙂",
        "data: a:b",
        ": note",
        ":",
        "event: add",
        "event:",
        "id: 7",
        "id: a\x00b",
        "id",
        "retry: 20",
        "retry: no",
        "other: 1",
        "",
        "",
    ]
)
texts = st.lists(st.tuples(fields, st.sampled_from(["\n", "\r\n", "\r"])), max_size=20)
endings = st.sampled_from(["", "\n", "\n\n"])


def oracle(lines: list[str], *, complete: bool) -> list[ServerSentEvent]:
    """The standard's steps, over whole lines."""
    events: list[ServerSentEvent] = []
    data: list[str] = []
    kind, last_id = "", ""
    retry: int | None = None
    for line in [*lines, ""] if complete else lines:
        if line == "":
            if data:
                events.append(ServerSentEvent("\n".join(data), kind or "message", last_id, retry))
                retry = None
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isdigit():
            retry = int(value)
    return events


def encode(lines: list[tuple[str, str]], ending: str) -> tuple[bytes, list[str]]:
    text = "".join(line + end for line, end in lines) + ending
    return text.encode(), [line.decode() for line in text.encode().splitlines()]


@given(st.data(), texts, endings, wraps, st.booleans())
def test_any_slicing_gives_the_events_of_the_whole(
    data: st.DataObject, lines: list[tuple[str, str]], ending: str, wrap: Wrap, bom: bool
) -> None:
    content, plain = encode(lines, ending)
    parts = [wrap(part) for part in data.draw(cuts(b"\xef\xbb\xbf" * bom + content))]
    assert list(iter_sse(parts)) == oracle(plain, complete=True)


@given(st.data(), texts)
async def test_the_async_reader_is_the_same(data: st.DataObject, lines: list[tuple[str, str]]) -> None:
    content, plain = encode(lines, "")
    parts = data.draw(cuts(content))
    assert [event async for event in aiter_sse(async_parts(parts))] == oracle(plain, complete=True)


@given(st.data(), texts)
def test_a_break_leaves_exactly_the_events_before_it(data: st.DataObject, lines: list[tuple[str, str]]) -> None:
    content, _ = encode(lines, "")
    kept = content[: data.draw(st.integers(0, len(content)))]
    whole = kept[: max(kept.rfind(b"\n"), kept.rfind(b"\r")) + 1].decode().encode().splitlines()
    events, error = until_error(iter_sse(broken(data.draw(cuts(kept)), Broken("gone"))))
    assert events == oracle([line.decode() for line in whole], complete=False)
    assert isinstance(error, StreamError)
    assert error.text == kept.decode("utf-8", "ignore")


def test_the_bound_on_an_event() -> None:
    stream = b"data: ab\ndata: cd\n\n"
    assert [event.data for event in iter_sse(stream, max_line=8)] == ["ab\ncd"]
    with pytest.raises(StreamError) as caught:
        list(iter_sse([b"data: 123\n"] * 5, max_line=9))
    assert caught.value.code == "EventTooLong"
    assert caught.value.text == "data: 123\n" * 3


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    assert [event.data for event in iter_sse(b"data: \xff!\n\n")] == ["�!"]
    assert next(iter_sse(b'data: {"a": 1}\n\n')).json() == {"a": 1}
