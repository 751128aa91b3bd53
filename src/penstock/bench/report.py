"""What a benchmark found, and where it is written down.

Owns the form of a result: medians with their spread, never a single number. It must never judge: targets are printed beside figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity over several runs. `target` is what was to be reached, in words; empty for "reported"."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: str = ""

    @property
    def median(self) -> float:
        return round(statistics.median(self.values), 4)

    @property
    def spread(self) -> str:
        return f"{min(self.values):.4g} to {max(self.values):.4g}"


@dataclass(frozen=True, slots=True)
class Result:
    """A suite's figures and the sentences that a reader needs beside them."""

    suite: str
    title: str
    figures: Sequence[Figure]
    notes: Sequence[str] = field(default_factory=tuple)


def machine() -> str:
    """The CPU's name and number of cores."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def table(result: Result) -> str:
    """The result as a section of docs/benchmarks.md."""
    rows = [
        f"| `{f.name}` | {f.median:g} {f.unit} | {f.spread} | {len(f.values)} | {f.target or 'reported'} |"
        for f in result.figures
    ]
    head = ["| figure | median | spread | runs | to reach |", "|---|---|---|---|---|"]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return "\n".join([f"## {result.title}", "", f"{day}, {machine()}.", "", *head, *rows, "", *result.notes, ""])


def write(result: Result, root: Path) -> None:
    """Write `bench/results/<suite>.json` below `root`, and the suite's section of `docs/benchmarks.md` between its marks."""
    results = root / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    document = {
        "suite": result.suite,
        "machine": machine(),
        "figures": {
            f.name: {"unit": f.unit, "median": f.median, "values": f.values, "target": f.target} for f in result.figures
        },
        "notes": list(result.notes),
    }
    (results / f"{result.suite}.json").write_text(json.dumps(document, indent=2) + "\n")
    page = root / "docs" / "benchmarks.md"
    begin, end = f"<!-- {result.suite}: begin -->", f"<!-- {result.suite}: end -->"
    text = page.read_text() if page.exists() else "# Benchmarks\n"
    section = f"{begin}\n{table(result)}{end}"
    if begin in text:
        before, _, rest = text.partition(begin)
        text = before + section + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    page.write_text(text)
