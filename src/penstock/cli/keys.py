"""`penstock keys`: access keys beside the root key, with IAM policies."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from penstock import accesskeys
from penstock.cli.app import Home, Json, app, err, fail, out, print_json
from penstock.cli.server import Server, client, find, settings

IN_FORCE_S = 5.0

keys = typer.Typer(help="Create and remove access keys, each with its IAM policies.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command()
def create(
    policy: Annotated[
        list[Path] | None, typer.Option(help="A file with an IAM policy (JSON); repeatable. Without: everything.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The key's name: its session's in ARNs.")] = None,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Create a key. Its secret is shown now and never again."""
    known = settings(home)
    try:
        policies = tuple(path.read_text() for path in policy or ())
        known.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = known.paths.access_keys
        key = accesskeys.create(path, name or f"key-{secrets.token_hex(4)}", policies, time.time())
    except (accesskeys.KeyFileError, OSError, UnicodeDecodeError) as error:
        fail(str(error))
    server = find(home)
    if server is not None:
        _await(lambda: _signs(server, key), f"the server does not know {key.id} yet")
    if as_json:
        print_json({"Name": key.name, "AccessKeyId": key.id, "SecretAccessKey": key.secret})
        return
    print(f"export AWS_ACCESS_KEY_ID={key.id}\nexport AWS_SECRET_ACCESS_KEY={key.secret}")


@keys.command("ls")
def list_keys(as_json: Json = False, home: Home = None) -> None:
    """List the keys that were created, without their secrets."""
    try:
        known = accesskeys.read(settings(home).paths.access_keys)
    except accesskeys.KeyFileError as error:
        fail(str(error))
    if as_json:
        listed = [
            {"Name": k.name, "AccessKeyId": k.id, "CreateDate": _when(k.created), "Policies": list(k.policies)}
            for k in known
        ]
        print_json({"AccessKeys": listed})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "ACCESS KEY", "CREATED", "POLICIES"):
        table.add_column(column, no_wrap=True)
    for key in known:
        table.add_row(key.name, key.id, _when(key.created), str(len(key.policies)) if key.policies else "everything")
    out.print(table)


@keys.command("rm")
def remove(
    name: Annotated[str, typer.Argument(help="A key's name or id.")],
    home: Home = None,
) -> None:
    """Take a key away: what it signs is refused from now on."""
    try:
        key = accesskeys.remove(settings(home).paths.access_keys, name)
    except (accesskeys.KeyFileError, OSError) as error:
        fail(str(error))
    if key is None:
        fail(f"no key {name}; see: penstock keys ls")
    server = find(home)
    if server is not None:
        _await(lambda: not _signs(server, key), f"the server still knows {key.id}")
    err.print(f"{key.name} ({key.id}) removed", highlight=False)


def _when(created: float) -> str:
    return datetime.fromtimestamp(int(created), UTC).isoformat().replace("+00:00", "Z")


def _signs(server: Server, key: accesskeys.CreatedKey) -> bool:
    """Whether the running server takes the key's signature: GetCallerIdentity needs no permission."""
    from botocore.exceptions import ClientError

    try:
        client(replace(server, access_key=key.id, secret_key=key.secret), "sts").get_caller_identity()
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidClientTokenId":
            return False
        raise
    return True


def _await(reached: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + IN_FORCE_S
    while not reached():
        if time.monotonic() > end:
            fail(f"{otherwise}; see penstock doctor")
        time.sleep(0.05)
