"""What SageMaker publishes in CloudWatch of its endpoints, made of what gateway workers tell.

Owns which metric has which value, unit and dimensions. It must never keep anything: `Datapoints` does.
AWS's page: "Monitor Amazon SageMaker endpoints with Amazon CloudWatch".
"""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.control.datapoints import Datapoints, Dimensions, Samples, Series, one
from penstock.routes import LATENCY_BOUNDS_US, Latency, Measured

NAMESPACE = "AWS/SageMaker"
ERRORS = ("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors", "MidStreamErrors")
_BOUNDS = tuple(map(float, LATENCY_BOUNDS_US))

Of = tuple[str, str, str, str, str]
"""Account, region, endpoint, variant, inference component ("" for none)."""


class Published:
    """`replicas` says how many there are of a variant, or copies of a component; `now` is epoch seconds."""

    def __init__(
        self, datapoints: Datapoints, replicas: Callable[[Of], int], now: Callable[[], float] = time.time
    ) -> None:
        self._datapoints, self._replicas, self._now = datapoints, replicas, now

    def add(self, told: Measured) -> None:
        """What a worker has counted since it last told."""
        of = (told.account, told.region, told.endpoint, told.variant, told.component)
        for name, latency in told.latencies.items():
            self.latency(of, name, latency)
        if not (requests := told.counts.get("Invocations", 0)):
            return
        self._put(of, "Invocations", Samples("None", requests, requests, 1, 1))
        share = 1 / max(self._replicas(of), 1)
        name = "InvocationsPerCopy" if told.component else "InvocationsPerInstance"
        self._put(of, name, Samples("None", requests, requests * share, share, share))
        streams = sum(told.latencies["FirstChunkLatency"].buckets) if "FirstChunkLatency" in told.latencies else 0
        for name in ERRORS:
            errors = told.counts.get(name, 0)
            samples = max(streams, errors) if name == "MidStreamErrors" else requests
            if samples:  # each request is a 1 or a 0: the average is the share of those that failed
                self._put(of, name, Samples("None", samples, errors, float(errors == samples), float(errors > 0)))

        if "ModelCacheHit" in told.counts or "ModelLoadingWaitTime" in told.latencies:
            hits = told.counts.get("ModelCacheHit", 0)
            self._put(of, "ModelCacheHit", Samples("None", requests, hits, float(hits == requests), float(hits > 0)))

    def latency(self, of: Of, name: str, latency: Latency) -> None:
        """Times that were measured."""
        count, extremes = sum(latency.buckets), (latency.total_us, latency.least_us, latency.most_us)
        self._put(of, name, Samples("Microseconds", count, *extremes, _BOUNDS, tuple(latency.buckets)))

    def loaded(self, of: Of, models: int) -> None:
        """How many a multi-model variant has loaded now."""
        self._put(of, "LoadedModelCount", one(models))

    def in_flight(self, of: Of, requests: int) -> None:
        """How many there are of all workers now."""
        self._put(of, "ConcurrentRequestsPerCopy" if of[4] else "ConcurrentRequestsPerModel", one(requests))

    def _put(self, of: Of, name: str, samples: Samples) -> None:
        account, region, endpoint, variant, component = of
        dimensions: Dimensions = frozenset((("EndpointName", endpoint), ("VariantName", variant)))
        now = self._now()
        self._datapoints.add(Series(account, region, NAMESPACE, name, dimensions), samples, now, now)
        if component:
            dimensions = frozenset((("InferenceComponentName", component),))
            self._datapoints.add(Series(account, region, NAMESPACE, name, dimensions), samples, now, now)
