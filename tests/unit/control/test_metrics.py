"""The page of metrics: sums of all workers under CloudWatch's names."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock.control.metrics import MAX_SERIES, Metrics
from penstock.routes import LATENCY_BOUNDS_US, GatewayEvent, Latency, Measured


def event(worker: int, *, endpoint: str = "ep", in_flight: int = 0, latency_us: float = 0.0) -> GatewayEvent:
    buckets = [0] * (len(LATENCY_BOUNDS_US) + 1)
    buckets[3] = 1
    latencies = {"FirstChunkLatency": Latency(buckets, latency_us)}
    told = Measured("1", "us-east-1", endpoint, "AllTraffic", in_flight, {"Invocations": 2}, latencies)
    return GatewayEvent("measured", worker, measured=told)


def samples(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    page = generate_latest(metrics._registry).decode()
    return {
        (sample.name, sample.labels.get("EndpointName", ""), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_workers_are_added_up_and_one_that_ended_has_nothing_in_flight() -> None:
    metrics = Metrics()
    metrics.add(event(0, in_flight=3, latency_us=700))
    metrics.add(event(1, in_flight=4, latency_us=900))
    found = samples(metrics)
    assert found["Invocations_total", "ep", ""] == 4
    assert found["MidStreamErrors_total", "ep", ""] == 0
    assert found["FirstChunkLatency_sum", "ep", ""] == 1600
    assert found["FirstChunkLatency_count", "ep", ""] == 2
    assert found["FirstChunkLatency_bucket", "ep", "500.0"] == 0
    assert found["FirstChunkLatency_bucket", "ep", "1000.0"] == 2
    assert found["ConcurrentRequestsPerModel", "ep", ""] == 7
    metrics.forget(1)
    assert samples(metrics)["ConcurrentRequestsPerModel", "ep", ""] == 3
    metrics.add(event(1, in_flight=4, latency_us=900))
    found = samples(metrics)
    assert found["ConcurrentRequestsPerModel", "ep", ""] == 3, "its last words are counted, its requests are over"
    assert found["Invocations_total", "ep", ""] == 6
    metrics.add(GatewayEvent("measured", 0, dropped=5))
    assert samples(metrics)["penstock_access_log_dropped_lines_total", "", ""] == 5


def test_components_on_one_variant_are_told_apart() -> None:
    metrics = Metrics()
    for component in ("", "ic-1", "ic-2"):
        told = Measured("1", "us-east-1", "ep", "AllTraffic", 0, {"Invocations": 3}, {}, component)
        metrics.add(GatewayEvent("measured", 0, measured=told))
    page = generate_latest(metrics._registry).decode()
    assert {
        sample.labels["InferenceComponentName"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "Invocations_total"
    } == {"": 3, "ic-1": 3, "ic-2": 3}


def test_series_are_bounded() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 1):
        metrics.add(event(0, endpoint=f"e{number}"))
    assert len(metrics._series) == MAX_SERIES
    assert ("e0", "AllTraffic", "us-east-1", "1", "") not in metrics._series
