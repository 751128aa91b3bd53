"""`penstock tape`: look at recorded streams and change them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock import tape as tapes
from penstock.cli.app import Json, app, err, fail, print_json
from penstock.tape import Tape, TapeError, problems

tape = typer.Typer(help="Check, compare, trim and scrub recorded streams.", no_args_is_help=True)
app.add_typer(tape, name="tape")

File = Annotated[Path, typer.Argument(help="A tape.")]


@tape.command()
def validate(files: Annotated[list[Path], typer.Argument(help="Tapes.")], as_json: Json = False) -> None:
    """Check tapes; what is wrong is told with its line, and the exit code is 1."""
    found: list[dict[str, object]] = []
    for path in files:
        try:
            with path.open("rb") as file:
                wrong = problems(file)
        except OSError as error:
            wrong = [str(error.strerror)]
        found.append({"tape": str(path), "problems": wrong})
        if not as_json:
            print("\n".join(f"{path}: {text}" for text in wrong or ["good"]))
    if as_json:
        print_json(found)
    if any(entry["problems"] for entry in found):
        raise typer.Exit(1)


@tape.command()
def diff(
    a: File,
    b: File,
    within_ms: Annotated[
        float | None, typer.Option(help="Compare times too: they differ by at most so many ms.")
    ] = None,
    content_only: Annotated[bool, typer.Option("--content-only", help="Leave out how the content is cut.")] = False,
) -> None:
    """Show what differs between two tapes; the exit code is 1 if anything does."""
    count = 0
    for line in tapes.diff(_load(a), _load(b), within_ms=within_ms, content_only=content_only):
        print(line)
        count += 1
    if count:
        raise typer.Exit(1)


@tape.command()
def trim(
    file: File,
    parts: Annotated[int | None, typer.Option(min=0, help="Keep so many parts.")] = None,
    ms: Annotated[float | None, typer.Option(min=0, help="Keep the parts of so many milliseconds.")] = None,
) -> None:
    """Print the beginning of a tape, with a clean end."""
    if parts is None and ms is None:
        fail("trim needs --parts or --ms")
    _print(tapes.trim(_load(file), parts=parts, ms=ms))


@tape.command()
def scrub(
    file: File, content: Annotated[bool, typer.Option("--content", help="Mask what is said too; lengths stay.")] = False
) -> None:
    """Print a tape without secrets in its headers and URL."""
    _print(tapes.scrub(_load(file), content=content))
    err.print("scrubbed" + (" with content" if content else ", what was said is still there"), highlight=False)


def _load(path: Path) -> Tape:
    try:
        with path.open("rb") as file:
            return tapes.load(file)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except TapeError as error:
        fail(f"{path}: {error}")


def _print(made: Tape) -> None:
    for line in made.lines():
        sys.stdout.buffer.write(tapes.write(line))
