"""`penstock chat`: the Streamlit page, pointed at the running server."""

from __future__ import annotations

import importlib.util
import os
from typing import Annotated

import typer

from penstock.cli.app import Home, app, fail
from penstock.cli.server import UNSET, environment, running


@app.command()
def chat(
    port: Annotated[int, typer.Option(help="The page's port.")] = 6006,
    studio: Annotated[
        bool, typer.Option("--studio", help="Serve below /jupyter/default/proxy/PORT/, as SageMaker Studio does.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="The endpoint to begin with.", envvar="endpoint_name")] = None,
    aws: Annotated[
        bool, typer.Option("--aws", help="Leave the AWS environment as it is: chat with real endpoints.")
    ] = False,
    home: Home = None,
) -> None:
    """Open the chat page on 127.0.0.1:6006."""
    if importlib.util.find_spec("streamlit") is None:
        fail("the chat page needs Streamlit: pip install 'penstock[chat]'")
    if not aws:
        point_at(home)
    if endpoint is not None:
        os.environ["endpoint_name"] = endpoint  # noqa: SIM112 - the name that AWS's sample uses
    from penstock.chat.launch import main

    raise typer.Exit(main(port=port, studio=studio))


def point_at(home: Home) -> None:
    """Set this process's AWS environment to the running server."""
    server = running(home)
    for name in UNSET:
        os.environ.pop(name, None)
    os.environ.update(environment(server))
