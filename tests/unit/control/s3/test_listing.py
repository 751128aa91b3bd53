"""Pages of a listing against a naive twin that looks at every key."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.control.neighbours.s3.listing import page

KEYS = st.lists(st.text("ab/", min_size=1, max_size=5), max_size=25, unique=True).map(sorted)


def entries(keys: list[str], prefix: str, delimiter: str) -> list[str]:
    """All entries at once: keys and, once each, common prefixes."""
    found = {}
    for key in keys:
        if key.startswith(prefix):
            rest = key[len(prefix) :]
            cut = rest.find(delimiter) if delimiter else -1
            found[key if cut < 0 else prefix + rest[: cut + len(delimiter)]] = cut >= 0
    return sorted(found)


@given(KEYS, st.text("ab/", max_size=2), st.sampled_from(["", "/", "b", "a/"]), st.integers(1, 6))
@example(["a/", "a/a", "b"], "", "/", 1)
def test_pages_joined_are_the_whole(keys: list[str], prefix: str, delimiter: str, most: int) -> None:
    seen: list[str] = []
    after = ""
    while True:
        found = page(keys, prefix=prefix, delimiter=delimiter, after=after, most=most)
        both = sorted([*found.keys, *found.prefixes])
        assert len(both) <= most
        assert all(not entry.endswith(delimiter) or entry in found.prefixes for entry in found.prefixes)
        seen += both
        if not found.truncated:
            break
        assert len(both) == most
        assert found.last == both[-1]
        after = found.last
    assert seen == entries(keys, prefix, delimiter)


@given(KEYS, st.text("ab/", max_size=4))
def test_after_a_marker_come_only_later_keys(keys: list[str], marker: str) -> None:
    assert list(page(keys, after=marker).keys) == [key for key in keys if key > marker]


def test_none_are_asked_for() -> None:
    found = page(["a", "b"], most=0)
    assert (found.keys, found.truncated) == ((), False)
