"""The `penstock` command: one file a verb, gathered here in the order of the help page."""

from __future__ import annotations

import importlib
import os
import sys

from penstock.cli.app import app

VERBS = (
    "up",
    "env",
    "run",
    "deploy",
    "invoke",
    "listing",
    "logs",
    "fault",
    "record",
    "tape",
    "models",
    "keys",
    "chat",
    "demo",
    "torture",
    "doctor",
)

for verb in VERBS:
    importlib.import_module(f"penstock.cli.{verb}")


def main() -> None:
    """Entry point. A pipe that closes early (`penstock ls | head`) ends the verb quietly."""
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
