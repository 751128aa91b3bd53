"""`penstock run -- CMD`: run a program written for AWS against the running server, unedited."""

from __future__ import annotations

import os
import shutil
from typing import Annotated

import typer

from penstock.cli.app import Home, app, fail
from penstock.cli.server import UNSET, run_environment, running


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")], home: Home = None
) -> None:
    """Run a command whose AWS calls, hard-coded hosts included, go to the running server."""
    variables = run_environment(running(home))
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(variables)
    program = shutil.which(command[0])
    if program is None:
        fail(f"{command[0]}: command not found", code=127)
    try:
        os.execv(program, command)
    except OSError as error:
        fail(f"{program}: {error.strerror}", code=126)
