"""Ranges and conditions, as functions of their values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.neighbours.s3.conditions import check_read, check_write, read_range
from penstock.errors import AwsError


def refused(check: Callable[..., object], *arguments: object) -> tuple[AwsError | None, object]:
    """The error, or else the result."""
    try:
        return None, check(*arguments)
    except AwsError as error:
        return error, None


NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 40))
def test_a_range_is_what_python_slices(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    for text, expected in (
        (f"bytes={first}-{last}", data[first : last + 1] if first <= last else data),
        (f"bytes={first}-", data[first:]),
        (f"bytes=-{last}", data[max(0, size - last) :]),
    ):
        error, found = refused(read_range, text, size)
        if error is not None:
            assert (error.status, error.members["ActualObjectSize"], expected) == (416, size, b"")
        elif isinstance(found, tuple):
            assert data[found[0] : found[0] + found[1]] == expected
            assert found[1] > 0
        else:
            assert expected == data


@given(st.text("bytes=-,0123456789 ", max_size=20), st.integers(0, 20))
def test_any_text_gives_a_range_inside_or_an_error(text: str, size: int) -> None:
    error, found = refused(read_range, text, size)
    assert error is None or error.code == "InvalidRange"
    assert not isinstance(found, tuple) or 0 <= found[0] < found[0] + found[1] <= size


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 200),
        ({"IfMatch": '"e"'}, 200),
        ({"IfMatch": "*"}, 200),
        ({"IfMatch": '"x", "e"'}, 200),
        ({"IfMatch": '"x"'}, 412),
        ({"IfNoneMatch": '"x"'}, 200),
        ({"IfNoneMatch": 'W/"e"'}, 304),
        ({"IfModifiedSince": NOW}, 304),
        ({"IfModifiedSince": NOW - dt.timedelta(seconds=1)}, 200),
        ({"IfUnmodifiedSince": NOW}, 200),
        ({"IfUnmodifiedSince": NOW - dt.timedelta(seconds=1)}, 412),
        # An entity tag that matches outweighs the date beside it (RFC 9110 §13.2.2).
        ({"IfMatch": '"e"', "IfUnmodifiedSince": NOW - dt.timedelta(days=1)}, 200),
        ({"IfNoneMatch": '"x"', "IfModifiedSince": NOW}, 200),
    ],
)
def test_conditions_of_a_read(params: dict[str, object], status: int) -> None:
    error, _ = refused(check_read, params, "e", NOW.timestamp() + 0.5)
    assert (error.status if error else 200) == status


@pytest.mark.parametrize(
    ("params", "there", "status"),
    [
        ({"IfNoneMatch": "*"}, None, 200),
        ({"IfNoneMatch": "*"}, "e", 412),
        ({"IfNoneMatch": '"e"'}, None, 501),
        ({"IfMatch": '"e"'}, "e", 200),
        ({"IfMatch": '"e"'}, "f", 412),
        ({"IfMatch": '"e"'}, None, 404),
    ],
)
def test_conditions_of_a_write(params: dict[str, object], there: str | None, status: int) -> None:
    error, _ = refused(check_write, params, "k", there)
    assert (error.status if error else 200) == status
