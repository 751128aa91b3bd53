from __future__ import annotations

import asyncio
import io
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
import uvloop

from penstock.config import Paths
from penstock.images import resolve
from penstock.placement.base import ModelData, ReplicaSpec
from penstock.placement.logs import filter_events
from penstock.placement.ports import ReservedPort
from penstock.placement.process import STAGING_THREADS, ProcessPlacement
from tests.replicas import QUICK, WHO, Objects, archive, model_data, post, spec, until_state
from tests.waiting import until, until_async

OBJECTS = Objects({"b/model.tar.gz": archive(("nested/script.json", b'{"steps":[{"send":"from the model"}]}'))})
PING = "The primary container for production variant AllTraffic did not pass the ping health check. "
PING += "Please check CloudWatch logs for this endpoint."


@pytest.fixture
async def placement(tmp_path: Path) -> AsyncIterator[ProcessPlacement]:
    made = ProcessPlacement(Paths(tmp_path), OBJECTS, {"AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, probing=QUICK)
    yield made
    await made.close(grace_s=5)
    assert not list((tmp_path / "replicas").glob("*"))


def said(home: Path) -> list[str]:
    return [e.message for e in filter_events(Paths(home).logs, *WHO).events]


async def test_the_model_is_where_the_environment_says(placement: ProcessPlacement, tmp_path: Path) -> None:
    s = spec(model_data=model_data())
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    assert b"from the model" in await post(status, b"")
    model = tmp_path / "replicas" / s.id / "model"
    assert model.stat().st_mode & 0o777 == 0o555
    await placement.stop(s.id)
    assert not model.exists()
    assert f"INFO  scripted listens on port {status.port}" in said(tmp_path)


async def test_the_environment_is_the_containers_and_the_platforms(
    placement: ProcessPlacement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "x")
    monkeypatch.setenv("PENSTOCK_HOME", "/elsewhere")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = {
        "MINE": "1",
        "LANG": "de_DE.UTF-8",
        "SAGEMAKER_BIND_TO_PORT": "1",
        "PENSTOCK_MODEL_DIR": "/",
        "PENSTOCK_BIND_HOST": "0.0.0.0",
    }
    s = spec(environment=given, image=resolve("penstock/scripted:7"))
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    environment = environment_of(status.pid)
    directory = tmp_path / "replicas" / s.id
    environment.pop("PYTHONPATH", "")
    assert environment.pop("PATH") == os.environ["PATH"]
    assert environment == {
        "MINE": "1",
        "LANG": "de_DE.UTF-8",
        "HOME": f"{directory}/home",
        "TMPDIR": f"{directory}/tmp",
        "PYTHONUNBUFFERED": "1",
        "AWS_ENDPOINT_URL": "https://127.0.0.1:1",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SAGEMAKER_BIND_TO_PORT": str(status.port),
        "PENSTOCK_BIND_HOST": "127.0.0.1",
        "PENSTOCK_MODEL_DIR": f"{directory}/model",
        "PENSTOCK_TERMINATION_LOG": f"{directory}/termination-log",
        "PENSTOCK_MODELS": f"{tmp_path}/models",
        "PENSTOCK_SERVER_VERSION": "7",
        "PENSTOCK_IMAGE_URI": "penstock/scripted:7",
    }
    assert os.getsid(status.pid) == os.getpgid(status.pid) == status.pid


async def test_an_exit_before_the_first_200_is_told_with_its_last_words(placement: ProcessPlacement) -> None:
    s = spec({"start": {"fail": "Set HF_MODEL_ID.", "code": 9}})
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason == f"{PING} The container exited with status 9. It said: Set HF_MODEL_ID."


async def test_without_a_termination_log_the_last_line_is_told(tmp_path: Path) -> None:
    def command(s: ReplicaSpec) -> list[str]:
        return ["sh", "-c", "echo starting; echo 'ValueError: bad shape' >&2; echo; kill -SEGV $$"]

    placement = ProcessPlacement(Paths(tmp_path), OBJECTS, probing=QUICK, command=command)
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason == f"{PING} The container was killed by SIGSEGV. It said: ValueError: bad shape"
    await placement.close()


async def test_a_program_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), OBJECTS, probing=QUICK, command=lambda s: ["/nowhere/serve"])
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert "exited with status 127. It said: cannot start /nowhere/serve" in status.reason
    await placement.close()


async def test_a_start_that_takes_too_long_fails(placement: ProcessPlacement) -> None:
    s = spec({"ping": {"status": 503}, "ignore_sigterm": True}, startup_timeout_s=0.5)
    await placement.start(s)
    began = time.monotonic()
    status = await until_state(placement, s.id, "failed")
    assert status.reason == f"{PING} It did not answer /ping with 200 within 0.5 s."
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(status.pid)


async def test_an_image_that_needs_an_engine_fails(placement: ProcessPlacement) -> None:
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    s = spec(image=resolve(uri))
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason.startswith("The primary container for production variant AllTraffic could not be started: ")
    assert uri in status.reason
    assert "penstock/scripted" in status.reason


async def test_a_missing_artifact_is_the_reason(placement: ProcessPlacement, tmp_path: Path) -> None:
    s = spec(model_data=model_data("s3://b/none.tar.gz"))
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason.startswith(
        'Failed to download model data for container "container_1" from URL: "s3://b/none.tar.gz".'
    )
    assert not (tmp_path / "replicas" / s.id).exists()


async def test_a_replica_that_ignores_sigterm_is_killed_when_the_grace_is_over(placement: ProcessPlacement) -> None:
    s = spec({"ignore_sigterm": True})
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    began = time.monotonic()
    await placement.stop(s.id, grace_s=0.5)
    assert 0.5 <= time.monotonic() - began < 10
    assert not psutil.pid_exists(status.pid)


async def test_a_request_in_flight_ends_before_a_stop(placement: ProcessPlacement, tmp_path: Path) -> None:
    s = spec({"steps": [{"send": "a"}, {"wait_ms": 400}, {"send": "b"}]})
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    answer = asyncio.create_task(post(status, b""))
    reader, writer = await asyncio.open_connection(status.host, status.port)
    writer.write(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    await reader.readuntil(b"a\r\n")
    await placement.stop(s.id)
    assert (await answer).endswith(b"1\r\nb\r\n0\r\n\r\n")
    assert (await reader.read()).endswith(b"1\r\nb\r\n0\r\n\r\n")
    writer.close()
    assert "INFO  scripted stopped" in said(tmp_path)


def environment_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(v.split("=", 1) for v in raw.split("\0") if v)


class Endless(io.BytesIO):
    """An object that arrives a byte at a time, and never ends."""

    def read(self, size: int | None = -1) -> bytes:
        time.sleep(0.002)
        return b"x"


class Slow(Objects):
    """A store of endless objects."""

    endless = ModelData("s3://b/weights.bin", "object")

    def open(self, bucket: str, key: str) -> BinaryIO:
        return Endless()


async def test_a_stop_ends_a_download(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Slow({}), probing=QUICK)
    s = spec(model_data=Slow.endless)
    await placement.start(s)
    weights = tmp_path / "replicas" / s.id / "model" / "weights.bin"
    await until_async(lambda: weights.exists())
    await asyncio.wait_for(placement.stop(s.id), 10)
    assert not list((tmp_path / "replicas").iterdir())
    await placement.close()


async def test_a_download_that_takes_too_long_fails(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Slow({}), probing=QUICK)
    s = spec(model_data=Slow.endless, download_timeout_s=0.1)
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert "It took longer than ModelDataDownloadTimeoutInSeconds allows (0.1 s)." in status.reason
    assert not list((tmp_path / "replicas").iterdir())
    await placement.close()


@pytest.mark.parametrize("name", ["..", "a/b", "", ".x"])
async def test_names_that_are_no_paths_are_refused(placement: ProcessPlacement, name: str) -> None:
    for bad in (spec(id=name), spec(endpoint=name), spec(variant=name), spec(instance_id=name)):
        with pytest.raises(ValueError, match="not"):
            await placement.start(bad)
    assert placement.observe() == ()


async def test_a_stop_that_is_cancelled_goes_on(placement: ProcessPlacement) -> None:
    s = spec({"ignore_sigterm": True})
    await placement.start(s)
    await until_state(placement, s.id, "healthy")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(placement.stop(s.id, grace_s=0.4), 0.05)
    await placement.stop(s.id)
    assert placement.observe() == ()


def test_a_reserved_port_is_for_one_server_only() -> None:
    port = ReservedPort()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port.number))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port.number))
        server.listen()
        with socket.create_connection(("127.0.0.1", port.number), 1):
            pass
        port.release()
    others = [ReservedPort() for _ in range(200)]
    assert len({p.number for p in others}) == 200
    for p in others:
        p.release()


def resources() -> tuple[int, int, int]:
    """Open descriptors, threads, and processes below this one."""
    me = psutil.Process()
    return me.num_fds(), me.num_threads(), len(me.children(recursive=True))


def no_more_than(before: tuple[int, int, int]) -> bool:
    """Each of the three by itself: other tests' servers may be children of this process, so counts are compared."""
    return all(now <= then for now, then in zip(resources(), before, strict=True))


async def test_a_hundred_starts_and_stops_at_any_moment_leak_nothing(tmp_path: Path, rng: random.Random) -> None:
    async def cycle(placement: ProcessPlacement) -> None:
        s = spec(model_data=model_data())
        await placement.start(s)
        await asyncio.sleep(rng.choice([0, 0.001, 0.01, 0.03, 0.1, 0.3]))
        await placement.stop(s.id, grace_s=rng.choice([0, 5]))

    async def all_cycles(count: int) -> None:
        placement = ProcessPlacement(Paths(tmp_path), OBJECTS, probing=QUICK)
        for _ in range(count // 5):
            await asyncio.gather(*(cycle(placement) for _ in range(5)))
        assert placement.observe() == ()
        await placement.close()

    await all_cycles(5)  # what is made once is made
    before, tasks = resources(), len(asyncio.all_tasks())
    await all_cycles(100)
    await until_async(lambda: no_more_than(before), what="descriptors, threads and processes as before")
    assert len(asyncio.all_tasks()) == tasks
    assert not list((tmp_path / "replicas").iterdir())


async def test_a_sigterm_is_never_lost_however_early_it_comes(placement: ProcessPlacement) -> None:
    for _ in range(20):
        s = spec()
        await placement.start(s)
        await until_state(placement, s.id, "starting")
        await asyncio.wait_for(placement.stop(s.id, grace_s=30), 10)


async def test_no_download_holds_up_others(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Slow({}), probing=QUICK)
    for _ in range(STAGING_THREADS + 2):
        await placement.start(spec(model_data=Slow.endless))
    s = spec()
    await placement.start(s)
    await until_state(placement, s.id, "healthy")
    await asyncio.wait_for(placement.stop(s.id), 10)
    await asyncio.wait_for(placement.close(), 10)
    assert not list((tmp_path / "replicas").iterdir())


async def test_an_error_of_our_own_is_a_failure_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def command(s: ReplicaSpec) -> list[str]:
        raise LookupError("a bug")

    placement = ProcessPlacement(Paths(tmp_path), OBJECTS, probing=QUICK, command=command)
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "failed")
    assert status.reason == f"{PING} Internal error: LookupError: a bug."
    assert "a bug" in caplog.text
    await placement.close()


def test_it_runs_on_uvloop_as_well(tmp_path: Path) -> None:
    async def life() -> None:
        placement = ProcessPlacement(Paths(tmp_path), OBJECTS, probing=QUICK)
        for s in (spec(model_data=model_data()), spec({"die": {"after_requests": 1, "code": 5}})):
            await placement.start(s)
            status = await until_state(placement, s.id, "healthy")
            await post(status, b"x")
        assert "exited with status 5." in (await until_state(placement, s.id, "exited")).reason
        await placement.close()
        assert placement.observe() == ()

    children = resources()[2]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
    until(lambda: resources()[2] <= children, what="no process left")


async def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    placement = ProcessPlacement(Paths(Path("home")), OBJECTS, probing=QUICK)
    s = spec(model_data=model_data())
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    assert b"from the model" in await post(status, b"")
    await placement.close()
