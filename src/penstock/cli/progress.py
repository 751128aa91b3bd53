"""How a verb shows that something takes time: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.cli.app import err


@contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Show `title` with a clock; call what is yielded with each state reached."""
    begin = time.monotonic()
    if err.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("[dim]{task.fields[state]}"))
        with Progress(*columns, TimeElapsedColumn(), console=err) as progress:
            task = progress.add_task(title, total=None, state="")
            yield lambda state: progress.update(task, state=state)
            progress.update(task, total=1, completed=1)
        return
    last = ""

    def tell(state: str) -> None:
        nonlocal last
        if state != last:
            last = state
            err.print(f"{title}: {state} ({time.monotonic() - begin:.1f} s)", highlight=False, soft_wrap=True)

    yield tell
