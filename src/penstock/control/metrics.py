"""Metrics of all gateway workers together, under CloudWatch's names, as Prometheus reads them.

Owns the sums since the start and their page. It must never grow without bound: it holds at most `MAX_SERIES` variants and components,
the latest.
AWS's page: "Monitor Amazon SageMaker endpoints with Amazon CloudWatch".
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from penstock.control.published import Of, Published
from penstock.routes import LATENCY_BOUNDS_US, Endpoint, GatewayEvent, Latency, Variant

MAX_SERIES = 10_000
SAMPLE_S = 10.0
"""How often requests in flight are published: workers tell of changes alone."""
LABELS = ("EndpointName", "VariantName", "Region", "AccountId", "InferenceComponentName")
"""The last is empty, which Prometheus takes for absent, where a variant runs a Model."""
COUNTS: Mapping[str, str] = {
    "Invocations": "Requests sent to a variant.",
    "Invocation4XXErrors": "Requests that the container answered with 4xx.",
    "Invocation5XXErrors": "Requests that the container answered with 5xx.",
    "InvocationModelErrors": "Requests that got no 2xx from the container, time-outs and broken connections included.",
    "MidStreamErrors": "Streams that had begun and ended with an error.",
}
LATENCIES: Mapping[str, str] = {
    "ModelLatency": "From the request's sending to the end of the container's answer.",
    "OverheadLatency": "What Penstock adds to ModelLatency.",
    "FirstChunkLatency": "Of streams: from the request's arrival to the first part.",
    "FirstChunkModelLatency": "Of streams: from the request's sending to the container's first chunk.",
    "FirstChunkOverheadLatency": "What Penstock adds to FirstChunkModelLatency.",
}


MODELS: Mapping[str, str] = {
    "ModelLoadingWaitTime": "Of multi-model variants: how long a request waited for its model.",
    "ModelDownloadingTime": "Of multi-model variants: a model's fetching and unpacking.",
    "ModelLoadingTime": "Of multi-model variants: a model's loading by its container.",
    "ModelUnloadingTime": "Of multi-model variants: a model's unloading by its container.",
}
Loaded = Iterable[tuple[Endpoint, Variant, int]]


@dataclass(slots=True)
class _Series:
    counts: dict[str, int] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    in_flight: dict[int, int] = field(default_factory=dict)
    """By worker."""


class Metrics(Collector):
    """`add` what workers tell; `handle` answers a scrape. `published` hears the same for CloudWatch's API."""

    def __init__(self, published: Published | None = None) -> None:
        self._published = published
        self._series: dict[tuple[str, str, str, str, str], _Series] = {}
        self._gone: deque[int] = deque(maxlen=64)
        """Workers that ended lately: their last words may come after their end."""
        self._dropped = 0
        self.loaded: Callable[[], Loaded] = lambda: ()
        """How many models each multi-model variant has loaded."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def add(self, event: GatewayEvent) -> None:
        self._dropped += event.dropped
        told = event.measured
        if told is None:
            return
        key = (told.endpoint, told.variant, told.region, told.account, told.component)
        series = self._of(key)
        if event.worker not in self._gone:
            series.in_flight[event.worker] = told.in_flight
        if self._published is not None:
            self._published.add(told)
            self._published.in_flight(_of(key), sum(series.in_flight.values()))
        for name, added in told.counts.items():
            series.counts[name] = series.counts.get(name, 0) + added
        for name, latency in told.latencies.items():
            _add(series, name, latency)

    def time(self, endpoint: Endpoint, variant: Variant, name: str, seconds: float) -> None:
        """A time that was measured here, not by a gateway."""
        microseconds = seconds * 1e6
        latency = Latency([0] * (len(LATENCY_BOUNDS_US) + 1), microseconds, microseconds, microseconds)
        latency.buckets[bisect_left(LATENCY_BOUNDS_US, latency.total_us)] = 1
        key = (endpoint.name, variant.name, endpoint.region, endpoint.account, "")
        if self._published is not None:
            self._published.latency(_of(key), name, latency)
        _add(self._of(key), name, latency)

    def _of(self, key: tuple[str, str, str, str, str]) -> _Series:
        """The series of a variant, which is now the latest."""
        series = self._series.pop(key) if key in self._series else _Series()
        self._series[key] = series
        if len(self._series) > MAX_SERIES:
            del self._series[next(iter(self._series))]
        return series

    async def run(self) -> None:
        """Publishes what is a state and no event again and again, until cancelled: requests in flight and models loaded."""
        while (published := self._published) is not None:
            await asyncio.sleep(SAMPLE_S)
            for key, series in self._series.items():
                if in_flight := sum(series.in_flight.values()):
                    published.in_flight(_of(key), in_flight)
            for endpoint, variant, count in self.loaded():
                published.loaded((endpoint.account, endpoint.region, endpoint.name, variant.name, ""), count)

    def forget(self, worker: int) -> None:
        """That worker has ended: nothing of its is in flight any more. Numbers are not used twice."""
        self._gone.append(worker)
        for series in self._series.values():
            series.in_flight.pop(worker, None)

    def collect(self) -> Iterator[Metric]:
        for name, text in COUNTS.items():
            counter = CounterMetricFamily(name, text, labels=LABELS)
            for labels, series in self._series.items():
                counter.add_metric(labels, series.counts.get(name, 0))
            yield counter
        hits = CounterMetricFamily(
            "ModelCacheHit", "Of multi-model variants: requests whose model was loaded already.", labels=LABELS
        )
        for labels, series in self._series.items():
            if "ModelCacheHit" in series.counts:
                hits.add_metric(labels, series.counts["ModelCacheHit"])
        yield hits
        models = GaugeMetricFamily("LoadedModelCount", "Of multi-model variants: models loaded.", labels=LABELS)
        for endpoint, variant, count in self.loaded():
            models.add_metric((endpoint.name, variant.name, endpoint.region, endpoint.account, ""), count)
        yield models
        for name, text in {**LATENCIES, **MODELS}.items():
            histogram = HistogramMetricFamily(name, f"{text} Microseconds.", labels=LABELS)
            for labels, series in self._series.items():
                if latency := series.latencies.get(name):
                    histogram.add_metric(labels, _cumulated(latency), latency.total_us)
            yield histogram
        gauge = GaugeMetricFamily("ConcurrentRequestsPerModel", "Requests in flight.", labels=LABELS)
        for labels, series in self._series.items():
            gauge.add_metric(labels, sum(series.in_flight.values()))
        yield gauge
        yield CounterMetricFamily("penstock_access_log_dropped_lines", "Lines of the access log lost.", self._dropped)

    async def handle(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _add(series: _Series, name: str, latency: Latency) -> None:
    known = series.latencies.get(name)
    if known is None:
        series.latencies[name] = latency
        return
    known.total_us += latency.total_us
    known.buckets = [a + b for a, b in zip(known.buckets, latency.buckets, strict=True)]


def _of(labels: tuple[str, str, str, str, str]) -> Of:
    """The labels of a series in the order in which they are published."""
    endpoint, variant, region, account, component = labels
    return account, region, endpoint, variant, component


def _cumulated(latency: Latency) -> list[tuple[str, float]]:
    total, rows = 0, []
    for bound, count in zip([*map(str, map(float, LATENCY_BOUNDS_US)), "+Inf"], latency.buckets, strict=True):
        total += count
        rows.append((bound, float(total)))
    return rows
