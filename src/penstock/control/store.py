"""Where control's state lives: SQLite in the home by default, PostgreSQL by URL.

Owns transactions and the way between rows and values. It must never know AWS's rules: what may be written when is
decided by who calls. What a transaction wrote is on the disk when `run` returns (SQLite: WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Table,
    create_engine,
    delete,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from penstock.control import migrate, schema
from penstock.control.fleet import Endpoint, Fleet, Host, Replica, Slot
from penstock.control.lifecycle import Status
from penstock.errors import AwsError

T = TypeVar("T")
log = logging.getLogger(__name__)
DEADLINE_S = 15.0


class AlreadyExists(Exception):
    """The ARN is taken."""


class Changed(Exception):
    """Somebody else wrote the row since it was read."""


class StoreUnavailable(AwsError):
    """The database can't be read or written now: a full disk, a lost server (503)."""

    def __init__(self, message: str) -> None:
        super().__init__("ServiceUnavailable", message, status=503)


@dataclass(frozen=True, slots=True)
class Resource:
    """A Model or an EndpointConfig: the request that made it, less its tags. `created_at` in epoch seconds."""

    arn: str
    account: str
    region: str
    name: str
    created_at: float
    request: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """An endpoint's fault plan as text (`faultplan.parse`). `set_at` in epoch seconds."""

    text: str
    set_at: float


@dataclass(frozen=True, slots=True)
class World:
    """All that the reconciler looks at; `tags` and `plans` by endpoint ARN."""

    endpoints: tuple[Endpoint, ...]
    replicas: tuple[Replica, ...]
    tags: Mapping[str, Mapping[str, str]]
    plans: Mapping[str, StoredPlan] = field(default_factory=dict)


class Store:
    """One database. Transactions run one after another in a thread of its own, so that none stalls the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def run(self, work: Callable[[Transaction], T], *, deadline_s: float = DEADLINE_S) -> T:
        """What `work` returns, committed; on any exception nothing is written. Raises StoreUnavailable."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            raise StoreUnavailable(f"The database did not answer within {deadline_s:g} s.") from None

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(Transaction(connection))
        except DBAPIError as error:
            log.error("database: %s", error.orig)
            raise StoreUnavailable(_reason(error)) from error

    def close(self) -> None:
        self._thread.shutdown()
        self._engine.dispose()


def open_store(database: Path, url: str = "") -> Store:
    """The store at `url`, or else in the SQLite file `database`, brought to today's tables. Blocks.

    Raises migrate.WrongDatabase, in one plain line, when it can't be had.
    """
    try:
        target = make_url(url) if url else URL.create("sqlite", database=str(database))
        if target.drivername == "postgresql":
            target = target.set(drivername="postgresql+psycopg")
        engine = _engine(target)
    except (ArgumentError, NoSuchModuleError):
        raise migrate.WrongDatabase("the database URL is not one that SQLAlchemy knows") from None
    except OSError as error:
        raise migrate.WrongDatabase(f"{database}: {error.strerror}") from None
    except ModuleNotFoundError as error:
        raise migrate.WrongDatabase(f"{error.name} is missing: pip install 'penstock[postgres]'") from None
    try:
        with engine.begin() as connection:
            migrate.upgrade(connection)
    except DBAPIError as error:
        engine.dispose()
        raise migrate.WrongDatabase(_reason(error)) from error
    except BaseException:
        engine.dispose()
        raise
    return Store(engine)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        options = {"connect_timeout": 5, "options": "-c statement_timeout=10000"}
        return create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=options)
    if url.database and url.database != ":memory:":
        # Environments of containers hold secrets: nobody else may read them, from the first byte on.
        os.close(os.open(url.database, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, pool_size=1, max_overflow=0, connect_args={"timeout": 5, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=16777216"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: who reads in order to write must not find at the end that another has written.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _reason(error: DBAPIError) -> str:
    text = str(error.orig).splitlines()[0] if error.orig and str(error.orig) else type(error).__name__
    if "disk is full" in text or "disk I/O error" in text or "No space left" in text:
        return f"The database can't be written: {text}. Free some space and try again."
    return f"The database can't be used: {text}."


class Transaction:
    """What can be read and written within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # -- Models and EndpointConfigs -------------------------------------------------------------------------------

    def add(self, table: Table, resource: Resource) -> None:
        """Raises AlreadyExists."""
        self._insert(table, **_fields(resource) | {"request": _json(resource.request)})

    def get(self, table: Table, arn: str) -> Resource | None:
        row = self._connection.execute(select(table).where(table.c.arn == arn)).first()
        return _resource(row) if row else None

    def all(self, table: Table, account: str, region: str) -> tuple[Resource, ...]:
        rows = self._connection.execute(select(table).where(table.c.account == account, table.c.region == region))
        return tuple(_resource(row) for row in rows)

    def remove(self, table: Table, arn: str) -> bool:
        """Also its tags. False when there was none."""
        self.clear_tags(arn)
        return self._connection.execute(delete(table).where(table.c.arn == arn)).rowcount > 0

    # -- Endpoints, inference components, replicas -----------------------------------------------------------------------------------

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Raises AlreadyExists."""
        self._insert(schema.endpoints, **_endpoint_columns(endpoint))

    def endpoint(self, arn: str) -> Endpoint | None:
        row = self._connection.execute(select(schema.endpoints).where(schema.endpoints.c.arn == arn)).first()
        return _endpoint(row) if row else None

    def endpoints(self, account: str, region: str) -> tuple[Endpoint, ...]:
        """Without inference components."""
        return self._endpoints(account, region, schema.endpoints.c.host.is_(None))

    def components(self, account: str, region: str) -> tuple[Endpoint, ...]:
        """The inference components of all endpoints."""
        return self._endpoints(account, region, schema.endpoints.c.host.is_not(None))

    def components_of(self, endpoint: Endpoint) -> tuple[Endpoint, ...]:
        found = self.components(endpoint.account, endpoint.region)
        return tuple(one for one in found if one.host and one.host.endpoint_id == endpoint.id)

    def _endpoints(self, account: str, region: str, kind: ColumnElement[bool]) -> tuple[Endpoint, ...]:
        table = schema.endpoints
        here = (table.c.account == account) & (table.c.region == region) & kind
        return tuple(_endpoint(row) for row in self._connection.execute(select(table).where(here)))

    def write_endpoint(self, endpoint: Endpoint) -> Endpoint:
        """Write `endpoint`, which was read at its `revision`; returns it at the next one. Raises Changed."""
        table, after = schema.endpoints, replace(endpoint, revision=endpoint.revision + 1)
        here = (table.c.id == endpoint.id) & (table.c.revision == endpoint.revision)
        if self._connection.execute(update(table).where(here).values(**_endpoint_columns(after))).rowcount == 0:
            raise Changed(endpoint.arn)
        return after

    def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Also its replicas and tags. Raises Changed."""
        table = schema.endpoints
        here = (table.c.id == endpoint.id) & (table.c.revision == endpoint.revision)
        if self._connection.execute(delete(table).where(here)).rowcount == 0:
            raise Changed(endpoint.arn)
        self.clear_tags(endpoint.arn)

    def add_replica(self, replica: Replica) -> None:
        columns = _fields(replica) | {"generation": replica.slot.generation, "variant": replica.slot.variant}
        self._insert(
            schema.replicas, **columns | {"slot": replica.slot.index, "container": replica.slot.container or None}
        )

    def remove_replica(self, replica_id: str) -> None:
        self._connection.execute(delete(schema.replicas).where(schema.replicas.c.id == replica_id))

    def world(self) -> World:
        rows = self._connection.execute(select(schema.endpoints).order_by(schema.endpoints.c.arn))
        endpoints = tuple(_endpoint(row) for row in rows)
        ours = schema.tags.c.arn.in_(select(schema.endpoints.c.arn))
        tags: dict[str, dict[str, str]] = {}
        for row in self._connection.execute(select(schema.tags).where(ours).order_by(schema.tags.c.position)):
            tags.setdefault(row.arn, {})[row.key] = row.value
        rows = self._connection.execute(select(schema.replicas).order_by(schema.replicas.c.epoch))
        plans = self._connection.execute(select(schema.fault_plans)).all()
        by_arn = {row.arn: StoredPlan(row.plan, row.set_at) for row in plans}
        return World(endpoints, tuple(_replica(row) for row in rows), tags, by_arn)

    # -- Fault plans ----------------------------------------------------------------------------------------------

    def fault_plan(self, arn: str) -> StoredPlan | None:
        row = self._connection.execute(select(schema.fault_plans).where(schema.fault_plans.c.arn == arn)).first()
        return StoredPlan(row.plan, row.set_at) if row else None

    def write_fault_plan(self, arn: str, plan: StoredPlan | None) -> None:
        """`plan` becomes the plan of the endpoint, which must exist; None takes it away."""
        self._connection.execute(delete(schema.fault_plans).where(schema.fault_plans.c.arn == arn))
        if plan is not None:
            self._insert(schema.fault_plans, arn=arn, plan=plan.text, set_at=plan.set_at)

    # -- Tags -----------------------------------------------------------------------------------------------------

    def tags(self, arn: str) -> dict[str, str]:
        """In the order in which the keys were first given."""
        table = schema.tags
        rows = self._connection.execute(select(table).where(table.c.arn == arn).order_by(table.c.position))
        return {row.key: row.value for row in rows}

    def write_tags(self, arn: str, tags: Mapping[str, str]) -> None:
        """`tags` become the tags of `arn`, instead of what it had."""
        self.clear_tags(arn)
        for position, (key, value) in enumerate(tags.items()):
            self._insert(schema.tags, arn=arn, key=key, value=value, position=position)

    def clear_tags(self, arn: str) -> None:
        self._connection.execute(delete(schema.tags).where(schema.tags.c.arn == arn))

    def _insert(self, table: Table, **columns: Any) -> None:
        try:
            self._connection.execute(insert(table).values({c.name: columns[c.name] for c in table.columns}))
        except IntegrityError as error:
            raise AlreadyExists(columns.get("arn", table.name)) from error


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _fields(value: object) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}  # type: ignore[attr-defined]


def _resource(row: Row[Any]) -> Resource:
    return Resource(row.arn, row.account, row.region, row.name, row.created_at, msgspec.json.decode(row.request))


def _endpoint_columns(endpoint: Endpoint) -> dict[str, Any]:
    target = _json(endpoint.target) if endpoint.target else None
    host = _json(endpoint.host) if endpoint.host else None
    columns = {"status": endpoint.status.value, "fleet": _json(endpoint.fleet), "target": target, "host": host}
    return _fields(endpoint) | columns


def _endpoint(row: Row[Any]) -> Endpoint:
    columns = dict(row._mapping)
    columns["status"] = Status(row.status)
    columns["fleet"] = msgspec.json.decode(row.fleet, type=Fleet)
    columns["host"] = msgspec.json.decode(row.host, type=Host) if row.host else None
    columns["target"] = msgspec.json.decode(row.target, type=Fleet) if row.target else None
    return Endpoint(**columns)


def _replica(row: Row[Any]) -> Replica:
    slot = Slot(row.generation, row.variant, row.slot, row.container or "")
    return Replica(row.id, row.endpoint_id, slot, row.epoch, row.instance_id, row.boot)
