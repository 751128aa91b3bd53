"""Reading the fields of JSON objects as the original's deserialiser does: strict types, unknown fields ignored.

Owns the readers of plain types. It must never know which fields a request has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from penstock.servers.tgi.serde import Mismatch, Path, describe, integer

T = TypeVar("T")


class Fields:
    """The fields of one JSON object."""

    def __init__(self, value: Any, path: Path, expected: str) -> None:
        """`expected` is for the error: what the object should have been. Raises Mismatch."""
        if not isinstance(value, dict):
            raise Mismatch(path, f"invalid type: {describe(value)}, expected {expected}")
        self.values: Mapping[str, Any] = value
        self._path = path

    def required(self, name: str, read: Callable[[Any], T]) -> T:
        if name not in self.values:
            raise Mismatch(self._path, f"missing field `{name}`")
        return self._read(name, read)

    def plain(self, name: str, read: Callable[[Any], T], default: T) -> T:
        """A field that may be left out, but not be null."""
        return self._read(name, read) if name in self.values else default

    def optional(self, name: str, read: Callable[[Any], T]) -> T | None:
        return None if self.values.get(name) is None else self._read(name, read)

    def _read(self, name: str, read: Callable[[Any], T]) -> T:
        try:
            return read(self.values[name])
        except Mismatch as mismatch:
            raise Mismatch((*self._path, name, *mismatch.path), mismatch.text) from None


def string(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch((), f"invalid type: {describe(value)}, expected a string")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Mismatch((), f"invalid type: {describe(value)}, expected a boolean")
    return value


def sequence(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """A reader of lists, from one of their items."""

    def read_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Mismatch((), f"invalid type: {describe(value)}, expected a sequence")
        items = []
        for at, item in enumerate(value):
            try:
                items.append(read(item))
            except Mismatch as mismatch:
                raise Mismatch((at, *mismatch.path), mismatch.text) from None
        return tuple(items)

    return read_all


strings = sequence(string)
u32 = integer("u32", 0, 2**32 - 1)
i32 = integer("i32", -(2**31), 2**31 - 1)
u64 = integer("u64", 0, 2**64 - 1)
usize = integer("usize", 0, 2**64 - 1)
