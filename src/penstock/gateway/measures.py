"""What a worker has counted since it last told the control process.

Owns the sums, by endpoint and variant, and their telling about once a second. It must never grow with requests: a sum is a sum.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from penstock.gateway.routing import VariantRoute
from penstock.gateway.trace import Trace
from penstock.routes import LATENCY_BOUNDS_US, GatewayEvent, Latency, Measured

Key = tuple[str, str, str, str]
"""Account, region, endpoint, variant."""


class Measures:
    """One worker's. `observe` at a request's end, `tell` by a timer."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._counts: dict[Key, dict[str, int]] = {}
        self._latencies: dict[Key, dict[str, Latency]] = {}
        self._live: dict[Key, VariantRoute] = {}
        self._in_flight: dict[Key, int] = {}
        self._dropped = 0

    def begin(self, trace: Trace, variant: VariantRoute) -> None:
        """A request turns to a variant: from now on its requests in flight are looked at."""
        self._live[trace.account, trace.region, trace.endpoint, trace.variant] = variant

    def observe(self, trace: Trace, now: float, *, broken: bool) -> None:
        key = (trace.account, trace.region, trace.endpoint, trace.variant)
        counts = self._counts.setdefault(key, {})
        for name, added in trace.counts(broken=broken).items():
            counts[name] = counts.get(name, 0) + added
        latencies = self._latencies.setdefault(key, {})
        for name, value in trace.latencies(now).items():
            found = latencies.get(name)
            if found is None:
                found = latencies[name] = Latency([0] * (len(LATENCY_BOUNDS_US) + 1))
            found.total_us += value
            found.buckets[bisect_left(LATENCY_BOUNDS_US, value)] += 1

    def tell(self, notify: Callable[[GatewayEvent], None], dropped: int) -> None:
        """One event a variant that has news, and one where lines of the access log were lost (`dropped` so far)."""
        counts, self._counts = self._counts, {}
        latencies, self._latencies = self._latencies, {}
        in_flight = {key: sum(target.outstanding for target in one.targets) for key, one in self._live.items()}
        for key in {*counts, *in_flight}:
            now = in_flight.get(key, 0)
            if key in counts or now != self._in_flight.get(key, 0):
                told = Measured(*key, now, counts.get(key, {}), latencies.get(key, {}))
                notify(GatewayEvent("measured", self._worker, measured=told))
        self._in_flight = {key: now for key, now in in_flight.items() if now}
        self._live = {key: self._live[key] for key in self._in_flight}
        if dropped != self._dropped:
            notify(GatewayEvent("measured", self._worker, dropped=dropped - self._dropped))
            self._dropped = dropped
