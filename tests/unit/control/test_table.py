"""What gateways are told, and how it reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from penstock.config import socket_address
from penstock.control import sockets, table
from penstock.control.fleet import Container, Fleet, ProductionVariant, Replica, Slot
from penstock.control.lifecycle import Status
from penstock.control.reconcile import Serving
from penstock.control.store import StoredPlan
from penstock.control.table import TableServer
from penstock.placement.base import ReplicaStatus
from penstock.routes import AccessKey, GatewayEvent, MultiModel, RoutingTable, decode_table, encode_line
from tests.unit.control.worlds import ACCOUNT, REGION, component, endpoint, hosting
from tests.waiting import until_async

KEY = AccessKey("id", "secret", ACCOUNT, "arn")


def serving(name: str = "e", port: int = 8080) -> Serving:
    made = endpoint(name, Status.IN_SERVICE, a=2, b=1)
    replica = Replica("r1", made.id, Slot(1, "a", 1), 5, "i-0", "boot")
    return Serving(made, ((replica, ReplicaStatus("r1", 5, "healthy", "127.0.0.9", port)),))


@asynccontextmanager
async def server(path: Path, heard: list[GatewayEvent]) -> AsyncIterator[TableServer]:
    made = TableServer((KEY,), heard.append)
    await made.start(sockets.listen(path))
    try:
        yield made
    finally:
        await made.close()


async def read(reader: asyncio.StreamReader) -> RoutingTable:
    async with asyncio.timeout(5):
        return decode_table(await reader.readline())


def test_an_endpoint_shows_every_variant_and_the_replicas_that_answer() -> None:
    (shown,) = table.endpoints((serving("E"),), {f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/e": {"k": "v"}}, {})
    assert (shown.name, shown.region, shown.account, shown.tags) == ("E", REGION, ACCOUNT, {"k": "v"})
    assert [(v.name, [(r.id, r.epoch, r.host, r.port) for r in v.replicas]) for v in shown.variants] == [
        ("a", [("r1", 5, "127.0.0.9", 8080)]),
        ("b", []),
    ]


def test_an_endpoint_shows_its_components_and_their_copies_and_no_others() -> None:
    host, other = hosting(), hosting("other")
    routed = ProductionVariant("main", "", 3, routing="LEAST_OUTSTANDING_REQUESTS", max_concurrency=4)
    host = replace(host, fleet=replace(host.fleet, variants=(routed,)))
    a, b, c = component(host, "A"), component(host, "b", Status.CREATING), component(other, "c")
    a = replace(a, fleet=replace(a.fleet, variants=(ProductionVariant("main", "i", container="front"),)))
    copy = Replica("r1", a.id, Slot(1, "main", 0), 5, "i-0", "boot")
    told = (
        Serving(host, ()),
        Serving(other, ()),
        Serving(a, ((copy, ReplicaStatus("r1", 5, "healthy", "127.0.0.9", 8080)),)),
        Serving(b, ()),
        Serving(c, ()),
        serving("models"),
    )
    shown, another, models = table.endpoints(told, {}, {})
    assert [one.name for one in (shown, another, models)] == ["e", "other", "models"]
    assert [(v.name, v.replicas) for v in shown.variants] == [("main", ())]
    assert [one.name for one in shown.components or ()] == ["A", "b"]
    assert [one.name for one in another.components or ()] == ["c"]
    assert models.components is None
    (first, second) = shown.components or ()
    assert [(r.id, r.epoch, r.host, r.port) for r in first.variant.replicas] == [("r1", 5, "127.0.0.9", 8080)]
    assert (first.variant.container, first.variant.routing, first.variant.max_concurrency) == (
        "front",
        "LEAST_OUTSTANDING_REQUESTS",
        4,
    )
    assert second.variant.replicas == ()


def test_a_component_whose_endpoint_is_not_told_of_is_nowhere() -> None:
    assert table.endpoints((Serving(component(hosting()), ()),), {}, {}) == ()


def test_a_plan_that_was_set_goes_before_one_in_a_tag() -> None:
    arn = serving().endpoint.arn
    tags = {arn: {"penstock:faults": "mode=utf8"}}
    (tagged,) = table.endpoints((serving(),), tags, {})
    (both,) = table.endpoints((serving(),), tags, {arn: StoredPlan("{}", 7.0)})
    assert [(e.faults, e.faults_set) for e in (tagged, both)] == [("mode=utf8", 0.0), ("{}", 7.0)]


async def test_a_gateway_gets_the_table_on_connecting_and_after_each_change(tmp_path: Path) -> None:
    async with server(tmp_path / "t", []) as made:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "t")
        first = await read(reader)
        assert (first.endpoints, first.keys) == ((), (KEY,))
        now = (serving(),)
        made.publish(now, {}, {})
        second = await read(reader)
        assert second.version > first.version
        assert [e.name for e in second.endpoints] == ["e"]
        made.publish(now, {}, {})
        made.publish_keys((KEY, replace(KEY, id="other")))
        third = await read(reader)
        assert third.version == second.version + 1, "what changes nothing is not sent"
        assert [key.id for key in third.keys] == ["id", "other"]
        writer.close()
        await writer.wait_closed()


async def test_versions_rise_across_restarts(tmp_path: Path) -> None:
    async with server(tmp_path / "t", []) as made:
        for port in range(50):
            made.publish((serving(port=port),), {}, {})
        before = made.table.version
    await asyncio.sleep(0.06)  # as many milliseconds as there were changes; no restart is as quick
    async with server(tmp_path / "t", []) as made:
        assert made.table.version > before


async def test_events_are_heard_and_nonsense_ends_only_its_own_connection(tmp_path: Path) -> None:
    heard: list[GatewayEvent] = []
    async with server(tmp_path / "t", heard):
        good = await asyncio.open_unix_connection(tmp_path / "t")
        for nonsense in (b"nonsense\n", b"x" * 100_000 + b"\n", b'{"kind": "odd", "worker": 1}\n'):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "t")
            await read(reader)
            writer.write(nonsense)
            async with asyncio.timeout(5):
                while await reader.read(1000):
                    pass
            writer.close()
        event = GatewayEvent("unreachable", 2, replica="r", epoch=3)
        good[1].write(encode_line(event))
        await until_async(lambda: heard == [event])
        good[1].close()


async def test_a_gateway_that_does_not_read_holds_nobody_up_and_is_cut_off(tmp_path: Path) -> None:
    deadline, table.WRITE_DEADLINE_S = table.WRITE_DEADLINE_S, 0.2
    try:
        async with server(tmp_path / "t", []) as made:
            deaf_reader, deaf = await asyncio.open_unix_connection(tmp_path / "t", limit=1)
            deaf.transport.pause_reading()  # type: ignore[attr-defined]
            reader, writer = await asyncio.open_unix_connection(tmp_path / "t", limit=16 * 1024 * 1024)
            big = {f"k{i}": "v" * 200 for i in range(2000)}
            for port in range(20):
                made.publish((serving(port=port),), {serving().endpoint.arn: big}, {})
                await asyncio.sleep(0)
            while (await read(reader)).version < made.table.version:
                pass
            await until_async(lambda: len(made._connections) == 1, what="the deaf one is cut off")
            assert not deaf_reader.at_eof()
            for each in (writer, deaf):
                each.close()
    finally:
        table.WRITE_DEADLINE_S = deadline


async def test_a_process_that_is_none_of_our_gateways_gets_no_table_and_is_not_heard(tmp_path: Path) -> None:
    asked: list[int] = []
    heard: list[GatewayEvent] = []

    def is_ours(pid: int) -> bool:
        asked.append(pid)
        return False

    made = TableServer((KEY,), heard.append, is_ours)
    await made.start(sockets.listen(tmp_path / "t"))
    try:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "t")
        writer.write(encode_line(GatewayEvent("ready", 0, {"https": 1})))
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert (asked[0], heard) == (os.getpid(), [])
    finally:
        await made.close()


async def test_the_socket_is_for_its_owner_alone_however_long_its_path(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "t"
    path.parent.mkdir()
    async with server(path, []):
        assert path.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(socket_address(path))
        assert (await read(reader)).keys == (KEY,)
        writer.close()
    left = os.umask(0)
    os.umask(left)
    assert left != 0o177


def test_several_containers_have_replicas_of_their_own() -> None:
    several = (Container("one", "i"), Container("two", "i"))
    variant = ProductionVariant("a", "i", containers=several, serial=True)
    made = replace(endpoint("e", Status.IN_SERVICE), fleet=Fleet(1, "c", (variant,)))
    replicas = [
        (Replica(name, made.id, Slot(1, "a", 0, name), 5, "i-0", "boot"), ReplicaStatus(name, 5, "healthy", "h", port))
        for port, name in enumerate(("one", "two"), 1)
    ]
    (shown,) = table.endpoints((Serving(made, tuple(replicas)),), {}, {})
    (found,) = shown.variants
    assert (found.replicas, found.serial, found.multi_model) == ((), True, None)
    assert [(c.name, [(r.id, r.port) for r in c.replicas]) for c in found.containers] == [
        ("one", [("one", 1)]),
        ("two", [("two", 2)]),
    ]


def test_a_multi_model_variant_says_where_its_models_lie() -> None:
    variant = ProductionVariant("a", "i", multi_model=MultiModel("s3://b/p/"))
    made = replace(endpoint("e", Status.IN_SERVICE), fleet=Fleet(1, "c", (variant,)))
    (shown,) = table.endpoints((Serving(made, ()),), {}, {})
    assert shown.variants[0].multi_model == MultiModel("s3://b/p/")
    assert decode_table(encode_line(RoutingTable(1, (shown,)))).endpoints == (shown,)
