"""Pages of a list, against a naive reading."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.control.sagemaker.paging import Listed, page, slice_of
from penstock.errors import ValidationException

names = st.lists(st.text("abcXYZ-", min_size=1, max_size=4), unique=True, max_size=25)
orders = st.sampled_from(["Name", "CreationTime", "Status"])


def listed(name: str) -> Listed[str]:
    return Listed(name, name, created_at=len(name), modified_at=len(name), status=name[:1])


@given(names, orders, st.sampled_from(["Ascending", "Descending"]), st.integers(1, 5))
def test_the_pages_together_are_the_sorted_list(given_names: list[str], by: str, order: str, size: int) -> None:
    params: dict[str, Any] = {"SortBy": by, "SortOrder": order, "MaxResults": size}
    seen: list[str] = []
    while True:
        shown, token = page(params, map(listed, given_names))
        assert len(shown) <= size
        seen += shown
        if token is None:
            break
        params["NextToken"] = token
    keys = {"Name": lambda n: (n, ""), "CreationTime": lambda n: (len(n), n), "Status": lambda n: (n[:1], n)}
    assert seen == sorted(given_names, key=keys[by], reverse=order == "Descending")


@given(names, st.integers(1, 4), st.data())
def test_nothing_is_skipped_or_shown_twice_when_others_come_and_go(
    given_names: list[str], size: int, data: st.DataObject
) -> None:
    params: dict[str, Any] = {"SortBy": "Name", "SortOrder": "Ascending", "MaxResults": size}
    here, seen, stayed = set(given_names), list[str](), set(given_names)
    while True:
        shown, token = page(params, map(listed, here))
        seen += shown
        if token is None:
            break
        params["NextToken"] = token
        gone = data.draw(st.sets(st.sampled_from(sorted(here)))) if here else set()
        come = data.draw(st.sets(st.text("abcXYZ-", min_size=1, max_size=4), max_size=3)) - here
        here, stayed = (here - gone) | come, stayed - gone - come
    assert len(seen) == len(set(seen))
    assert stayed <= set(seen)


def test_defaults_are_ten_and_the_newest_first() -> None:
    shown, token = page({}, (Listed(i, f"n{i}", float(i)) for i in range(12)))
    assert shown == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]
    assert token is not None


@pytest.mark.parametrize(
    "token", ["", "x", "!!!!", base64.b64encode(b'{"a":1}').decode(), base64.b64encode(b"[1]").decode()]
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    for by in ("Name", "CreationTime"):
        with pytest.raises(ValidationException, match="Invalid pagination token"):
            page({"NextToken": token, "SortBy": by}, [])
    with pytest.raises(ValidationException, match="Invalid pagination token"):
        slice_of({"NextToken": token}, ["a"], str, most=5)


@given(names, st.integers(1, 5))
def test_slices_together_are_the_list_in_its_own_order(items: list[str], size: int) -> None:
    params: dict[str, Any] = {"MaxResults": size}
    seen: list[str] = []
    while True:
        shown, token = slice_of(params, items, str, most=50)
        seen += shown
        if token is None:
            break
        params["NextToken"] = token
    assert seen == items
