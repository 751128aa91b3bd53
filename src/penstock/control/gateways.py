"""The gateway's worker processes: started, watched, started again when they die, stopped.

Owns their lives. It must never know what they do: they hold the listening sockets that they inherit, and say `ready` on the table's socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from penstock.routes import GatewayEvent

log = logging.getLogger(__name__)
BACKOFF_CAP_S = 30.0
FORGET_DEATHS_S = 60.0
DEATHS_BEFORE_READY = 3


class GatewayDoesNotStart(Exception):
    """The workers die before any of them was ready; the text is one plain line."""


def command(home: Path, worker: int, sockets: dict[str, int]) -> list[str]:
    """The command line of a worker. `sockets`: "https", "proxy", "http" to the listening descriptor that it inherits."""
    fds = [argument for name, fd in sockets.items() for argument in (f"--{name}-fd", str(fd))]
    return [sys.executable, "-m", "penstock.gateway", "--home", str(home), "--worker", str(worker), *fds]


class Gateways:
    """`workers` processes that share the listening `sockets`."""

    def __init__(self, home: Path, workers: int, sockets: dict[str, int]) -> None:
        self._commands = [command(home, worker, sockets) for worker in range(workers)]
        self._fds: Sequence[int] = tuple(sockets.values())
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._draining = False
        self.ready: asyncio.Future[GatewayEvent] = asyncio.get_running_loop().create_future()

    def heard(self, event: GatewayEvent) -> None:
        """A worker's event."""
        if event.kind == "ready" and not self.ready.done():
            self.ready.set_result(event)

    async def run(self) -> None:
        """Until cancelled. Raises GatewayDoesNotStart."""
        async with asyncio.TaskGroup() as tasks:
            for worker in range(len(self._commands)):
                tasks.create_task(self._keep(worker))

    async def _keep(self, worker: int) -> None:
        deaths = 0
        while not self.draining():
            began = time.monotonic()
            code = await self._live(worker)
            if self.draining():
                return
            deaths = 1 if time.monotonic() - began > FORGET_DEATHS_S else deaths + 1
            log.error("gateway worker %d ended with %d", worker, code)
            if deaths >= DEATHS_BEFORE_READY and not self.ready.done():
                raise GatewayDoesNotStart(
                    f"the gateway does not start: its worker ended {deaths} times, last with {code}"
                )
            if deaths > 1:
                await asyncio.sleep(min(BACKOFF_CAP_S, 0.25 * 2.0 ** (deaths - 2)))

    def draining(self) -> bool:
        return self._draining

    async def _live(self, worker: int) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._commands[worker], stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr, pass_fds=self._fds
        )
        self._processes[worker] = process
        return await process.wait()

    async def drain(self, grace_s: float) -> None:
        """SIGTERM to all; SIGKILL to those that are still there after `grace_s`."""
        self._draining = True
        alive = [process for process in self._processes.values() if process.returncode is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
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
