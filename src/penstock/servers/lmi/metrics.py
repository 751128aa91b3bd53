"""Counts and durations, in Prometheus' text form and under DJL Serving's names.

Owns names, labels and what counts as which error; and the latch of `/ping` for a server whose errors came too fast. It must never know
a request's content.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from penstock.servers.lmi.serverconfig import Rate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The original's client library has these for every histogram, though the values are microseconds."""


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[next((at for at, most in enumerate(BUCKETS) if value <= most), len(BUCKETS))] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        sums = [sum(self.counts[: at + 1]) for at in range(len(self.counts))]
        return [(bound, float(count)) for bound, count in zip([*map(str, BUCKETS), "+Inf"], sums, strict=True)]


class Collector(Protocol):
    def collect(self) -> Iterator[Metric]: ...


class Metrics:
    """One server's counts, and what `others` have under names of their own."""

    def __init__(self, *others: Collector) -> None:
        self._others = others
        self._host = socket.gethostname()
        self._counters: Counter[tuple[str, str, str]] = Counter()
        self._gauges: dict[tuple[str, str], float] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count(self, name: str, *, label: str = "Host", value: str = "") -> None:
        """Add one to `Response_2XX`, `WlmError` and the like, whose label is this machine's name."""
        self._counters[name, label, value or self._host] += 1

    def gauge(self, name: str, model: str, value: float) -> None:
        """The last value: `LoadModel` in microseconds, `DynamicBatchSize`."""
        self._gauges[name, model] = value

    def observe(self, name: str, model: str, microseconds: float) -> None:
        """`RequestLatency`, `QueueTime`."""
        self._histograms.setdefault((name, model), Histogram()).observe(microseconds)

    def render(self, names: Iterable[str] = ()) -> bytes:
        """The page that Prometheus scrapes; all of it, or only some names."""
        wanted = set(names)
        if not wanted:
            return generate_latest(self._registry)
        chosen = CollectorRegistry(auto_describe=False)
        chosen.register(_Only(self, wanted))
        return generate_latest(chosen)

    def collect(self) -> Iterator[Metric]:
        """What the client library asks of a collector."""
        own = set()
        for family in self._collect_own():
            own.add(family.name)
            yield family
        for other in self._others:
            yield from (family for family in other.collect() if family.name not in own)

    def _collect_own(self) -> Iterator[Metric]:
        for name in sorted({name for name, _, _ in self._counters}):
            yield self._counter(name)
        for name in sorted({name for name, _ in self._gauges}):
            unit = "CountPerItem" if name == "DynamicBatchSize" else "Microseconds"
            family = GaugeMetricFamily(name, f": prometheus gauge metric, unit: {unit}", labels=["Model"])
            for (each, model), value in sorted(self._gauges.items()):
                if each == name:
                    family.add_metric([model], value)
            yield family
        for name in sorted({name for name, _ in self._histograms}):
            text = ": prometheus histogram metric, unit: Microseconds"
            histograms = HistogramMetricFamily(name, text, labels=["Model"])
            for (each, model), histogram in sorted(self._histograms.items()):
                if each == name:
                    histograms.add_metric([model], histogram.cumulative(), histogram.total)
            yield histograms

    def _counter(self, name: str) -> Metric:
        found = sorted((label, value, count) for (each, label, value), count in self._counters.items() if each == name)
        family = CounterMetricFamily(name, ": prometheus counter metric, unit: Count", labels=[found[0][0]])
        for _, value, count in found:
            family.add_metric([value], count)
        return family


class _Only:
    """Some of the families."""

    def __init__(self, metrics: Metrics, names: set[str]) -> None:
        self._metrics, self._names = metrics, names

    def collect(self) -> Iterator[Metric]:
        return (family for family in self._metrics.collect() if family.name in self._names)


class ErrorRates:
    """`SERVING_ERROR_RATE_…`: once there were more errors than a rate allows, /ping says so for good."""

    def __init__(self, rates: Mapping[str, Rate], clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._seen: dict[str, list[float]] = {kind: [] for kind in rates}
        self.exceeded = False

    def error(self, kind: str) -> None:
        """One more of a kind (wlm, server, model)."""
        for each in {kind, "any"} & self._rates.keys():
            rate, now = self._rates[each], self._clock()
            seen = self._seen[each] = [at for at in self._seen[each] if now - at < rate.seconds]
            seen.append(now)
            self.exceeded = self.exceeded or len(seen) > rate.most
