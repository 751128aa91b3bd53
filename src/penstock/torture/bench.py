"""The bench itself: case after case, the endpoint made ready, the program run, the run judged.

Owns the order of things and what an undisturbed run looks like. What it needs of a server comes in as a `Stand`; it must never know how
one is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock import faultplan
from penstock.torture.cases import Case
from penstock.torture.content import SHAPES, TEXT, Content, Form, Shape, content
from penstock.torture.program import Run, run
from penstock.torture.verdict import Reference, Row, judge


class Stand(Protocol):
    """The endpoint under torture."""

    def stream(self, known: Content) -> None:
        """Let it stream this content from now on."""

    def plan(self, text: str) -> None:
        """Let it go by this fault plan from now on, its requests counted anew."""


class Unusable(Exception):
    """The program can't be judged; the text says why, in one or two lines."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is tortured."""

    command: Sequence[str]
    environment: Mapping[str, str]
    timeout_s: float

    def run(self) -> Run:
        """One run. Raises OSError where it can't be started."""
        return run(self.command, self.environment, self.timeout_s)


def detect(stand: Stand, program: Program, tell: Callable[[str], None]) -> tuple[Shape, Reference]:
    """The shape that the program reads, told by its output. Raises Unusable where it reads none."""
    seen = []
    for shape in SHAPES:
        tell(f"does it read {shape}?")
        stand.stream(content(shape))
        undisturbed = program.run()
        if undisturbed.code == 0 and TEXT in undisturbed.stdout:
            return shape, Reference(undisturbed, TEXT)
        seen.append(f"{shape}: {_said(undisturbed)}")
    raise Unusable(
        "no shape of stream makes the program print the known text and exit with 0; name its shape with --shape if it prints "
        f"something else than the text. It said, {'; '.join(seen)}"
    )


def undisturbed(program: Program, text: str) -> Reference:
    """What the program makes of the endpoint as it is: the known text, or else the same twice. Raises Unusable."""
    first = program.run()
    if first.code != 0:
        raise Unusable(f"the program fails on an undisturbed stream: {_said(first)}")
    if text and text in first.stdout:
        return Reference(first, text)
    if not first.stdout.strip():
        raise Unusable("the program prints nothing on an undisturbed stream, so that nothing can be judged")
    again = program.run()
    if again.stdout != first.stdout:
        raise Unusable(
            "the program prints something else each time (and not the known text): print the answer and nothing that changes, "
            "such as times, and let the model decode greedily"
        )
    return Reference(first)


def _said(run: Run) -> str:
    how = "it did not end" if run.code is None else f"exit code {run.code}"
    lines = [line.strip() for line in (run.stderr.strip() or run.stdout).splitlines() if line.strip()]
    return f"{how}, {lines[-1][:160]!r}" if lines else f"{how}, nothing"


def torture(
    stand: Stand, program: Program, cases: Sequence[Case], shape: Shape | None, reference: Reference
) -> Iterator[tuple[Case, Row | None]]:
    """Each case twice: first without its row, when it begins, then with it."""
    form: Form = "usual"
    for case in cases:
        yield case, None
        if shape is not None and case.form != form:
            stand.stream(content(shape, case.form))
            form = case.form
        stand.plan(faultplan.render(case.plan))
        yield case, judge(case, program.run(), reference, program.timeout_s)
