"""Nothing that an engine process started outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

PROGRAM = """
import multiprocessing.resource_tracker, signal, subprocess, sys
from penstock.engines.children import guard_children
guard_children()
multiprocessing.resource_tracker.ensure_running()
children = [subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) for _ in range(3)]
print(*(child.pid for child in children), flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pipesize=1 << 16
    )
    yield process
    process.kill()
    process.communicate()


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "terminated", "ended"])
def test_children_end_with_the_engine(engine: subprocess.Popen[str], how: signal.Signals | None) -> None:
    assert engine.stdout is not None
    assert engine.stdin is not None
    workers = [int(word) for word in engine.stdout.readline().split()]
    assert len(workers) == 3
    everybody = psutil.Process(engine.pid).children(recursive=True)
    # The workers, the guard, and Python's own process for shared memory, which ends by itself.
    assert len(everybody) == 5
    assert os.getpgid(workers[0]) == engine.pid
    if how is None:
        engine.stdin.write("\n")
        engine.stdin.flush()
    else:
        engine.send_signal(how)
    engine.wait(20)
    until(lambda: all(gone(child.pid) for child in everybody), what="the end of everybody")


def test_the_guard_holds_none_of_the_engines_files(engine: subprocess.Popen[str]) -> None:
    assert engine.stdout is not None
    workers = {int(word) for word in engine.stdout.readline().split()}
    guards = [
        child
        for child in psutil.Process(engine.pid).children()
        if child.pid not in workers and "resource_tracker import main" not in " ".join(child.cmdline())
    ]
    assert len(guards) == 1

    def held() -> set[str]:
        return {os.readlink(path) for path in Path(f"/proc/{guards[0].pid}/fd").iterdir()}

    until(lambda: held() <= {"/dev/null", "anon_inode:[pidfd]"}, what="the guard to let go of its files")
    assert os.getpgid(guards[0].pid) != engine.pid, "a signal to the engine's group must not reach the guard"
