"""What a run of the program amounts to.

Owns the four verdicts. Pure: outputs in, a verdict out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from penstock.torture.cases import Case
from penstock.torture.program import Run

Outcome = Literal["survived", "lost content", "hung", "crashed"]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the program makes of an undisturbed stream. With `text`, its output holds that text; without, it must say the same again."""

    run: Run
    text: str = ""

    def whole(self, run: Run) -> bool:
        """Whether a run had all of the content."""
        return self.text in run.stdout if self.text else run.stdout == self.run.stdout


@dataclass(frozen=True, slots=True)
class Row:
    """A case, its run and the verdict with one line of explanation."""

    case: Case
    run: Run
    outcome: Outcome
    detail: str


def judge(case: Case, run: Run, reference: Reference, timeout_s: float) -> Row:
    """The verdict on a run.

    Where the stream broke, the program survives by telling so: an exit code, a line on standard error or in its output that an
    undisturbed run does not have. Silence is lost content.
    """
    if run.code is None:
        detail = "its output has no end" if run.endless else f"still running after {timeout_s:g} s"
        return Row(case, run, "hung", detail)
    if run.code == 0 and reference.whole(run):
        return Row(case, run, "survived", "all of the content")
    if case.whole:
        if run.code != 0:
            return Row(case, run, "crashed", _last_line(run))
        return Row(case, run, "lost content", _missing(run, reference))
    if word := told(run, reference):
        return Row(case, run, "survived", word)
    return Row(case, run, "lost content", f"exit code 0 and no word; {_missing(run, reference)}")


def told(run: Run, reference: Reference) -> str:
    """How the program says that something went wrong; "" where it does not."""
    if run.code:
        return f"says so: {_last_line(run)}"
    before = set(map(str.strip, reference.run.stderr.splitlines()))
    if new := [line for line in run.stderr.splitlines() if line.strip() and line.strip() not in before]:
        return f"says so: {_shown(new[-1])}"
    usual = reference.run.stdout
    behind = run.stdout[_alike(run.stdout, usual) :]
    words = [line for line in behind.splitlines() if re.search(r"\w{3}", line) and line.strip() not in usual]
    return f"says so: {_shown(words[-1])}" if words else ""


def _alike(one: str, other: str) -> int:
    """How many characters at the start are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _missing(run: Run, reference: Reference) -> str:
    if not run.stdout.strip():
        return "no output at all"
    if not reference.text:
        return f"{len(run.stdout)} characters of output, not the {len(reference.run.stdout)} of an undisturbed run"
    best = _alike(run.stdout.lstrip(), reference.text)
    return f"the first {best} of {len(reference.text)} characters are right"


_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Timeout|Mismatch|Failure)\b.*:")
"""The last line of a traceback, or what is printed like one."""


def _last_line(run: Run) -> str:
    lines = [line for line in (run.stderr.strip() or run.stdout).splitlines() if line.strip()]
    how = f"signal {-run.code}" if run.code and run.code < 0 else f"exit code {run.code}"
    line = next((line for line in reversed(lines) if _EXCEPTION.match(line)), lines[-1] if lines else "")
    return f"{how}: {_shown(line)}" if line else how


def _shown(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 160 else f"{line[:157]}…"
