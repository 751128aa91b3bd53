"""What every SageMaker operation works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.control.store import Store
from penstock.placement.base import ObjectReader


@dataclass(frozen=True, slots=True)
class Context:
    """`poke` wakes the reconciler; `serving` tells how many replicas of each variant of an endpoint (its id) serve now.

    `clock` is the wall clock in epoch seconds; `new_id` makes 32 hex digits that never were.
    """

    store: Store
    objects: ObjectReader
    poke: Callable[[], None]
    serving: Callable[[str], Mapping[str, int]]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    instance_limit: int

    def now(self) -> float:
        """To the millisecond, as AWS's timestamps are."""
        return round(self.clock(), 3)
