"""The process that holds the placement dies, its minders die, a replica dies: nothing that a replica ever started lives on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.config import Paths
from penstock.placement import orphans
from penstock.placement.base import ReplicaSpec
from penstock.placement.process import ProcessPlacement
from tests.replicas import PYTHONPATH, QUICK, Objects, alive, spec, until_state
from tests.waiting import until, until_async

FAMILY = textwrap.dedent(
    """
    import http.server, json, os, subprocess, sys
    # One grandchild in the replica's group, one that has left it, both with pipes of their own to forget.
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    near = subprocess.Popen(["sleep", "600"], **quiet)
    shell = "setsid sleep 600 & echo $! > far"
    subprocess.run(["sh", "-c", shell], **quiet)
    far = int(open("far").read())
    print(json.dumps([near.pid, far]), file=open("family.new", "w"), flush=True)
    os.rename("family.new", "family")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
        def log_message(self, *_):
            pass

    http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
    """
)
"""A replica that has children: their numbers are in `family` in its home."""

CONTROL = textwrap.dedent(
    """
    import asyncio, json, sys
    from pathlib import Path
    from penstock.config import Paths
    from penstock.placement.process import ProcessPlacement
    from tests.faults.test_control_killed import family_command
    from tests.replicas import QUICK, Objects, spec, until_state

    async def main():
        home = Path(sys.argv[1])
        placement = ProcessPlacement(Paths(home), Objects({}), probing=QUICK, command=family_command)
        s = spec()
        await placement.start(s)
        status = await until_state(placement, s.id, "healthy")
        minder = json.loads((home / "replicas" / s.id / "process.json").read_text())
        print(json.dumps([int(pid) for pid in minder["processes"]]), flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
    """
)


def family_command(_: ReplicaSpec) -> list[str]:
    return [sys.executable, "-c", FAMILY]


def family(home: Path) -> list[int]:
    """The children of the replicas below `home`."""
    return [pid for path in home.glob("replicas/*/home/family") for pid in json.loads(path.read_text())]


@pytest.fixture
def control(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(
        [sys.executable, "-c", CONTROL, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        yield process
        process.kill()


def started(control: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The replica and its minder, once the replica is healthy."""
    assert control.stdout is not None
    replica, minder = json.loads(control.stdout.readline())
    return replica, minder


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_nothing_outlives_the_control_process(control: subprocess.Popen[bytes], tmp_path: Path, number: int) -> None:
    replica, minder = started(control)
    everyone = [replica, minder, *family(tmp_path)]
    assert len(everyone) == 4
    assert all(map(alive, everyone))
    control.send_signal(number)
    until(lambda: not any(map(alive, everyone)), deadline_s=5)


def test_what_survives_both_deaths_is_swept_at_the_next_start(control: subprocess.Popen[bytes], tmp_path: Path) -> None:
    replica, minder = started(control)
    children = family(tmp_path)
    os.kill(control.pid, signal.SIGSTOP)  # so that it can't tidy up after its minder
    os.kill(minder, signal.SIGKILL)
    control.kill()
    until(lambda: not alive(replica) and not alive(minder), deadline_s=5)
    assert all(map(alive, children))

    async def next_run() -> None:
        placement = ProcessPlacement(Paths(tmp_path), Objects({}))
        assert not any(map(alive, children))
        await placement.close()

    asyncio.run(next_run())
    assert not list((tmp_path / "replicas").iterdir())


async def test_a_killed_minder_takes_its_replica_along(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Objects({}), probing=QUICK, command=family_command)
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    children = family(tmp_path)
    (minder,) = set(orphans.recorded(tmp_path / "replicas" / s.id)) - {status.pid}
    os.kill(minder, signal.SIGKILL)
    status = await until_state(placement, s.id, "exited")
    assert "was killed by SIGKILL" in status.reason
    assert not any(map(alive, [status.pid, *children]))
    await placement.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_dead_replica_leaves_no_children(tmp_path: Path, number: int) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Objects({}), probing=QUICK, command=family_command)
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    children = family(tmp_path)
    os.kill(status.pid, number)
    status = await until_state(placement, s.id, "exited")
    assert f"was killed by {signal.Signals(number).name}" in status.reason
    assert not any(map(alive, children))
    await placement.close()


async def test_a_frozen_replica_is_unhealthy_and_can_be_stopped(tmp_path: Path) -> None:
    placement = ProcessPlacement(Paths(tmp_path), Objects({}), probing=QUICK, command=family_command)
    s = spec()
    await placement.start(s)
    status = await until_state(placement, s.id, "healthy")
    os.kill(status.pid, signal.SIGSTOP)
    await until_state(placement, s.id, "unhealthy")
    await placement.stop(s.id, grace_s=0.2)
    await until_async(lambda: not alive(status.pid))
    await placement.close()


def test_a_process_that_only_has_the_recorded_number_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "replicas" / "r1"
    directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        orphans.record(directory, (stranger.pid,))
        value = json.loads((directory / orphans.RECORD).read_text())
        value["processes"][str(stranger.pid)] -= 1
        (directory / orphans.RECORD).write_text(json.dumps(value))
        assert orphans.recorded(directory) == ()
        assert orphans.sweep(tmp_path / "replicas") == (directory,)
        assert alive(stranger.pid)
        orphans.record(directory, (stranger.pid,))
        orphans.sweep(tmp_path / "replicas")
        assert stranger.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot":1}', '{"boot":"x","processes":{}}'])
def test_a_torn_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / orphans.RECORD).write_text(text)
    assert orphans.recorded(tmp_path) == ()
