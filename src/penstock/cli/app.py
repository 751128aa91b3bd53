"""What every verb shares: the Typer app, the two consoles, and one plain line for every error.

Owns no behaviour of any verb. Standard output carries answers (text or `--json`), standard error everything else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

app = typer.Typer(
    name="penstock",
    help="Amazon SageMaker real-time inference on your own machines, streaming first.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console()
err = Console(stderr=True)

Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="PENSTOCK_HOME", help="Where state lives.", show_default="~/.penstock"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for scripts.")]


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the verb with one plain line on standard error."""
    print(f"penstock: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(document: Mapping[str, object] | list[dict[str, object]]) -> None:
    """Print a document, times in ISO form."""
    print(json.dumps(document, indent=2, default=str, ensure_ascii=False))
