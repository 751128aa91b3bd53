"""What every placement promises, over all of them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.config import Paths
from penstock.placement.base import Placement, ReplicaSpec
from penstock.placement.null import NullPlacement, Plan
from penstock.placement.process import ProcessPlacement
from tests.replicas import QUICK, Objects, archive, model_data, spec, until_state


class Stand(ABC):
    """A placement, and how to make its replicas do things."""

    placement: Placement

    @abstractmethod
    def healthy(self) -> ReplicaSpec: ...

    @abstractmethod
    def failing(self) -> ReplicaSpec:
        """Never comes up: its own reason is "no such model"."""

    @abstractmethod
    def never(self) -> ReplicaSpec:
        """Starts, and never gets healthy by itself."""

    @abstractmethod
    def flapping(self) -> ReplicaSpec:
        """Healthy, then unhealthy and healthy again, with `flap` or by itself."""

    @abstractmethod
    def mortal(self) -> ReplicaSpec:
        """Healthy, then dies with status 3, with `die` or by itself."""

    def die(self, replica_id: str) -> None: ...  # noqa: B027 (most do it by themselves)

    def flap(self, replica_id: str, well: bool) -> None: ...  # noqa: B027


class ProcessStand(Stand):
    def __init__(self, home: Path) -> None:
        self.placement = ProcessPlacement(Paths(home), Objects({"b/m.tar.gz": archive(("f", b"x"))}), probing=QUICK)

    def healthy(self) -> ReplicaSpec:
        return spec()

    def failing(self) -> ReplicaSpec:
        return spec({"start": {"fail": "no such model"}})

    def never(self) -> ReplicaSpec:
        return spec({"ping": {"status": 500}})

    def flapping(self) -> ReplicaSpec:
        return spec({"ping": {"fail_after": 2, "recover_after": 8}})

    def mortal(self) -> ReplicaSpec:
        return spec({"die": {"after_pings": 3, "code": 3}})


class NullStand(Stand):
    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        self.null = NullPlacement(lambda s: self._plans.get(s.id, Plan()))
        self.placement = self.null

    def _planned(self, plan: Plan) -> ReplicaSpec:
        new = spec()
        self._plans[new.id] = plan
        return new

    def healthy(self) -> ReplicaSpec:
        return spec()

    def failing(self) -> ReplicaSpec:
        return self._planned(Plan("failed", "no such model"))

    def never(self) -> ReplicaSpec:
        return self._planned(Plan("starting"))

    def flapping(self) -> ReplicaSpec:
        return spec()

    def mortal(self) -> ReplicaSpec:
        return spec()

    def die(self, replica_id: str) -> None:
        self.null.exit(replica_id, "The container exited with status 3.")

    def flap(self, replica_id: str, well: bool) -> None:
        (self.null.healthy if well else self.null.unhealthy)(replica_id)


@pytest.fixture(params=["process", "null"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    made: Stand = ProcessStand(tmp_path) if request.param == "process" else NullStand()
    yield made
    await made.placement.close(grace_s=5)


async def test_a_replica_becomes_healthy_and_goes(stand: Stand) -> None:
    s = stand.healthy()
    await stand.placement.start(s)
    status = await until_state(stand.placement, s.id, "healthy")
    assert (status.epoch, status.host, status.reason) == (s.epoch, "127.0.0.1", "")
    assert status.port > 0
    assert status.pid > 0
    await stand.placement.stop(s.id)
    assert stand.placement.observe() == ()
    await asyncio.wait_for(stand.placement.changed(), 1)


async def test_start_and_stop_are_idempotent(stand: Stand) -> None:
    s = stand.healthy()
    await stand.placement.start(s)
    first = await until_state(stand.placement, s.id, "healthy")
    await stand.placement.start(s)
    assert stand.placement.observe() == (first,)
    await asyncio.gather(stand.placement.stop(s.id), stand.placement.stop(s.id))
    await stand.placement.stop(s.id)
    await stand.placement.stop("never-heard-of")
    assert stand.placement.observe() == ()


async def test_replicas_have_ports_of_their_own(stand: Stand) -> None:
    specs = [stand.healthy() for _ in range(4)]
    for s in specs:
        await stand.placement.start(s)
    statuses = [await until_state(stand.placement, s.id, "healthy") for s in specs]
    assert len({s.port for s in statuses}) == 4
    await stand.placement.stop(specs[1].id)
    assert [s.id for s in stand.placement.observe()] == [specs[0].id, specs[2].id, specs[3].id]


async def test_a_replica_that_gives_up_says_why(stand: Stand) -> None:
    s = stand.failing()
    await stand.placement.start(s)
    status = await until_state(stand.placement, s.id, "failed")
    assert "no such model" in status.reason
    await stand.placement.stop(s.id)
    assert stand.placement.observe() == ()


async def test_a_replica_that_dies_is_shown_until_it_is_stopped(stand: Stand) -> None:
    s = stand.mortal()
    await stand.placement.start(s)
    await until_state(stand.placement, s.id, "healthy")
    stand.die(s.id)
    status = await until_state(stand.placement, s.id, "exited")
    assert "exited with status 3." in status.reason
    await stand.placement.start(s)
    assert stand.placement.observe() == (status,)
    await stand.placement.stop(s.id)
    assert stand.placement.observe() == ()


async def test_health_comes_and_goes(stand: Stand) -> None:
    s = stand.flapping()
    await stand.placement.start(s)
    await until_state(stand.placement, s.id, "healthy")
    stand.flap(s.id, False)
    await until_state(stand.placement, s.id, "unhealthy")
    stand.flap(s.id, True)
    await until_state(stand.placement, s.id, "healthy")


async def test_a_replica_that_never_comes_up_can_be_stopped(stand: Stand) -> None:
    s = stand.never()
    await stand.placement.start(s)
    await until_state(stand.placement, s.id, "starting")
    await stand.placement.stop(s.id, grace_s=5)
    assert stand.placement.observe() == ()


async def test_changed_waits_for_news_and_never_loses_it(stand: Stand) -> None:
    s = stand.healthy()
    await stand.placement.start(s)
    await until_state(stand.placement, s.id, "healthy")
    told = asyncio.create_task(stand.placement.changed())
    await asyncio.wait({told}, timeout=0.1)  # what came before may still be told
    quiet = asyncio.create_task(stand.placement.changed()) if told.done() else told
    await asyncio.wait({quiet}, timeout=0.3)
    assert not quiet.done()
    quiet.cancel()
    await stand.placement.stop(s.id)
    await asyncio.wait_for(stand.placement.changed(), 1)


async def test_close_stops_everything(stand: Stand) -> None:
    for s in (stand.healthy(), stand.never(), stand.failing()):
        await stand.placement.start(s)
    await stand.placement.close(grace_s=5)
    assert stand.placement.observe() == ()
    with pytest.raises(RuntimeError, match="closed"):
        await stand.placement.start(stand.healthy())
    await stand.placement.close()


async def test_models_are_added_to_a_replica_that_runs(stand: Stand) -> None:
    s = stand.healthy()
    await stand.placement.start(s)
    await until_state(stand.placement, s.id, "healthy")
    data = model_data("s3://b/m.tar.gz")
    url = await stand.placement.add_model(s.id, "m1", data)
    assert url.endswith("/models/m1/model")
    assert await stand.placement.add_model(s.id, "m1", data) == url
    await stand.placement.remove_model(s.id, "m1")
    await stand.placement.remove_model(s.id, "m1")
    await stand.placement.remove_model("never-heard-of", "m1")
    await stand.placement.stop(s.id)
    with pytest.raises(KeyError):
        await stand.placement.add_model(s.id, "m1", data)
