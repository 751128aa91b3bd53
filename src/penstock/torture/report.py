"""The HTML report: one file without anything from elsewhere.

Owns its look. It must never judge.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment

from penstock import faultplan
from penstock.torture.verdict import Outcome, Row

OUTCOMES: tuple[Outcome, ...] = ("survived", "lost content", "hung", "crashed")
_SHOWN = 4000
"""Characters of each output in the report."""


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of one torture, and what it takes to repeat it."""

    command: str
    endpoint: str
    shape: str
    seed: int
    timeout_s: float
    rows: Sequence[Row]
    again: str
    """The command line that repeats a row, without its `--only`."""

    @property
    def counts(self) -> dict[Outcome, int]:
        found = Counter(row.outcome for row in self.rows)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def repeat(self, row: Row) -> str:
        """The command line that repeats one row."""
        return self.again.replace(" -- ", f" --only {row.case.name} --seed {self.seed} -- ", 1)


def document(report: Report) -> dict[str, object]:
    """The report for scripts."""
    return {
        "command": report.command,
        "endpoint": report.endpoint,
        "shape": report.shape,
        "seed": report.seed,
        "counts": dict(report.counts),
        "rows": [
            {
                "mode": row.case.name,
                "group": row.case.group,
                "plan": faultplan.render(row.case.plan),
                "outcome": row.outcome,
                "detail": row.detail,
                "exit_code": row.run.code,
                "seconds": round(row.run.seconds, 3),
                "repeat": report.repeat(row),
            }
            for row in report.rows
        ],
    }


def html(report: Report, *, now: float | None = None) -> str:
    """The report as a page. Everything that the program wrote is escaped."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return page.render(report=report, day=day, shown=_shown, plan=lambda row: faultplan.render(row.case.plan))


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n… {len(text) - _SHOWN} characters more"


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>penstock torture: {{ report.command }}</title>
<style>
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --slow: #9a6700; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } code, pre { font: 13px/1.45 ui-monospace, monospace; }
.counts span { display: inline-block; margin: 0 1.2rem 1rem 0; } .counts b { font-size: 1.6rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .35rem .6rem; border-top: 1px solid var(--line); }
td { vertical-align: top; } tbody + tbody { border-top: 3px double var(--line); }
.survived { color: var(--good); } .lost, .crashed { color: var(--bad); } .hung { color: var(--slow); }
.outcome { font-weight: 600; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); padding: .6rem; max-height: 24rem; overflow: auto; }
summary { cursor: pointer; } small { opacity: .75; }
</style>
</head>
<body>
<h1><code>{{ report.command }}</code></h1>
<p>{{ day }} · endpoint {{ report.endpoint }} · {{ report.shape }} · seed {{ report.seed }} · at most {{ report.timeout_s }} s a run</p>
<p class="counts">{% for outcome, count in report.counts.items() %}<span class="{{ outcome }}"><b>{{ count }}</b> {{ outcome }}</span>\
{% endfor %}</p>
<table>
<thead><tr><th>mode</th><th>what happens</th><th>outcome</th><th>how</th><th>time</th></tr></thead>
<tbody>
{% for row in report.rows %}
<tr id="{{ row.case.name }}">
<td><code>{{ row.case.name }}</code><br><small>{{ row.case.group }}</small></td>
<td>{{ row.case.about }}</td>
<td class="outcome {{ row.outcome }}">{{ row.outcome }}</td>
<td>
<details><summary>{{ row.detail }}</summary>
<p>Repeat it: <code>{{ report.repeat(row) }}</code></p>
<p>The plan: <code>{{ plan(row) }}</code></p>
<p>Standard output</p><pre>{{ shown(row.run.stdout) }}</pre>
<p>Standard error</p><pre>{{ shown(row.run.stderr) }}</pre>
</details>
</td>
<td>{{ "%.1f" | format(row.run.seconds) }} s</td>
</tr>
{% endfor %}
</tbody>
</table>
</body>
</html>
"""
