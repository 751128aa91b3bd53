"""What a handler reports of itself: the `[METRICS]` lines of its output, as families for Prometheus' page.

Owns a line's form, which kind of family its unit makes, and how many of them are kept. It must never know which process said it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from penstock.servers.lmi.metrics import Histogram

MARK = "[METRICS]"
MOST_SERIES = 1000
"""A name with one value of its label is a series. Of more, nothing is kept."""
Kind = Literal["counter", "gauge", "histogram"]
_LINE = re.compile(
    r"\s*(?P<name>\w+)\.(?P<unit>\w+):(?P<value>[0-9\-.e]+)(?:\|#(?P<dimensions>[^|]*))?"
    r"(?:\|#hostname:[^|]*|(?:\|(?P<timestamp>\d+))?(?:\|(?P<kind>[cgh]))?)\s*",
    re.ASCII,
)
"""The end is the original's, or the older one with the machine's name, which its images before 0.27 wrote to their log alone."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_KINDS: dict[str | None, Kind] = {"c": "counter", "g": "gauge", "h": "histogram"}
_UNITS = {
    unit.lower(): unit
    for unit in (
        *("Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes"),
        *("Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "None"),
    )
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One line. `label` is its first dimension's name, and `value_of_label` that one's value."""

    name: str
    unit: str
    kind: Kind
    value: float
    label: str
    value_of_label: str


def parse(line: str, host: str) -> Reading | None:
    """What a line reports; None where it is another kind of line, or one that can't be kept. `host` labels one without dimensions."""
    _, mark, rest = line.partition(MARK)
    if not mark or (found := _LINE.fullmatch(rest)) is None:
        return None
    unit = _UNITS.get(found["unit"].lower())
    try:
        value = float(found["value"])
    except ValueError:
        return None
    kind = _KINDS.get(found["kind"]) or ("counter" if unit == "Count" else "gauge")
    label, separator, labelled = (found["dimensions"] or "").partition(",")[0].partition(":")
    if not separator:
        label, labelled = "Host", host
    named = _NAME.fullmatch(found["name"]) and _NAME.fullmatch(label) and not label.startswith("__")
    if unit is None or not named or (kind == "counter" and value < 0) or (kind == "histogram" and label == "le"):
        return None
    return Reading(found["name"], unit, kind, value, label, labelled)


@dataclass(slots=True)
class _Family:
    """All series of a name, by the value of their label. The first line of the name decides what it is."""

    unit: str
    kind: Kind
    label: str
    numbers: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)


class Reported:
    """Of all handlers of a server."""

    def __init__(self) -> None:
        self._host = socket.gethostname()
        self._families: dict[str, _Family] = {}
        self._series = 0

    def line(self, line: str) -> None:
        """Any line of a handler's output."""
        if MARK in line and (reading := parse(line, self._host)) is not None:
            self._keep(reading)

    def _keep(self, reading: Reading) -> None:
        family = self._families.get(reading.name) or _Family(reading.unit, reading.kind, reading.label)
        series: dict[str, float] | dict[str, Histogram] = (
            family.histograms if family.kind == "histogram" else family.numbers
        )
        if family.kind != reading.kind or (reading.value_of_label not in series and self._series >= MOST_SERIES):
            return
        self._series += reading.value_of_label not in series
        self._families[reading.name] = family
        if family.kind == "histogram":
            family.histograms.setdefault(reading.value_of_label, Histogram()).observe(reading.value)
        elif family.kind == "counter":
            family.numbers[reading.value_of_label] = family.numbers.get(reading.value_of_label, 0.0) + reading.value
        else:
            family.numbers[reading.value_of_label] = reading.value

    def collect(self) -> Iterator[Metric]:
        """What the client library asks of a collector."""
        for name, each in sorted(self._families.items()):
            text = f": prometheus {each.kind} metric, unit: {each.unit}"
            if each.kind == "histogram":
                histograms = HistogramMetricFamily(name, text, labels=[each.label])
                for labelled, histogram in sorted(each.histograms.items()):
                    histograms.add_metric([labelled], histogram.cumulative(), histogram.total)
                yield histograms
                continue
            family = (CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily)(
                name, text, labels=[each.label]
            )
            for labelled, number in sorted(each.numbers.items()):
                family.add_metric([labelled], number)
            yield family
