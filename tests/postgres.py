"""A private PostgreSQL for tests: the one that PENSTOCK_TEST_POSTGRES names, or else a cluster of our own in a temporary directory."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are (Debian keeps them off the PATH); None without them."""
    places = [Path(p).parent for p in [shutil.which("initdb")] if p]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def why_not() -> str:
    """Why no PostgreSQL can be had here; empty when one can."""
    if os.environ.get("PENSTOCK_TEST_POSTGRES"):
        return ""
    if binaries() is None:
        return "no PostgreSQL: neither PENSTOCK_TEST_POSTGRES nor its server binaries (Debian: postgresql)"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "no PostgreSQL: it refuses to run as root, and there is no user postgres"
    return ""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of a running server's database `postgres`; the server, if it is ours, ends with the block."""
    if given := os.environ.get("PENSTOCK_TEST_POSTGRES"):
        yield given
        return
    where = binaries()
    assert where is not None, why_not()
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as directory:
        as_user = "postgres" if os.geteuid() == 0 else None
        if as_user:
            shutil.chown(directory, as_user)
        data = f"{directory}/data"
        options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
        init = [str(where / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(init, check=True, capture_output=True, cwd=directory, user=as_user)
        control = [str(where / "pg_ctl"), "-D", data, "-w", "-l", f"{directory}/log"]
        subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=directory, user=as_user)
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={directory}"
        finally:
            subprocess.run(
                [*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=directory, user=as_user
            )


@contextlib.contextmanager
def database(server_url: str, name: str) -> Iterator[str]:
    """The URL of a new, empty database on that server; dropped afterwards."""
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        engine.dispose()
