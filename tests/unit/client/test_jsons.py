"""JSON values, however they are laid out and cut."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import StreamError, aiter_json, iter_json
from tests.unit.client.slicing import Broken, Wrap, async_parts, broken, cuts, until_error, wraps

leaves = (
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(st.sampled_from('a"\\{}[]\n\r é🙂\ud83d'), max_size=6)
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)
containers: st.SearchStrategy[Any] = st.lists(values, max_size=3) | st.dictionaries(
    st.text(max_size=3), values, max_size=3
)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[Any], bytes]:
    """Values, and a text of them: JSON lines, pretty-printed, or containers with nothing in between."""
    style = draw(st.sampled_from(["lines", "crlf", "pretty", "glued", "sequence"]))
    ascii_only = draw(st.booleans())

    def text(value: Any, indent: int | None = None) -> str:
        # Half a surrogate pair has no UTF-8: only its escape can be sent.
        return json.dumps(value, ensure_ascii=ascii_only or "\\ud83d" in json.dumps(value), indent=indent)

    if style in ("pretty", "glued"):
        found = draw(st.lists(containers, max_size=4))
        return found, "".join(text(value, 2 if style == "pretty" else None) for value in found).encode()
    found = draw(st.lists(values, max_size=4))
    if style == "sequence":
        return found, "".join(f"\x1e{text(value)}\n" for value in found).encode()
    end = {"lines": "\n", "crlf": "\r\n"}[style]
    joined = end.join(text(value) for value in found) + draw(st.sampled_from(["", end, end * 2]))
    return found, joined.encode()


@given(st.data(), layouts(), wraps, st.booleans())
def test_any_slicing_gives_the_values(
    data: st.DataObject, layout: tuple[list[Any], bytes], wrap: Wrap, bom: bool
) -> None:
    found, content = layout
    parts = [wrap(part) for part in data.draw(cuts(b"\xef\xbb\xbf" * bom + content))]
    assert list(iter_json(parts)) == found


@given(st.data(), layouts())
async def test_the_async_reader_is_the_same(data: st.DataObject, layout: tuple[list[Any], bytes]) -> None:
    found, content = layout
    assert [value async for value in aiter_json(async_parts(data.draw(cuts(content))))] == found


@given(st.data(), st.lists(containers, max_size=4))
def test_a_break_leaves_exactly_the_values_before_it(data: st.DataObject, found: list[Any]) -> None:
    records = [json.dumps(value).encode() for value in found]
    content = b"\n".join(records)
    kept = content[: data.draw(st.integers(0, len(content)))]
    complete = sum(1 for i in range(len(records)) if len(b"\n".join(records[: i + 1])) <= len(kept))
    got, error = until_error(iter_json(broken(data.draw(cuts(kept)), Broken("gone"))))
    assert got == found[:complete]
    assert isinstance(error, StreamError)
    assert error.rest == kept[len(b"\n".join(records[:complete])) :].lstrip()
    # The same bytes with a clean end: cut inside a value is an error too, never a value lost in silence.
    got, error = until_error(iter_json(data.draw(cuts(kept))))
    assert got == found[:complete]
    assert (error is not None) == bool(kept[len(b"\n".join(records[:complete])) :].strip())


@pytest.mark.parametrize(
    ("content", "before", "code", "message"),
    [
        (b'{"a": 1}\nCUDA out of memory\n', [{"a": 1}], "InvalidJson", "CUDA out of memory"),
        (b'{"a": 1}\ncan\'t "open', [{"a": 1}], "InvalidJson", "can't \"open"),
        (b'{"a": 1} ]\n', [{"a": 1}], "InvalidJson", "]"),
        (b'1 2 {"a": 3} x\n', [1, 2, {"a": 3}], "InvalidJson", "x"),
        (b'{"a": "\xff"}', [], "InvalidJson", '{"a": "�"}'),
        (b'{"a": [1, 2', [], "Truncated", "the stream ended inside a JSON value"),
        (b"[" * 100_000 + b"]" * 100_000, [], "InvalidJson", "[" * 500),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_what_is_no_json(content: bytes, before: list[Any], code: str, message: str, size: int) -> None:
    got, error = until_error(iter_json([content[i : i + size] for i in range(0, len(content), size)]))
    assert got == before
    assert isinstance(error, StreamError)
    assert (error.code, error.message) == (code, message)


@given(st.data(), st.integers(1, 30))
def test_the_bound_on_a_value_holds_at_any_slicing(data: st.DataObject, max_line: int) -> None:
    content = b'{"a": 1}\n[1, 2, 3, 4, 5]\n"abcdefghijklmnop"\n{}'
    expected: list[bytes] = []
    for record in content.split(b"\n"):
        if len(record) > max_line:
            break
        expected.append(json.loads(record))
    got, error = until_error(iter_json(data.draw(cuts(content)), max_line=max_line))
    assert got == expected
    assert (error is None) == (len(expected) == 4)
    assert error is None or (isinstance(error, StreamError) and error.code == "ValueTooLong")


def test_time_is_linear_in_the_length_of_one_value() -> None:
    def cost(size: int) -> float:
        content = json.dumps({"a": 'x"\\{}' * (size // 8)}).encode()
        started = time.process_time()
        assert len(list(iter_json(content[i : i + 3] for i in range(0, len(content), 3)))) == 1
        return time.process_time() - started

    cost(50_000)
    small = min(cost(50_000) for _ in range(3))
    assert cost(400_000) < 24 * small
