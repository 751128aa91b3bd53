"""The `penstock` command: one file a verb, gathered here in the order of the help page."""

from __future__ import annotations

import importlib
import os
import sys

from penstock.cli.app import app

VERBS = {
    "up": ("up", "down", "reload"),
    "env": ("env",),
    "run": ("run",),
    "deploy": ("deploy",),
    "invoke": ("invoke",),
    "listing": ("ls", "show", "rm"),
    "logs": ("logs",),
    "fault": ("fault",),
    "record": ("record",),
    "tape": ("tape",),
    "models": ("models",),
    "keys": ("keys",),
    "chat": ("chat",),
    "demo": ("demo",),
    "torture": ("torture",),
    "doctor": ("doctor",),
}
"""The module of `penstock.cli` and the verbs that it registers."""


def gather(verb: str | None = None) -> None:
    """Import the module of this verb; all of them for the help page, for completion, and for a verb that there is not.

    Importing all takes as long again as the rest of a verb's start.
    """
    for module in [module for module, verbs in VERBS.items() if verb in verbs] or VERBS:
        importlib.import_module(f"penstock.cli.{module}")


@app.callback()
def _group() -> None:
    """Without a callback, Typer takes an app of one verb for that verb itself."""


def main() -> None:
    """Entry point. A pipe that closes early (`penstock ls | head`) ends the verb quietly."""
    gather(sys.argv[1] if len(sys.argv) > 1 else None)
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
