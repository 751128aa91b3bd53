"""One suite over every database that the state may live in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from penstock.control import migrate, schema
from penstock.control.fleet import Container, Fleet, ProductionVariant, Replica, Slot
from penstock.control.lifecycle import Status
from penstock.control.store import AlreadyExists, Changed, Resource, Store, StoreUnavailable, Transaction, open_store
from penstock.placement.base import ModelData
from penstock.routes import MultiModel
from tests.unit.control.worlds import ACCOUNT, REGION, component, endpoint, fleet, hosting

MODEL = Resource(
    arn=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/m",
    account=ACCOUNT,
    region=REGION,
    name="M",
    created_at=1700000000.123,
    request={"ModelName": "M", "PrimaryContainer": {"Image": "i", "Environment": {"Ä": "\u0001'\"; --"}}},
)


async def test_a_resource_comes_back_as_it_was_written(store: Store) -> None:
    await store.run(lambda t: t.add(schema.models, MODEL))
    assert await store.run(lambda t: t.get(schema.models, MODEL.arn)) == MODEL
    assert await store.run(lambda t: t.all(schema.models, ACCOUNT, REGION)) == (MODEL,)
    assert await store.run(lambda t: t.all(schema.models, ACCOUNT, "eu-west-1")) == ()
    assert await store.run(lambda t: t.all(schema.models, "000000000000", REGION)) == ()
    assert await store.run(lambda t: t.get(schema.endpoint_configs, MODEL.arn)) is None


async def test_of_many_that_create_at_once_one_wins(store: Store) -> None:
    async def create() -> bool:
        try:
            await store.run(lambda t: t.add(schema.models, MODEL))
        except AlreadyExists:
            return False
        return True

    assert sorted(await asyncio.gather(*(create() for _ in range(8)))) == [False] * 7 + [True]


async def test_removing_takes_the_tags_along_and_says_whether_there_was_one(store: Store) -> None:
    def write(t: Transaction) -> None:
        t.add(schema.models, MODEL)
        t.write_tags(MODEL.arn, {"b": "1", "a": "2"})

    await store.run(write)
    assert list((await store.run(lambda t: t.tags(MODEL.arn))).items()) == [("b", "1"), ("a", "2")]
    assert await store.run(lambda t: t.remove(schema.models, MODEL.arn)) is True
    assert await store.run(lambda t: t.remove(schema.models, MODEL.arn)) is False
    assert await store.run(lambda t: t.tags(MODEL.arn)) == {}


async def test_an_endpoint_comes_back_as_it_was_written(store: Store) -> None:
    data = ModelData("s3://b/k.tar.gz", "tar.gz")
    variant = ProductionVariant("v", "i", 2, 0.5, {"A": "ü"}, data, "c", "LEAST_OUTSTANDING_REQUESTS", 4, 60.0, 61.0)
    made = replace(endpoint(), fleet=replace(fleet(), variants=(variant,)), target=fleet(2), failure_reason="why\n☂")
    await store.run(lambda t: t.add_endpoint(made))
    assert await store.run(lambda t: t.endpoint(made.arn)) == made
    assert await store.run(lambda t: t.endpoints(ACCOUNT, REGION)) == (made,)
    assert (await store.run(lambda t: t.world())).endpoints == (made,)


async def test_components_are_kept_apart_from_endpoints_and_have_replicas_like_them(store: Store) -> None:
    host, other = hosting(), hosting("other")
    made = replace(component(host, "E"), target=component(host).fleet)
    elsewhere = component(other, "x")
    replica = Replica("r" * 32, made.id, Slot(1, "main", 0), 7, "i-00000000000000001", "boot")

    def write(t: Transaction) -> None:
        for one in (host, other, made, elsewhere):
            t.add_endpoint(one)
        t.add_replica(replica)

    await store.run(write)
    assert await store.run(lambda t: t.endpoint(made.arn)) == made
    endpoints = await store.run(lambda t: t.endpoints(ACCOUNT, REGION))
    components = await store.run(lambda t: t.components(ACCOUNT, REGION))
    assert {one.id for one in endpoints} == {host.id, other.id}
    assert {one.id for one in components} == {made.id, elsewhere.id}
    assert await store.run(lambda t: t.components(ACCOUNT, "eu-west-1")) == ()
    assert await store.run(lambda t: t.components_of(host)) == (made,)
    world = await store.run(lambda t: t.world())
    assert (len(world.endpoints), world.replicas) == (4, (replica,))
    after = await store.run(lambda t: t.write_endpoint(replace(made, status=Status.DELETING)))
    await store.run(lambda t: t.remove_endpoint(after))
    assert (await store.run(lambda t: t.world())).replicas == ()


async def test_who_writes_on_an_old_revision_is_told(store: Store) -> None:
    made = endpoint()
    await store.run(lambda t: t.add_endpoint(made))
    after = await store.run(lambda t: t.write_endpoint(replace(made, status=Status.DELETING)))
    assert after.revision == made.revision + 1
    with pytest.raises(Changed):
        await store.run(lambda t: t.write_endpoint(replace(made, status=Status.IN_SERVICE)))
    with pytest.raises(Changed):
        await store.run(lambda t: t.remove_endpoint(made))
    assert await store.run(lambda t: t.endpoint(made.arn)) == after
    await store.run(lambda t: t.remove_endpoint(after))
    assert await store.run(lambda t: t.endpoint(made.arn)) is None


async def test_replicas_go_with_their_endpoint(store: Store) -> None:
    made = endpoint()
    replica = Replica("r" * 32, made.id, Slot(1, "main", 0), 7, "i-00000000000000001", "boot")

    def write(t: Transaction) -> None:
        t.add_endpoint(made)
        t.add_replica(replica)
        t.add_replica(replace(replica, id="s" * 32, epoch=3))
        t.write_tags(made.arn, {"k": "v"})

    await store.run(write)
    world = await store.run(lambda t: t.world())
    assert world.replicas == (replace(replica, id="s" * 32, epoch=3), replica)
    assert world.tags == {made.arn: {"k": "v"}}
    await store.run(lambda t: t.remove_replica("s" * 32))
    assert (await store.run(lambda t: t.world())).replicas == (replica,)
    await store.run(lambda t: t.remove_endpoint(made))
    world = await store.run(lambda t: t.world())
    assert (world.endpoints, world.replicas, world.tags) == ((), (), {})


async def test_a_failing_transaction_leaves_nothing_behind(store: Store) -> None:
    def write(t: Transaction) -> None:
        t.add(schema.models, MODEL)
        t.write_tags(MODEL.arn, {"k": "v"})
        raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError, match="changed my mind"):
        await store.run(write)
    assert await store.run(lambda t: (t.get(schema.models, MODEL.arn), t.tags(MODEL.arn))) == (None, {})


async def test_a_database_that_does_not_answer_is_said_to_be_unavailable(store: Store) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await store.run(lambda t: __import__("time").sleep(0.3), deadline_s=0.02)
    assert (caught.value.status, caught.value.code) == (503, "ServiceUnavailable")


async def test_opened_again_all_is_there(store: Store, database_url: str, tmp_path: Path) -> None:
    await store.run(lambda t: t.add(schema.models, MODEL))
    again = open_store(tmp_path / "unused.db", database_url)
    try:
        assert await again.run(lambda t: t.get(schema.models, MODEL.arn)) == MODEL
    finally:
        again.close()


def test_the_migrations_lead_to_the_tables(database_url: str) -> None:
    engine = create_engine(database_url)
    try:
        with engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(migrate.HERE))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, schema.metadata) == []
            assert migrate.current(connection) == migrate.revisions()[-1]
    finally:
        engine.dispose()


def test_our_revisions_are_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.HERE))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrate.revisions()[-1]]
    assert sorted(s.revision for s in script.walk_revisions()) == list(migrate.revisions())


def test_a_database_behind_is_migrated(tmp_path: Path) -> None:
    """What an interrupted first start could leave: the bookkeeping table without a row."""
    path = tmp_path / "penstock.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    engine.dispose()
    open_store(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        assert migrate.current(connection) == migrate.revisions()[-1]
    engine.dispose()


async def test_an_endpoint_of_before_components_is_still_one(database_url: str, tmp_path: Path) -> None:
    """A database that an earlier Penstock wrote, with an endpoint in it."""
    engine, made = create_engine(database_url), endpoint()
    config = Config()
    config.set_main_option("script_location", str(migrate.HERE))
    columns = {"id": made.id, "arn": made.arn, "account": ACCOUNT, "region": REGION, "name": made.name}
    numbers = {"created_at": 100.0, "modified_at": 100.0, "epoch": 0, "revision": 0}
    texts = {
        "status": "InService",
        "failure_reason": "",
        "target": None,
        "fleet": msgspec.json.encode(made.fleet).decode(),
    }
    row = columns | numbers | texts
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        names = ", ".join(row)
        connection.execute(text(f"INSERT INTO endpoints ({names}) VALUES (:{', :'.join(row)})"), row)
    engine.dispose()
    store = open_store(tmp_path / "unused.db", database_url)
    try:
        assert await store.run(lambda t: t.endpoints(ACCOUNT, REGION)) == (replace(made, status=Status.IN_SERVICE),)
    finally:
        store.close()


def test_a_newer_database_is_refused_in_one_line(database_url: str, tmp_path: Path) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('9999')"))
    engine.dispose()
    with pytest.raises(
        migrate.WrongDatabase, match=r"revision 9999, newer than this Penstock \(which knows up to \d{4}\)"
    ):
        open_store(tmp_path / "unused.db", database_url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not one that SQLAlchemy knows"),
        ("oracle9://x/y", "not one that SQLAlchemy knows"),
        ("postgresql://u@127.0.0.1:1/x", "can't be used"),
        ("sqlite:////nowhere/at/all/x.db", "No such file or directory"),
    ],
)
def test_a_database_that_can_not_be_had_is_refused_in_one_line(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(migrate.WrongDatabase, match=words) as caught:
        open_store(tmp_path / "unused.db", url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "penstock.db").write_bytes(b"this is not a database, whatever it is" * 40)
    with pytest.raises(migrate.WrongDatabase, match="file is not a database"):
        open_store(tmp_path / "penstock.db")


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_store(tmp_path / "penstock.db").close()
    assert (tmp_path / "penstock.db").stat().st_mode & 0o777 == 0o600


def test_alembic_is_not_imported_for_a_database_of_today(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from penstock.control.store import open_store\n"
        "for _ in range(2): open_store(pathlib.Path(sys.argv[1])).close()\n"
        "print('alembic' in sys.modules)"
    )
    command_line = [sys.executable, "-c", program, str(tmp_path / "penstock.db")]
    assert subprocess.run(command_line, check=True, capture_output=True, text=True).stdout == "False\n"


async def test_a_replica_is_one_of_several_containers(store: Store) -> None:
    several = (Container("one", "penstock/scripted"), Container("two", "penstock/tgi", {"K": "V"}))
    variant = ProductionVariant(
        "main", "i", containers=several, serial=True, multi_model=MultiModel("s3://b/p/", False)
    )
    made = replace(endpoint(), fleet=Fleet(1, "c", (variant,)))
    replicas = [Replica(f"{n:032x}", made.id, slot, n, "i-0", "boot") for n, slot in enumerate(made.fleet.slots(), 1)]

    def write(t: Transaction) -> None:
        t.add_endpoint(made)
        for replica in replicas:
            t.add_replica(replica)

    await store.run(write)
    world = await store.run(lambda t: t.world())
    assert world.endpoints[0].fleet == made.fleet
    assert world.replicas == tuple(replicas)
    assert [replica.slot.container for replica in world.replicas] == ["one", "two"]
