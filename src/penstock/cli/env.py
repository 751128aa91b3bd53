"""`penstock env`: the shell lines that point AWS's SDKs at the running server."""

from __future__ import annotations

import shlex

from penstock.cli.app import Home, Json, app, print_json
from penstock.cli.server import UNSET, environment, running


@app.command()
def env(home: Home = None, as_json: Json = False) -> None:
    """Print the environment for AWS clients: [bold]eval "$(penstock env)"[/bold]."""
    variables = environment(running(home))
    if as_json:
        print_json(variables)
        return
    for name in UNSET:
        print(f"unset {name}")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
