"""Brings a database to today's tables.

Owns the comparison of a database's revision with ours. Alembic is imported only for a database that is behind, for it costs start-up
time and memory: an empty one gets today's tables at once, and is marked as if it had come all the way.
"""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from penstock.control import schema
from penstock.control.start import CannotStart

HERE = Path(__file__).parent / "migrations"


class WrongDatabase(CannotStart):
    """The database can't be had, or can't be brought to today's tables."""


def revisions() -> tuple[str, ...]:
    """Our revisions, oldest first, read from the file names."""
    return tuple(sorted(m[1] for p in (HERE / "versions").iterdir() if (m := re.match(r"(\d{4})_\w+\.py$", p.name))))


def current(connection: Connection) -> str | None:
    """The database's revision; None when it is new."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing, within the caller's transaction. Raises WrongDatabase."""
    known, found = revisions(), current(connection)
    if found == known[-1]:
        return
    if found is None and not inspect(connection).get_table_names():
        schema.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": known[-1]})
        return
    if found is not None and found not in known:
        raise WrongDatabase(
            f"the database is at revision {found}, newer than this Penstock (which knows up to {known[-1]})"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
