"""What a run amounts to."""

from __future__ import annotations

import pytest

from penstock.faultplan import Plan
from penstock.torture.cases import Case
from penstock.torture.program import Run
from penstock.torture.verdict import Reference, judge

WHOLE = Case("random", "slicing", Plan(), True, "")
BROKEN = Case("reset", "break", Plan(), False, "")
TEXT = "the river and the turbine"
USUAL = Run(f"> {TEXT}\n[done]\n", "a warning at the start\n", 0, 1.0)
KNOWN = Reference(USUAL, TEXT)
UNKNOWN = Reference(Run("whatever\n", "", 0, 1.0))


def of(stdout: str = "", stderr: str = "", code: int | None = 0, *, endless: bool = False) -> Run:
    return Run(stdout, stderr, code, 1.0, endless)


@pytest.mark.parametrize(
    ("case", "run", "outcome", "detail"),
    [
        (WHOLE, of(f"{TEXT}\n"), "survived", "all of the content"),
        (WHOLE, of("the river"), "lost content", "the first 9 of 25 characters are right"),
        (WHOLE, of(""), "lost content", "no output at all"),
        (WHOLE, of(TEXT, "oh\nValueError: no\n", 1), "crashed", "exit code 1: ValueError: no"),
        (WHOLE, of("", "", -11), "crashed", "signal 11"),
        (WHOLE, of(TEXT, code=None), "hung", "still running after 5 s"),
        (WHOLE, of(TEXT, code=None, endless=True), "hung", "its output has no end"),
        (BROKEN, of(f"{TEXT}\n"), "survived", "all of the content"),
        (BROKEN, of("> the river", "ConnectionError: reset", 1), "survived", "says so: exit code 1: ConnectionError: reset"),
        (BROKEN, of("> the river", "a warning at the start\nthe answer broke off\n"), "survived", "says so: the answer broke off"),
        (BROKEN, of("> the river (the connection broke)\n[done]\n"), "survived", "says so:  (the connection broke)"),
        (BROKEN, of("> the river\n[done]\n", "a warning at the start\n"), "lost content", "exit code 0 and no word; "),
        (BROKEN, of("> the riv"), "lost content", "exit code 0 and no word; "),
        (BROKEN, of("> the river", code=None), "hung", "still running after 5 s"),
    ],
)  # fmt: skip
def test_verdicts(case: Case, run: Run, outcome: str, detail: str) -> None:
    row = judge(case, run, KNOWN, 5.0)
    assert (row.outcome, row.detail.replace("so: (", "so:  (")[: len(detail)]) == (outcome, detail)


def test_without_a_known_text_the_same_output_is_all_of_it() -> None:
    assert judge(WHOLE, of("whatever\n"), UNKNOWN, 5.0).outcome == "survived"
    row = judge(WHOLE, of("what\n"), UNKNOWN, 5.0)
    assert row.outcome == "lost content"
    assert row.detail == "5 characters of output, not the 9 of an undisturbed run"


def test_a_traceback_is_told_by_its_last_line_and_not_by_what_follows() -> None:
    run = of("", "Traceback …\nlib.errors.StreamError: cut\nPlease file a report at https://example.com\n", 1)
    assert judge(WHOLE, run, KNOWN, 5.0).detail == "exit code 1: lib.errors.StreamError: cut"
