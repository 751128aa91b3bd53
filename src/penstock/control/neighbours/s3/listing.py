"""Which keys a page of a listing holds: prefix, delimiter, markers, length.

Owns that decision over a sorted list of keys. It must never do I/O or know the two versions of the operation.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """Keys and common prefixes in order; `last` is where the next page goes on, of a truncated one."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]
    truncated: bool
    last: str


def page(keys: Sequence[str], *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> Page:
    """Up to `most` keys and common prefixes of sorted `keys` that begin with `prefix` and come after `after`.

    Keys that hold `delimiter` behind the prefix are rolled into one common prefix, which counts as one entry; one that equals `after`
    was listed before and is passed over.
    """
    found: list[str] = []
    rolled: list[str] = []
    at = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
    last = ""
    while at < len(keys) and keys[at].startswith(prefix):
        key = keys[at]
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        entry = key if end < 0 else key[: end + len(delimiter)]
        if end >= 0 and entry == after:
            at = _behind(keys, at, entry)
            continue
        if len(found) + len(rolled) >= most:
            return Page(tuple(found), tuple(rolled), most > 0, last)
        last = entry
        if end < 0:
            found.append(key)
            at += 1
        else:
            rolled.append(entry)
            at = _behind(keys, at, entry)
    return Page(tuple(found), tuple(rolled), False, "")


def _behind(keys: Sequence[str], at: int, prefix: str) -> int:
    """The first place from `at` on whose key does not begin with `prefix`."""
    return bisect_right(keys, prefix, lo=at, key=lambda key: key[: len(prefix)])
