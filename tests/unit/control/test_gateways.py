"""The lives of worker processes, with small programs in the place of the gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.control import gateways
from penstock.control.gateways import GatewayDoesNotStart, Gateways, NotRelieved
from penstock.routes import GatewayEvent
from tests.waiting import until_async

SERVES = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'a'), flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"


def program(text: str, note: Path) -> Callable[[int], list[str]]:
    return lambda worker: [sys.executable, "-c", text, str(note)]


def pids(note: Path) -> list[int]:
    return [int(line) for line in note.read_text().split()] if note.exists() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def running(made: Gateways) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        await made.drain(0.2)
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    made = Gateways(2, program(SERVES, note), [])
    async with running(made):
        await until_async(lambda: len(pids(note)) == 2)
        first = pids(note)
        os.kill(first[0], signal.SIGKILL)
        await until_async(lambda: len(pids(note)) == 3)
        assert alive(first[1])
    assert not any(alive(pid) for pid in pids(note))


async def test_places_are_taken_over_one_after_the_other(tmp_path: Path) -> None:
    """The old worker is told once the new one serves; one that never serves relieves nobody."""
    note, told = tmp_path / "pids", tmp_path / "told"
    text = (
        "import os, signal, sys, time\n"
        f"signal.signal(signal.SIGUSR2, lambda *_: print(os.getpid(), file=open({str(told)!r}, 'a'), flush=True))\n"
        "print(os.getpid(), file=open(sys.argv[1], 'a'), flush=True)\n"
        "while True: time.sleep(600)\n"
    )
    ended: list[int] = []
    made = Gateways(2, program(text, note), [], ended.append)
    async with running(made):
        await until_async(lambda: len(pids(note)) == 2)
        old = pids(note)
        relieving = asyncio.create_task(made.relieve())
        await until_async(lambda: len(pids(note)) == 3)
        assert pids(told) == []
        made.heard(GatewayEvent("ready", 2))
        await until_async(lambda: len(pids(note)) == 4)
        await until_async(lambda: len(pids(told)) == 1)
        os.kill(pids(note)[3], signal.SIGKILL)
        with pytest.raises(NotRelieved, match="does not start"):
            await relieving
        assert len(pids(told)) == 1
        assert pids(told)[0] in old
        assert all(map(alive, old))
        os.kill(pids(told)[0], signal.SIGKILL)
        await until_async(lambda: set(ended) in ({0, 3}, {1, 3}))
        assert len(pids(note)) == 4, "a relieved worker that ends is not replaced"
        os.kill(pids(note)[2], signal.SIGKILL)
        await until_async(lambda: len(pids(note)) == 5, what="the one that took its place is looked after")


async def test_workers_inherit_the_sockets_and_nothing_else(tmp_path: Path) -> None:
    text = (
        "import os, sys, socket, time; s = socket.socket(fileno=int(sys.argv[2]));"
        "print(s.getsockname()[1], len(os.listdir('/proc/self/fd')), file=open(sys.argv[1], 'w'), flush=True); time.sleep(600)"
    )
    note = tmp_path / "note"
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)):
        fd = listening.fileno()
        made = Gateways(1, lambda worker: [*program(text, note)(worker), str(fd)], [fd])
        async with running(made):
            await until_async(lambda: note.exists() and note.read_text())
            port, descriptors = note.read_text().split()
            assert int(port) == listening.getsockname()[1]
            assert int(descriptors) <= 6, "0, 1, 2, the socket, the note and the directory that is listed"


async def test_a_gateway_that_can_not_start_ends_us_with_its_last_words(tmp_path: Path) -> None:
    text = "import sys; print('gateway: no certificate', file=sys.stderr); sys.exit(2)"
    made = Gateways(1, program(text, tmp_path), [])
    with pytest.raises(ExceptionGroup) as caught:
        await made.run()
    (error,) = caught.value.exceptions
    assert isinstance(error, GatewayDoesNotStart)
    assert str(error) == "the gateway does not start: gateway: no certificate (status 2)"


async def test_once_ready_it_is_started_again_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "BACKOFF_CAP_S", 0.01)
    note = tmp_path / "pids"
    text = "import os, sys; print(os.getpid(), file=open(sys.argv[1], 'a'))"
    made = Gateways(1, program(text, note), [])
    made.heard(GatewayEvent("ready", 0, {"https": 1}))
    async with running(made) as task:
        await until_async(lambda: len(pids(note)) > gateways.DEATHS_BEFORE_READY + 1)
        assert not task.done()
    assert (await made.ready).ports == {"https": 1}


async def test_a_worker_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    made = Gateways(1, program(STUBBORN, note), [])
    async with running(made) as task:
        await until_async(lambda: pids(note))
        await made.drain(0.1)
        async with asyncio.timeout(5):
            await task
    assert not alive(pids(note)[0])


async def test_what_workers_say_is_in_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    text = "import sys, time; sys.stderr.write('x' * 200000 + '\\nhello\\n'); sys.stderr.flush(); time.sleep(600)"
    async with running(Gateways(1, program(text, tmp_path), [])):
        await until_async(lambda: "hello" in caplog.messages)


def test_the_command_line_names_each_socket() -> None:
    line = gateways.command(Path("/h"), 3, {"https": 5, "proxy": 6, "http": 7})
    assert line[1:] == [
        *("-m", "penstock.gateway", "--home", "/h", "--worker", "3"),
        *("--https-fd", "5", "--proxy-fd", "6", "--http-fd", "7"),
    ]
