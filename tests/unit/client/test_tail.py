"""What an error remembers of a stream: its end, in bounded memory."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.source import Tail


@given(st.lists(st.binary(max_size=9), max_size=40), st.integers(0, 30))
def test_it_is_the_end_of_all_that_came(parts: list[bytes], keep: int) -> None:
    tail = Tail(keep)
    for part in parts:
        tail.add(part)
    whole = b"".join(parts)
    assert tail.text() == whole[max(0, len(whole) - keep) :].decode("utf-8", "ignore")


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_its_memory_is_bounded_whatever_the_parts(size: int) -> None:
    keep = 50_000
    tail = Tail(keep)
    most = 0
    for number in range(3_000_000 // size if size > 1 else 300_000):
        tail.add(bytes([97 + number % 26]) * size)
        if number % 500 == 0:
            kept = [*tail._older, *tail._newer]
            most = max(most, sum(map(sys.getsizeof, kept)) + 8 * len(kept))
    assert most < 10 * keep
    assert len(tail.text()) == keep
