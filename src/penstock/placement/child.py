"""A replica's process as seen from here: start it under a minder, wait for it, end it.

Owns the talk with `minder.py`. It must never know what runs in the process, nor why.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MINDER = Path(__file__).with_name("minder.py")

SPAWN_TIMEOUT_S = 30.0
KILL_TIMEOUT_S = 5.0
"""How long the minder may take over killing; after that it is killed itself."""


class SpawnError(Exception):
    """The machine would not start another process; the text says why."""


class Child:
    """A running process tree. Made by `spawn`; gone when `wait` has returned."""

    def __init__(self, minder: asyncio.subprocess.Process, pid: int, minder_lost: Callable[[], None]) -> None:
        self.pid = pid
        self._minder = minder
        self._minder_lost = minder_lost
        self._gone = asyncio.ensure_future(self._listen())

    @property
    def minder_pid(self) -> int:
        return self._minder.pid

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        stdout: int,
        stderr: int,
        minder_lost: Callable[[], None],
    ) -> Child:
        """Start `argv`, its outputs to the two descriptors, which stay the caller's to close. Raises SpawnError.

        `minder_lost` is called when the minder died before it could tidy up: the kernel has killed the process itself, and what that
        had started is to be looked for. Cancelled, it leaves nothing running.
        """
        spawning = asyncio.ensure_future(cls._spawn(argv, environment, cwd, stdout, stderr, minder_lost))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            with contextlib.suppress(SpawnError):
                await (await spawning).kill()
            raise

    @classmethod
    async def _spawn(
        cls,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        stdout: int,
        stderr: int,
        minder_lost: Callable[[], None],
    ) -> Child:
        try:
            minder = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(MINDER), str(stdout), *argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=dict(environment),
                cwd=cwd,
                pass_fds=(stdout,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SpawnError(f"cannot start a process: {error}") from error
        assert minder.stdout is not None
        try:
            async with asyncio.timeout(SPAWN_TIMEOUT_S):
                word, _, number = (await minder.stdout.readline()).decode().partition(" ")
        except TimeoutError:
            word, number = "", ""
        if word != "pid":
            with contextlib.suppress(ProcessLookupError):
                minder.kill()
            await minder.wait()
            _close(minder)
            raise SpawnError("cannot start a process: its minder did not come up")
        return cls(minder, int(number), minder_lost)

    async def wait(self) -> int:
        """The exit status (negative: the signal that ended it) once the whole tree is gone. May be awaited by several and cancelled."""
        return await asyncio.shield(self._gone)

    async def stop(self, grace_s: float) -> int:
        """SIGTERM, then `grace_s` seconds later SIGKILL to the whole tree. Returns as `wait` does."""
        self._say(b"T")
        done, _ = await asyncio.wait({self._gone}, timeout=grace_s)
        return self._gone.result() if done else await self.kill()

    async def kill(self) -> int:
        """SIGKILL to the whole tree, now. Returns as `wait` does."""
        self._say(b"K")
        done, _ = await asyncio.wait({self._gone}, timeout=KILL_TIMEOUT_S)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                self._minder.kill()
        return await self.wait()

    def _say(self, word: bytes) -> None:
        assert self._minder.stdin is not None
        if not self._minder.stdin.is_closing():
            self._minder.stdin.write(word)

    async def _listen(self) -> int:
        assert self._minder.stdout is not None
        status: int | None = None
        while line := await self._minder.stdout.readline():
            word, _, number = line.decode().partition(" ")
            if word == "exit" and status is None:
                status = int(number)
        if await self._minder.wait() != 0:
            await asyncio.to_thread(self._minder_lost)
        _close(self._minder)
        return -signal.SIGKILL if status is None else status


def _close(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
