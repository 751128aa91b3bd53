"""Loading and unloading against a container that does what the test says; the placement is in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from penstock.control.multimodel.models import Models
from penstock.modelcalls import ModelAnswer, ModelWanted, model_name
from penstock.placement.artifacts import ArtifactError, NotStored, NotThere
from penstock.placement.base import ModelData
from penstock.placement.null import NullPlacement
from penstock.routes import Endpoint, ModelUse, MultiModel, Replica, RoutingTable, Variant
from tests.replicas import spec
from tests.waiting import until_async

Load = Callable[["Container", str], Awaitable[int]]


async def room(container: Container, name: str) -> int:
    """Loads while there is room."""
    if name in container.loaded:
        return 409
    if len(container.loaded) >= container.capacity:
        return 507
    container.loaded.append(name)
    return 200


@dataclass
class Container:
    """A multi-model container. `asked` is every request's method and model."""

    capacity: int = 2
    load: Load = room
    loaded: list[str] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    unload: Callable[[], Awaitable[None]] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.splitlines()[0].split(" ")
            length = next(
                (int(li.split(":")[1]) for li in head.splitlines() if li.lower().startswith("content-length")), 0
            )
            body = await reader.readexactly(length)
            name = json.loads(body)["model_name"] if body else path.removeprefix("/models").removeprefix("/")
            self.asked.append((method, name))
            status, said = await self._answer(method, name)
            text = said.encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, name: str) -> tuple[int, str]:
        if method == "POST":
            return await self.load(self, name), "said"
        if method == "GET" and not name:
            return 200, json.dumps({"models": [{"modelName": one} for one in self.loaded]})
        if method == "DELETE" and self.unload is not None:
            await self.unload()
        if name not in self.loaded:
            return 404, ""
        if method == "DELETE":
            self.loaded.remove(name)
        return 200, ""


@dataclass
class Stage:
    models: Models
    placement: NullPlacement
    containers: list[Container]
    replicas: list[Replica]
    now: list[float]
    table: list[RoutingTable]

    async def want(self, model: str, **given: object) -> ModelAnswer:
        self.now[0] += 1
        wanted = ModelWanted("1", "r", "e", "v", model)
        return await asyncio.wait_for(self.models.want(replace(wanted, **given)), 10)  # type: ignore[arg-type]


@asynccontextmanager
async def stage(*containers: Container, cached: bool = True, load_s: float = 10.0) -> AsyncIterator[Stage]:
    placement = NullPlacement()
    servers, replicas, tasks = [], [], set[asyncio.Task[None]]()
    for container in containers:

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, container: Container = container
        ) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            await container.serve(reader, writer)
            tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        servers.append(server)
        s = spec()
        await placement.start(s)
        replicas.append(Replica(s.id, s.epoch, "127.0.0.1", server.sockets[0].getsockname()[1]))
    variant = Variant("v", 1.0, tuple(replicas), multi_model=MultiModel("s3://b/p/", cached))
    table = [RoutingTable(1, (Endpoint("e", "arn", "r", "1", (variant,)),))]
    now = [0.0]
    models = Models(placement, lambda: table[0], clock=lambda: now[0], load_s=load_s)
    try:
        yield Stage(models, placement, list(containers), replicas, now, table)
    finally:
        await models.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            server.close()


async def test_one_load_however_many_ask() -> None:
    gate = asyncio.Event()

    async def slow(container: Container, name: str) -> int:
        await gate.wait()
        return await room(container, name)

    async with stage(Container(load=slow), Container(load=slow)) as s:
        asking = [asyncio.create_task(s.want("m")) for _ in range(20)]
        await until_async(lambda: any(c.asked for c in s.containers))
        gate.set()
        answers = await asyncio.gather(*asking)
        assert len(set(answers)) == 1
        assert answers[0].outcome == "loaded"
        assert sum(len(c.asked) for c in s.containers) == 1
        assert s.placement.models == {(answers[0].replica, model_name("m"))}


async def test_the_longest_unused_makes_room_and_uses_count() -> None:
    container = Container(capacity=2)
    async with stage(container) as s:
        await s.want("a")
        await s.want("b")
        s.now[0] += 5
        s.models.used([ModelUse(s.replicas[0].id, model_name("a"), ago_s=1)])
        assert (await s.want("c")).outcome == "loaded"
        assert container.loaded == [model_name("a"), model_name("c")]
        assert {name for _, name in s.placement.models} == {model_name("a"), model_name("c")}


async def test_models_that_nobody_told_us_of_make_room_too() -> None:
    container = Container(capacity=1, loaded=["theirs"])
    async with stage(container) as s:
        assert (await s.want("a")).outcome == "loaded"
        assert container.loaded == [model_name("a")]


async def test_a_container_without_any_room_says_so() -> None:
    async with stage(Container(capacity=0)) as s:
        both = await asyncio.gather(s.want("a"), s.want("b"))
        assert [(one.outcome, one.status, one.text) for one in both] == [("container", 507, "said")] * 2
        assert s.placement.models == set(), "nobody waits for the other for ever, and nothing is left"


async def test_loaded_already_is_as_good() -> None:
    container = Container(loaded=[model_name("a")])
    async with stage(container) as s:
        assert (await s.want("a")).outcome == "loaded"


async def test_a_load_that_fails_is_tried_anew_by_the_next() -> None:
    async def refuse(container: Container, name: str) -> int:
        return 500 if len(container.asked) < 2 else await room(container, name)

    async with stage(Container(load=refuse)) as s:
        first = await s.want("a")
        assert (first.outcome, first.status, first.text) == ("container", 500, "said")
        assert s.placement.models == set()
        assert (await s.want("a")).outcome == "loaded"


async def test_a_container_that_breaks_off_is_passed_over() -> None:
    async def die(container: Container, name: str) -> int:
        raise ConnectionError

    async with stage(Container(load=die), Container(load=die)) as s:
        assert (await s.want("a")).outcome == "unreachable"
        assert {method for c in s.containers for method, _ in c.asked} >= {"POST"}
        assert all(("POST", model_name("a")) in c.asked for c in s.containers), "both were tried"
        s.containers[1].load = room
        assert (await s.want("a")).replica == s.replicas[1].id


async def test_only_and_tried_bound_the_choice() -> None:
    async with stage(Container(), Container()) as s:
        first, second = (replica.id for replica in s.replicas)
        assert (await s.want("a", only=second)).replica == second
        assert (await s.want("a", tried=(second,))).replica == first
        assert (await s.want("a", only=first, tried=(first,))).outcome == "unreachable"
        assert (await s.want("a", endpoint="none")).outcome == "unreachable"


async def test_a_doubt_is_looked_into() -> None:
    container = Container()
    async with stage(container) as s:
        replica = (await s.want("a")).replica
        assert (await s.want("a", doubted=replica)).outcome == "there"
        container.loaded.clear()
        assert (await s.want("a", doubted=replica)).outcome == "loaded"
        assert container.loaded == [model_name("a")]


async def test_a_load_that_takes_too_long_is_cleared_away() -> None:
    async def never(container: Container, name: str) -> int:
        await asyncio.Event().wait()
        return 200

    container = Container(load=never)
    async with stage(container, load_s=0.2) as s:
        assert (await s.want("a")).outcome == "late"
        assert ("DELETE", model_name("a")) in container.asked
        assert s.placement.models == set()


async def test_uncached_a_model_stays_while_anybody_uses_it() -> None:
    container = Container()
    async with stage(container, cached=False) as s:
        answers = [await s.want("a") for _ in range(3)]
        assert [answer.cached for answer in answers] == [False] * 3
        replica, name = answers[0].replica, model_name("a")
        s.models.used([ModelUse(replica, name, ended=2)])
        assert container.loaded == [name]
        s.models.used([ModelUse(replica, name, ended=1)])
        await until_async(lambda: container.loaded == [])
        await until_async(lambda: s.placement.models == set())
        assert (await s.want("a")).outcome == "loaded"


async def test_who_asks_while_a_model_goes_gets_it_back() -> None:
    gate = asyncio.Event()
    container = Container(unload=gate.wait)  # type: ignore[arg-type]
    async with stage(container, cached=False) as s:
        answer = await s.want("a")
        s.models.used([ModelUse(answer.replica, model_name("a"), ended=1)])
        asking = asyncio.create_task(s.want("a"))
        await until_async(lambda: ("DELETE", model_name("a")) in container.asked)
        assert not asking.done()
        gate.set()
        assert (await asking).outcome == "loaded"
        assert container.loaded == [model_name("a")]
        assert s.placement.models == {(answer.replica, model_name("a"))}


async def test_a_replica_that_is_gone_is_forgotten() -> None:
    async with stage(Container()) as s:
        await s.want("a")
        ((_, _, count),) = s.models.loaded()
        assert count == 1
        await s.placement.stop(s.replicas[0].id)
        (endpoint,) = s.table[0].endpoints
        s.table[0] = RoutingTable(2, (replace(endpoint, variants=(replace(endpoint.variants[0], replicas=()),)),))
        assert (await s.want("a")).outcome == "unreachable"
        ((_, _, count),) = s.models.loaded()
        assert count == 0


@pytest.mark.parametrize("answer", [b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_an_answer_that_is_none(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with stage(Container()) as s, await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        (endpoint,) = s.table[0].endpoints
        broken = replace(s.replicas[0], port=server.sockets[0].getsockname()[1])
        s.table[0] = RoutingTable(
            2, (replace(endpoint, variants=(replace(endpoint.variants[0], replicas=(broken,)),)),)
        )
        assert (await s.want("a")).outcome == "unreachable"


@pytest.mark.parametrize(
    ("error", "outcome", "words"),
    [
        (NotStored("No space left on device."), "dependency", "No space left"),
        (NotThere("gone"), "refused", "(bucket: b, key: p/a)"),
        (ArtifactError("no archive"), "refused", "no archive"),
        (RuntimeError("a surprise"), "dependency", "unknown error"),
        (KeyError("r"), "unreachable", ""),
    ],
)
async def test_an_artifact_that_can_not_be_had(error: Exception, outcome: str, words: str) -> None:
    container = Container()
    async with stage(container) as s:

        async def fail(replica_id: str, name: str, data: ModelData) -> str:
            raise error

        s.placement.add_model = fail  # type: ignore[method-assign]
        answer = await s.want("a")
        assert answer.outcome == outcome
        assert words in answer.text
        assert [method for method, _ in container.asked] == ["DELETE"], "the container was asked to load nothing"
        del s.placement.add_model
        assert (await s.want("a")).outcome == "loaded"
