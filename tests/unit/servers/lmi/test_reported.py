"""What a handler's lines make of Prometheus' page."""

from __future__ import annotations

import pytest

from penstock.servers.lmi.metrics import Metrics
from penstock.servers.lmi.reported import MOST_SERIES, Reading, Reported, parse


@pytest.mark.parametrize(
    ("line", "reading"),
    [
        ("[METRICS]A.Count:2|#Model:m", Reading("A", "Count", "counter", 2.0, "Model", "m")),
        ("[METRICS]A.Milliseconds:3.5|#Model:m", Reading("A", "Milliseconds", "gauge", 3.5, "Model", "m")),
        ("[METRICS]A.Bytes:1e3|#Model:m|1650953744320", Reading("A", "Bytes", "gauge", 1000.0, "Model", "m")),
        ("[METRICS]A.Count:-1|#Model:m|1650953744320|g", Reading("A", "Count", "gauge", -1.0, "Model", "m")),
        ("[METRICS]A.Milliseconds:7|#Model:m|h", Reading("A", "Milliseconds", "histogram", 7.0, "Model", "m")),
        ("INFO [METRICS] A.Count:1", Reading("A", "Count", "counter", 1.0, "Host", "here")),
        (
            "[METRICS]Inference.milliseconds:311|#Level:Host,count:time|#hostname:localhost,1650953744320,request_id",
            Reading("Inference", "Milliseconds", "gauge", 311.0, "Level", "Host"),
        ),
        ("[METRICS]A.Count:1|#|1", Reading("A", "Count", "counter", 1.0, "Host", "here")),
        ("A.Count:2|#Model:m", None),
        ("[METRICS]A.Furlongs:2|#Model:m", None),
        ("[METRICS]A.Count:-2|#Model:m", None),
        ("[METRICS]A.Count:1-2|#Model:m", None),
        ("[METRICS]A b.Count:1|#Model:m", None),
        ("[METRICS]1A.Count:1|#Model:m", None),
        ("[METRICS]A.Count:1|#my-label:m", None),
        ("[METRICS]A.Count:1|#le:m|h", None),
        ("[METRICS]A.Count:nan|#Model:m", None),
        ("[METRICS]", None),
    ],
)
def test_a_line(line: str, reading: Reading | None) -> None:
    assert parse(line, "here") == reading


def page(*lines: str) -> str:
    reported = Reported()
    for line in lines:
        reported.line(line)
    metrics = Metrics(reported)
    metrics.gauge("LoadModel", "m", 5.0)
    return metrics.render().decode()


def test_counters_add_up_gauges_are_the_last_and_histograms_count() -> None:
    said = page(
        *["[METRICS]Seen.Count:2|#Model:m"] * 3,
        "[METRICS]Seen.Count:1|#Model:n",
        "[METRICS]Took.Milliseconds:5|#Model:m",
        "[METRICS]Took.Milliseconds:4|#Model:m",
        *["[METRICS]Size.Bytes:0.3|#Model:m|h"] * 2,
    )
    assert "# HELP Seen_total : prometheus counter metric, unit: Count" in said
    assert 'Seen_total{Model="m"} 6.0' in said
    assert 'Seen_total{Model="n"} 1.0' in said
    assert 'Took{Model="m"} 4.0' in said
    assert 'Size_bucket{Model="m",le="0.25"} 0.0' in said
    assert 'Size_bucket{Model="m",le="0.5"} 2.0' in said
    assert 'Size_sum{Model="m"} 0.6' in said


def test_a_name_stays_what_it_was_first_and_the_servers_own_are_not_taken() -> None:
    said = page(
        "[METRICS]A.Count:1|#Model:m",
        "[METRICS]A.Milliseconds:9|#Model:m",
        "[METRICS]A.Count:1|#Other:m",
        "[METRICS]LoadModel.Microseconds:666|#Model:m",
    )
    assert 'A_total{Model="m"} 2.0' in said
    assert "9.0" not in said
    assert "666" not in said
    assert said.count("# TYPE LoadModel gauge") == 1


def test_series_are_bounded() -> None:
    said = page(*(f"[METRICS]A.Count:1|#Id:{number}" for number in range(MOST_SERIES + 5)))
    assert said.count("A_total{") == MOST_SERIES
