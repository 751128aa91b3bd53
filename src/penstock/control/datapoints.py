"""What metrics said, minute by minute, for some hours: the memory behind CloudWatch's API.

Owns samples, their sums and what statistics can be had of them. Pure: times come in as epoch seconds. It must never grow without bound:
the oldest minutes go when they are `KEEP_S` old, or when there are more than `MAX_POINTS` sums.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

MINUTE = 60
KEEP_S = 6 * 3600
MAX_POINTS = 100_000
"""Sums of one metric in one minute, of all metrics together: some 40 MB."""

Dimensions = frozenset[tuple[str, str]]
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)\Z")


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: what CloudWatch tells metrics apart by, and the account and region that they are of."""

    account: str
    region: str
    namespace: str
    name: str
    dimensions: Dimensions


@dataclass(slots=True)
class Samples:
    """A number of values together. `buckets` counts them below each of `bounds` and beyond the last, where that is known."""

    unit: str = "None"
    count: float = 0.0
    sum: float = 0.0
    least: float = inf
    most: float = -inf
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()

    def add(self, other: Samples) -> None:
        """Takes in more values of the same metric."""
        if not self.count:
            self.unit, self.bounds, self.buckets = other.unit, other.bounds, other.buckets
        elif self.bounds == other.bounds:
            self.buckets = tuple(a + b for a, b in zip(self.buckets, other.buckets, strict=True))
        else:
            self.bounds = self.buckets = ()
        self.count += other.count
        self.sum += other.sum
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)

    def statistic(self, name: str) -> float | None:
        """`Average`, `p99` …; None for a percentile of values whose distribution is not known."""
        match name:
            case "SampleCount":
                return self.count
            case "Sum":
                return self.sum
            case "Average":
                return self.sum / self.count if self.count else None
            case "Minimum":
                return self.least
            case "Maximum":
                return self.most
        return self._percentile(float(name[1:]))

    def _percentile(self, percent: float) -> float | None:
        """Between a bucket's bounds the values are taken to lie evenly."""
        wanted, seen = self.count * percent / 100, 0.0
        lower = self.least
        for upper, count in zip((*self.bounds, inf), self.buckets, strict=False):
            if count and seen + count >= wanted:
                low, high = max(lower, self.least), min(upper, self.most)
                return min(low + (high - low) * max(wanted - seen, 0.0) / count, high)
            seen += count
            lower = upper
        return None


def one(value: float, unit: str = "None") -> Samples:
    return Samples(unit, 1, value, value, value)


def is_statistic(name: str) -> bool:
    return name in STATISTICS or _PERCENTILE.match(name) is not None


class Datapoints:
    """All metrics' minutes."""

    def __init__(self, *, keep_s: int = KEEP_S, max_points: int = MAX_POINTS) -> None:
        self._keep_s, self._max_points = keep_s, max_points
        self._minutes: dict[int, dict[Series, Samples]] = {}
        self._held: Counter[Series] = Counter()
        """In how many minutes each metric has values."""
        self._points = 0

    def add(self, series: Series, samples: Samples, when: float, now: float) -> None:
        """Values of the minute of `when`. What is older than we keep is dropped."""
        minute = int(when) // MINUTE * MINUTE
        if not now - self._keep_s < minute <= now + 2 * 3600:  # AWS takes no later ones either
            return
        of_minute = self._minutes.get(minute)
        if of_minute is None:
            of_minute = self._minutes[minute] = {}
            self._forget(now)
        held = of_minute.get(series)
        if held is None:
            held = of_minute[series] = Samples()
            self._held[series] += 1
            self._points += 1
        held.add(samples)
        while self._points > self._max_points:
            self._drop(min(self._minutes))

    def _forget(self, now: float) -> None:
        for minute in [minute for minute in self._minutes if minute <= now - self._keep_s]:
            self._drop(minute)

    def _drop(self, minute: int) -> None:
        for series in self._minutes.pop(minute):
            self._points -= 1
            self._held[series] -= 1
            if not self._held[series]:
                del self._held[series]

    def periods(
        self, series: Series, start: float, end: float, period: int, *, origin: int = 0
    ) -> Iterator[tuple[int, Samples]]:
        """The periods of `start <= minute < end` that have values, in order of time. They begin at `origin` plus whole periods."""
        begun: int | None = None
        together = Samples()
        for minute in sorted(self._minutes):
            held = self._minutes[minute].get(series)
            if held is None or not start <= minute < end:
                continue
            of = (minute - origin) // period * period + origin
            if of != begun:
                if begun is not None:
                    yield begun, together
                begun, together = of, Samples()
            together.add(held)
        if begun is not None:
            yield begun, together

    def series(self, account: str, region: str) -> list[Series]:
        """Every metric of theirs that has values."""
        return [one for one in self._held if (one.account, one.region) == (account, region)]
