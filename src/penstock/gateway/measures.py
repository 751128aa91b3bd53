"""What a worker has counted since it last told the control process.

Owns the sums, by endpoint, variant and inference component, and their telling about once a second. It must never grow with requests: a sum
is a sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from penstock.gateway.routing import VariantRoute
from penstock.gateway.trace import LEFT, Trace
from penstock.routes import LATENCY_BOUNDS_US, GatewayEvent, Latency, Measured

Key = tuple[str, str, str, str, str]
"""Account, region, endpoint, variant, inference component ("" for none)."""


_STREAMED = "InvokeEndpointWithResponseStream"


class _Sums:
    """Of one variant since the last telling."""

    __slots__ = ("counts", "latencies")

    def __init__(self) -> None:
        self.counts = {"Invocations": 0}
        self.latencies: dict[str, Latency] = {}

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def add(self, name: str, seconds: float) -> None:
        latency = self.latencies.get(name)
        microseconds = seconds * 1e6
        if latency is None:
            latency = self.latencies[name] = Latency(
                [0] * (len(LATENCY_BOUNDS_US) + 1), 0.0, microseconds, microseconds
            )
        elif microseconds < latency.least_us:
            latency.least_us = microseconds
        elif microseconds > latency.most_us:
            latency.most_us = microseconds
        latency.total_us += microseconds
        latency.buckets[bisect_left(LATENCY_BOUNDS_US, microseconds)] += 1


class Measures:
    """One worker's. `observe` at a request's end, `tell` by a timer."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._sums: dict[Key, _Sums] = {}
        self._live: dict[Key, VariantRoute] = {}
        self._in_flight: dict[Key, int] = {}
        self._dropped = 0

    def begin(self, trace: Trace, variant: VariantRoute) -> None:
        """A request turns to a variant: from now on its requests in flight are looked at."""
        self._live[trace.account, trace.region, trace.endpoint, trace.variant, trace.component] = variant

    def observe(self, trace: Trace, now: float, *, broken: bool) -> None:
        """A request has ended. `broken`: its stream had begun and did not end cleanly.

        AWS's page: "Monitor Amazon SageMaker endpoints with Amazon CloudWatch", invocation and streaming metrics.
        """
        key = (trace.account, trace.region, trace.endpoint, trace.variant, trace.component)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums()
        sums.counts["Invocations"] += 1
        if broken:
            sums.count("MidStreamErrors")
        sent, status = trace.sent, trace.model_status
        if not sent:
            if trace.error == "ModelError":  # no replica took the connection, or none had room in time
                sums.count("InvocationModelErrors")
            return
        if not 200 <= status < 300 and trace.error != LEFT:
            sums.count("InvocationModelErrors")
            if status >= 400:
                sums.count("Invocation4XXErrors" if status < 500 else "Invocation5XXErrors")
        if trace.answered:
            model = trace.answered - sent
            sums.add("ModelLatency", model)
            sums.add("OverheadLatency", now - trace.began - model)
        if trace.first and trace.operation == _STREAMED:
            sums.add("FirstChunkLatency", trace.first - trace.began)
            sums.add("FirstChunkModelLatency", trace.first - sent)
            sums.add("FirstChunkOverheadLatency", sent - trace.began)

    def count(self, trace: Trace, name: str) -> None:
        """One more of something that only some variants have."""
        self._of(trace).count(name)

    def time(self, trace: Trace, name: str, seconds: float) -> None:
        """A time that only some variants have."""
        self._of(trace).add(name, seconds)

    def _of(self, trace: Trace) -> _Sums:
        key = (trace.account, trace.region, trace.endpoint, trace.variant, trace.component)
        return self._sums.setdefault(key, _Sums())

    def tell(self, notify: Callable[[GatewayEvent], None], dropped: int) -> None:
        """One event a variant that has news, and one where lines of the access log were lost (`dropped` so far)."""
        sums, self._sums = self._sums, {}
        in_flight = {key: sum(target.outstanding for target in one.targets) for key, one in self._live.items()}
        for key in {*sums, *in_flight}:
            now, ended = in_flight.get(key, 0), sums.get(key)
            if ended is not None or now != self._in_flight.get(key, 0):
                counts, latencies = (ended.counts, ended.latencies) if ended else ({}, {})
                told = Measured(*key[:4], now, counts, latencies, key[4])
                notify(GatewayEvent("measured", self._worker, measured=told))
        self._in_flight = {key: now for key, now in in_flight.items() if now}
        self._live = {key: self._live[key] for key in self._in_flight}
        if dropped != self._dropped:
            notify(GatewayEvent("measured", self._worker, dropped=dropped - self._dropped))
            self._dropped = dropped
