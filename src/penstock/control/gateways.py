"""The gateway's worker processes: started, watched, started again when they die, stopped.

Owns their lives and what they say on stderr, which goes into control's journal. It must never know what they do: they hold the listening
sockets that they inherit, and say `ready` on the table's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock.control.start import CannotStart
from penstock.routes import GatewayEvent

log = logging.getLogger(__name__)
BACKOFF_CAP_S = 30.0
FORGET_DEATHS_S = 60.0
DEATHS_BEFORE_READY = 3
LINE_BYTES = 64 * 1024


class GatewayDoesNotStart(CannotStart):
    """The workers die before any of them was ready."""


def command(home: Path, worker: int, sockets: dict[str, int]) -> list[str]:
    """The command line of a worker. `sockets`: "https", "proxy", "http" to the listening descriptor that it inherits."""
    fds = [argument for name, fd in sockets.items() for argument in (f"--{name}-fd", str(fd))]
    return [sys.executable, "-m", "penstock.gateway", "--home", str(home), "--worker", str(worker), *fds]


class Gateways:
    """`workers` processes, each started by the command line that `command_of` gives for its number, with the descriptors `fds`."""

    def __init__(self, workers: int, command_of: Callable[[int], Sequence[str]], fds: Sequence[int]) -> None:
        self._workers, self._command_of, self._fds = workers, command_of, tuple(fds)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._last_words = ""
        self._draining = False
        self.ready: asyncio.Future[GatewayEvent] = asyncio.get_running_loop().create_future()

    def has(self, pid: int) -> bool:
        """Whether that process is a worker that we started."""
        return any(process.pid == pid for process in self._processes.values())

    def heard(self, event: GatewayEvent) -> None:
        """A worker's event."""
        if event.kind == "ready" and not self.ready.done():
            self.ready.set_result(event)

    async def run(self) -> None:
        """Until cancelled, or drained. Raises GatewayDoesNotStart."""
        async with asyncio.TaskGroup() as tasks:
            for worker in range(self._workers):
                tasks.create_task(self._keep(worker))

    async def _keep(self, worker: int) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            code = await self._live(worker)
            if self._draining:
                return
            deaths = 1 if time.monotonic() - began > FORGET_DEATHS_S else deaths + 1
            if deaths >= DEATHS_BEFORE_READY and not self.ready.done():
                said = f": {self._last_words}" if self._last_words else ""
                raise GatewayDoesNotStart(f"the gateway does not start{said} (status {code})")
            log.warning("gateway worker %d ended with %d; it is started again", worker, code)
            if deaths > 1:
                await asyncio.sleep(min(BACKOFF_CAP_S, 0.25 * 2.0 ** (deaths - 2)))

    async def _live(self, worker: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command_of(worker),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            pass_fds=self._fds,
        )
        self._processes[worker] = process
        if self._draining:
            self._terminate(process)
        assert process.stderr is not None, "it is a pipe"
        await self._journal(worker, process.stderr)
        return await process.wait()

    async def _journal(self, worker: int, lines: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await lines.readline()
            except ValueError:  # longer than LINE_BYTES: what was read of it is dropped
                continue
            if not line:
                return
            if text := line.decode(errors="replace").strip():
                self._last_words = text
                log.info("%s", text, extra={"fields": {"worker": worker}})

    async def drain(self, grace_s: float) -> None:
        """SIGTERM to all; SIGKILL to those that are still there after `grace_s`."""
        self._draining = True
        alive = [process for process in self._processes.values() if process.returncode is None]
        for process in alive:
            self._terminate(process)
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(process.wait() for process in alive))
        except TimeoutError:
            log.error("gateway processes did not end within %g s", grace_s)
            self.kill()
            await asyncio.gather(*(process.wait() for process in alive))

    def kill(self) -> None:
        """SIGKILL to all that are still there."""
        self._draining = True
        for process in self._processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    @staticmethod
    def _terminate(process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
