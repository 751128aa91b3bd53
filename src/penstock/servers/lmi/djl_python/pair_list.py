"""A list of pairs whose keys may repeat: the contents of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class PairList:
    """Keys and values in order. Keys may be None."""

    def __init__(
        self,
        keys: list[Any] | None = None,
        values: list[Any] | None = None,
        pair_list: Sequence[tuple[Any, Any]] | None = None,
        pair_map: Mapping[Any, Any] | None = None,
    ) -> None:
        """From two lists of one length, from pairs, or from a mapping. Raises ValueError when the lengths differ."""
        if keys and values and len(keys) != len(values):
            raise ValueError("key value size mismatch.")
        pairs = list(pair_list or (pair_map.items() if pair_map else ()))
        self.keys: list[Any] = keys if keys and values else [key for key, _ in pairs]
        self.values: list[Any] = values if keys and values else [value for _, value in pairs]

    def add(
        self, key: Any = None, value: Any = None, index: int | None = None, pair: tuple[Any, Any] | None = None
    ) -> None:
        """Append a pair, or insert it at `index`. A value of None is not added."""
        if pair is not None:
            key, value = pair
        if value is None:
            return
        at = len(self.keys) if index is None else index
        self.keys.insert(at, key)
        self.values.insert(at, value)

    def add_all(self, other: PairList | None) -> None:
        """Append every pair of another list."""
        if other:
            self.keys.extend(other.get_keys())
            self.values.extend(other.get_values())

    def size(self) -> int:
        return len(self.keys)

    def is_empty(self) -> bool:
        return not self.keys

    def get(self, key: Any) -> Any:
        """The first value of a key; None without one."""
        return self.values[self.keys.index(key)] if key in self.keys else None

    def key_at(self, index: int) -> Any:
        return self.keys[index]

    def value_at(self, index: int) -> Any:
        return self.values[index]

    def get_keys(self) -> list[Any]:
        return self.keys

    def get_values(self) -> list[Any]:
        return self.values

    def __len__(self) -> int:
        return len(self.keys)
