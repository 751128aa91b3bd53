"""`penstock models`: which directories stand for which hub ids."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock import aliases
from penstock.cli.app import Home, Json, app, err, fail, out, print_json
from penstock.cli.server import settings

models = typer.Typer(
    help="Map hub ids to directories, so that code that names them runs offline.", no_args_is_help=True
)
app.add_typer(models, name="models")

HubId = Annotated[str, typer.Argument(help="A hub id such as tiiuae/falcon-7b-instruct.")]


@models.command("ls")
def list_models(as_json: Json = False, home: Home = None) -> None:
    """List the aliases."""
    known = aliases.read(settings(home).paths.models)
    if as_json:
        print_json(dict(known))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("HUB ID", no_wrap=True)
    table.add_column("DIRECTORY", overflow="fold")
    for hub_id, directory in sorted(known.items()):
        table.add_row(hub_id, str(directory))
    out.print(table)


@models.command()
def alias(
    hub_id: HubId,
    directory: Annotated[str, typer.Argument(help="A directory, or another id that is known.")],
    home: Home = None,
) -> None:
    """Let a hub id mean a directory."""
    paths = settings(home).paths
    try:
        aliases.write(paths.models, hub_id, directory)
        target = aliases.read(paths.models)[hub_id]
    except (aliases.AliasError, OSError) as error:
        fail(str(error))
    err.print(f"{hub_id} -> {target}", highlight=False)


@models.command()
def unalias(hub_id: HubId, home: Home = None) -> None:
    """Forget an alias."""
    if not aliases.remove(settings(home).paths.models, hub_id):
        fail(f"{hub_id} is not an alias; see: penstock models ls")
    err.print(f"{hub_id} forgotten", highlight=False)
