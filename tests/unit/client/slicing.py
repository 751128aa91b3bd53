"""Streams cut anyhow, and the strategies that draw the cuts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from penstock.client.source import Part

Wrap = Callable[[bytes], Part]


def as_event(data: bytes) -> Part:
    """The way boto3 and aiobotocore hand a part out."""
    return {"PayloadPart": {"Bytes": data}}


def as_bytes(data: bytes) -> Part:
    return data


wraps: st.SearchStrategy[Wrap] = st.sampled_from([as_event, as_bytes])


@st.composite
def cuts(draw: st.DrawFn, content: bytes) -> list[bytes]:
    """`content` in parts: one byte at a time, in any places (empty parts included), or whole."""
    style = draw(st.sampled_from(["bytes", "anywhere", "whole"]))
    if style == "bytes":
        return [content[i : i + 1] for i in range(len(content))]
    if style == "whole":
        return [content]
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=12)))
    return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]


class Broken(Exception):
    """What the transport raises in these tests."""


def broken(parts: Sequence[Part], error: Exception) -> Iterator[Part]:
    """The parts, and then the error."""
    yield from parts
    raise error


async def async_parts(parts: Sequence[Part], error: Exception | None = None) -> AsyncIterator[Part]:
    for part in parts:
        yield part
    if error is not None:
        raise error


def until_error(items: Iterator[Any]) -> tuple[list[Any], Exception | None]:
    """What the iterator yields, and what it raises in the end."""
    found: list[Any] = []
    try:
        found.extend(iter(items))
    except Exception as error:
        return found, error
    return found, None
