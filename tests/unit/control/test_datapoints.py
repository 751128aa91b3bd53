"""Samples by the minute: sums and statistics against a plain list of values, and the bounds."""

from __future__ import annotations

import random
from bisect import bisect_left
from statistics import mean

import pytest

from penstock.control.datapoints import MINUTE, Datapoints, Samples, Series, is_statistic, one

BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
NOW = 1_000_000_000.0
SERIES = Series("1", "us-east-1", "AWS/SageMaker", "ModelLatency", frozenset({("EndpointName", "ep")}))


def named(name: str) -> Series:
    return Series("1", "us-east-1", "n", name, frozenset())


def of(values: list[float]) -> Samples:
    buckets = [0] * (len(BOUNDS) + 1)
    for value in values:
        buckets[bisect_left(BOUNDS, value)] += 1
    return Samples("Microseconds", len(values), sum(values), min(values), max(values), BOUNDS, tuple(buckets))


def test_statistics_are_those_of_the_values(rng: random.Random) -> None:
    held = Datapoints()
    minutes: dict[int, list[float]] = {}
    for _ in range(300):
        values = [rng.expovariate(0.05) for _ in range(rng.randint(1, 9))]
        when = NOW - rng.uniform(0, 3500)
        held.add(SERIES, of(values), when, NOW)
        minutes.setdefault(int(when) // MINUTE * MINUTE, []).extend(values)
    for period in (60, 300, 3600):
        expected: dict[int, list[float]] = {}
        for minute, values in minutes.items():
            expected.setdefault(minute // period * period, []).extend(values)
        found = dict(held.periods(SERIES, NOW - 7200, NOW + 60, period))
        assert list(found) == sorted(expected)
        for at, samples in found.items():
            values = sorted(expected[at])
            assert samples.unit == "Microseconds"
            assert samples.statistic("SampleCount") == len(values)
            assert samples.statistic("Sum") == pytest.approx(sum(values))
            assert samples.statistic("Average") == pytest.approx(mean(values))
            assert (samples.statistic("Minimum"), samples.statistic("Maximum")) == (values[0], values[-1])
            for percent in (0, 10, 50, 90, 99, 100):
                told = samples.statistic(f"p{percent}")
                true = values[max(-(-len(values) * percent // 100) - 1, 0)]
                assert told is not None
                assert values[0] <= told <= values[-1]
                assert abs(bisect_left(BOUNDS, told) - bisect_left(BOUNDS, true)) <= 1, (percent, told, true)


def test_values_of_no_known_distribution_have_no_percentile() -> None:
    mixed = of([1.0, 3.0])
    mixed.add(one(7.0, "Microseconds"))
    assert mixed.statistic("p50") is None
    assert mixed.statistic("Maximum") == 7.0
    assert one(3.0).statistic("p99") is None


def test_start_is_in_and_end_is_out() -> None:
    held = Datapoints()
    minute = int(NOW) // 60 * 60
    for offset in (-120, -60, 0):
        held.add(SERIES, one(float(offset)), minute + offset, NOW)
    assert [at for at, _ in held.periods(SERIES, minute - 120, minute, 60)] == [minute - 120, minute - 60]


def test_what_is_old_goes_and_is_listed_no_more() -> None:
    held = Datapoints(keep_s=600)
    held.add(named("old"), one(1.0), NOW, NOW)
    held.add(named("late"), one(1.0), NOW - 700, NOW)
    assert held.series("1", "us-east-1") == [named("old")]
    held.add(named("new"), one(1.0), NOW + 700, NOW + 700)
    assert held.series("1", "us-east-1") == [named("new")]
    assert held.series("2", "us-east-1") == []


def test_the_oldest_minutes_go_when_there_are_too_many() -> None:
    held = Datapoints(max_points=1000)
    for number in range(5000):
        held.add(named(f"m{number % 40}"), one(1.0), NOW - 6000 + number, NOW)
    assert held._points <= 1000
    assert sum(map(len, held._minutes.values())) == held._points
    assert sum(held._held.values()) == held._points
    assert [at for at, _ in held.periods(named("m0"), 0, NOW, 60)][-1] > NOW - 1200


@pytest.mark.parametrize(
    ("name", "known"),
    [("p99", True), ("p99.9", True), ("p100", True), ("p101", False), ("tm99", False), ("Sum", True), ("sum", False)],
)
def test_which_statistics_there_are(name: str, known: bool) -> None:
    assert is_statistic(name) is known
